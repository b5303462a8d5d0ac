"""What no rewrite makes usable, refused by the name of its node before any other work."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper, numpy_helper

from deploy_kit.base.errors import InputError
from deploy_kit.graph import integer_grids, onnx_file
from deploy_kit.graph.onnx_bounds import nodes_of

if TYPE_CHECKING:
    import onnx

_FIRST_OPSET = 7  # ONNX Runtime's own first one: nothing here computes an older file
_STANDARD = frozenset({"", "ai.onnx.ml"})
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_TRAINING = "export it again after model.eval()"
# Inputs that are the scale of a grid, by operator; those that it divides by.
_SCALES = {
    "QuantizeLinear": (1,), "DequantizeLinear": (1,), "QLinearConv": (1, 4, 6), "QLinearMatMul": (1, 4, 6),
}  # fmt: skip
_DIVIDED_BY = {"QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6}
_GRIDS = frozenset({0, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32})  # 0: not known
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


def verify(proto: "onnx.ModelProto", path: Path) -> None:
    """Refuse operators of one runtime, operator sets that none computes any more, and nodes that train.

    Raises:
        InputError: Names the node, and what to do.
    """
    for node in nodes_of(proto.graph):
        if node.domain not in _STANDARD:
            raise _foreign(node, path)
    version = opset(proto)
    if version < _FIRST_OPSET:
        raise InputError(
            f"{path}: operator set {version}; what computes ONNX today begins at {_FIRST_OPSET}",
            hint="export it again for a newer one, e.g. torch.onnx.export(…, opset_version=18); a file alone is raised "
            "by onnx.version_converter.convert_version(onnx.load(path), 13), to be compared with its source",
        )
    sparse = [tensor.values.name for tensor in proto.graph.sparse_initializer] + [
        node.output[0]
        for node in nodes_of(proto.graph)
        if any(attribute.HasField("sparse_tensor") or attribute.sparse_tensors for attribute in node.attribute)
    ]
    if sparse:
        raise InputError(
            f"{path}: weight '{sparse[0]}' is stored as a sparse tensor",
            hint="export it again with dense weights: no runtime here computes with sparse ones",
        )
    constants = _constants(proto.graph)
    for node in nodes_of(proto.graph):
        what = _trains(node, version, constants)
        if what:
            raise InputError(f"{path}: {what} at node '{name_of(node)}'", hint=_TRAINING)
        _verify_scales(node, constants, path)


def verify_classes(proto: "onnx.ModelProto", names: tuple[str, ...], path: Path) -> None:
    """Refuse names of another number of classes than the output has.

    Raises:
        InputError: They differ.
    """
    dims = proto.graph.output[0].type.tensor_type.shape.dim
    if names and len(dims) > 1 and dims[1].dim_value not in (0, len(names)):
        raise InputError(
            f"{path}: metadata '{onnx_file.CLASSES_KEY}' names {len(names)} classes, "
            f"its output has {dims[1].dim_value}",
            hint="remove the entry, or name them all",
        )


def verify_result(proto: "onnx.ModelProto", path: Path) -> None:
    """Refuse what is left of graphs within graphs, and an output that holds no numbers to compare.

    Raises:
        InputError: Names the node or the output, and what to do.
    """
    for node in proto.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise InputError(
                f"{path}: {node.op_type} '{name_of(node)}' decides at run time which graph it runs: no precision can "
                "be given to it",
                hint="export the model without control flow, e.g. traced in eval mode",
            )
    _verify_grids(proto, path)
    output = proto.graph.output[0]
    kind = output.type.tensor_type.elem_type
    if kind not in _FLOATS:
        maker = next((node for node in proto.graph.node if output.name in node.output), None)
        said = numpy_name(kind) if kind else "no tensor"
        raise InputError(
            f"{path}: output '{output.name}' is {said}: a check compares numbers before they are chosen from",
            hint=f"make what it is chosen from the output: --output {maker.input[0]}" if maker else "",
        )


def _verify_grids(proto: "onnx.ModelProto", path: Path) -> None:
    """Refuse grids of activations that no engine here computes convolutions on.

    Raises:
        InputError: Integers of other than 8 bits, or a scale for each block of channels.
    """
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
    for node in proto.graph.node:
        if node.op_type not in onnx_file.PAIR:
            continue
        kind = kinds.get(node.output[0] if node.op_type == "QuantizeLinear" else node.input[0], 0)
        blocks = next((entry.i for entry in node.attribute if entry.name == "block_size"), 0)
        if blocks or kind not in _GRIDS:
            what = f"a scale for each block of {blocks} channels" if blocks else f"a grid of {numpy_name(kind)}"
            raise InputError(
                f"{path}: {node.op_type} '{name_of(node)}' is {what}, which no engine here computes a convolution on",
                hint="quantize the float32 file again to 8 bits, with one scale for a tensor or a channel: deploykit "
                "quantize FLOAT.onnx --int8 --calibration calib/",
            )


def opset(proto: "onnx.ModelProto") -> int:
    """Return the version of the default operator set; 1 where the file names none."""
    return next((entry.version for entry in proto.opset_import if entry.domain == ""), 1)


def numpy_name(kind: int) -> str:
    """Return the name of an element type as numpy says it, e.g. ``float64``."""
    return str(helper.tensor_dtype_to_np_dtype(kind))


def name_of(node: "onnx.NodeProto") -> str:
    """Return the name of a node; of its first output where it has none."""
    return node.name or next(iter(node.output), "")


def _foreign(node: "onnx.NodeProto", path: Path) -> InputError:
    if node.domain.startswith("com.microsoft") and node.op_type.startswith(("QLinear", "QGemm")):
        return InputError(
            f"{path}: {node.op_type} '{name_of(node)}' is an integer operator of {node.domain}, which other "
            "engines lack",
            hint="quantize it again in the form of Q/DQ: quantize_static(…, quant_format=QuantFormat.QDQ); or give the "
            "float32 file",
        )
    if node.domain.startswith("com.microsoft"):
        return InputError(
            f"{path}: {node.op_type} '{name_of(node)}' is of {node.domain}: ONNX Runtime's optimizer wrote this file "
            "for itself",
            hint="give the file that it was made from; or save it with "
            "graph_optimization_level = ORT_ENABLE_BASIC, which keeps to ONNX's operators",
        )
    return InputError(
        f"{path}: {node.op_type} '{name_of(node)}' is of the domain '{node.domain}', whose operators nobody here knows",
        hint="export it again with ONNX's own operators, in torch without custom_opsets and custom_translation_table",
    )


def _constants(graph: "onnx.GraphProto") -> dict[str, Any]:
    """Return the small constants of a graph by name."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            known[node.output[0]] = node.attribute[0].t
    return known


