"""Let each concatenation read all its parts at once: the reverse of `chain_concats`, for TensorRT.

    concat(concat(x, f1, f2), f3) = concat(x, f1, f2, f3)

TensorRT fuses a concatenation with the BN and ReLU behind it. In a chain each of these kernels also writes the
concatenation for the next; with flat lists it need not exist: DenseNet-121 in FP16 then writes a third less (estimated
from the tensors of TensorRT-RTX plans, docs/placements.md).
"""

import onnx_ir as ir

from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Replace every input that is itself a concatenation along the same axis by that one's inputs."""
    fired = 0
    for node in model.graph:
        if node.op_type != "Concat":
            continue
        parts = tuple(leaf for value in node.inputs for leaf in _leaves(value, _axis(node)))
        if len(parts) != len(node.inputs):
            node.resize_inputs(len(parts))
            for index, value in enumerate(parts):
                node.replace_input_with(index, value)
            fired += 1
    for node in reversed(tuple(model.graph)):
        result = node.outputs[0]
        if node.op_type == "Concat" and not result.uses() and not result.is_graph_output():
            model.graph.remove(node, safe=True)
    return Outcome(fired=fired)


def _leaves(value: ir.Value | None, axis: int) -> tuple[ir.Value | None, ...]:
    """Return the parts that a value is concatenated of."""
    producer = value.producer() if value is not None else None
    # One step is enough: nodes come in order, so the producer has been flattened already.
    if producer is None or producer.op_type != "Concat" or _axis(producer) != axis or len(producer.inputs) < 2:
        return (value,)
    return tuple(producer.inputs)


def _axis(node: ir.Node) -> int:
    return node.attributes.get_int("axis", 1)


PASS = Pass(apply=apply, promise=0.0)
