"""One protobuf message ends at 2 GiB: larger weights must lie in files beside the graph."""

from collections.abc import Iterator

import onnx_ir as ir

from deploy_kit.graph.lint import EVERYWHERE, LintFault, LintTarget, Rule

_LIMIT = 2**31 - 1


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Add up the weights that would be written into the file; those beside it count nothing."""
    tensors = (value.const_value for value in model.graph.initializers.values() if value.const_value is not None)
    size = sum(tensor.nbytes for tensor in tensors if not isinstance(tensor, ir.ExternalTensor))
    if size > _LIMIT:
        yield LintFault(node="", text=f"the weights inside the file hold {size / 2**30:.1f} GiB")


RULE = Rule(
    targets=EVERYWHERE,
    level="error",
    title="more than 2 GiB in one file",
    cure="save it with external data: onnx.save(model, path, save_as_external_data=True)",
    source="protobuf.dev, Proto Limits: a serialized message is smaller than 2 GiB",
    check=check,
)