def _verify_scales(node: "onnx.NodeProto", constants: dict[str, Any], path: Path) -> None:
    """Refuse a grid whose steps are no positive numbers."""
    for index in _SCALES.get(node.op_type, ()):
        known = constants.get(node.input[index])
        if known is None:
            continue
        values = numpy_helper.to_array(known)
        wrong = integer_grids.faulty_steps(values, divides=_DIVIDED_BY.get(node.op_type) == index)
        if len(wrong):
            raise InputError(
                f"{path}: {node.op_type} '{name_of(node)}': scale '{node.input[index]}' is {wrong[0]:g} in "
                f"{len(wrong)} of {values.size} places, expected positive numbers",
                hint="an activation that is constant throughout calibration leaves such a scale: quantize the "
                "float32 file again, e.g. deploykit quantize FLOAT.onnx --int8 --calibration calib/",
            )


def _trains(node: "onnx.NodeProto", version: int, constants: dict[str, Any]) -> str:
    """Return in which way a node behaves as in training; empty if it does not."""
    if node.op_type in _RANDOM:
        return f"{node.op_type} draws random numbers,"
    if node.op_type == "BatchNormalization":
        stated = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        updates = version < 14 and sum(bool(name) for name in node.output) > 1
        return "BatchNormalization in training mode" if stated or updates else ""
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        mode = constants.get(node.input[2])
        if mode is None:
            return "Dropout whose training mode is decided at run time"
        return "Dropout in training mode" if numpy_helper.to_array(mode).any() else ""
    return ""
