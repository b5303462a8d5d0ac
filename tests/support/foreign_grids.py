"""A small network with dense connections, and the Q/DQ forms in which other programs write its INT8.

ONNX Runtime's, NNCF's and torchao's files are made by them. The forms of programs that are not here are written by hand
as their exporters write them: pytorch-quantization and ModelOpt (float weights behind a quantizer, scales in Constant
nodes), Brevitas QCDQ (a Clip between the pair), TensorFlow (weights stored in another order behind their pair).
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import concat_networks
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

SHAPE, CLASSES = (3, 16, 16), 6
_FLOAT, _INT8, _UINT8 = TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8


def network(opset: int = 17) -> onnx.ModelProto:
    """Stem, two dense layers whose maps are concatenated, a transition, one more layer, logits: seeded weights."""
    draw = np.random.default_rng(11)
    tensors: dict[str, np.ndarray] = {}

    def conv(name: str, x: str, n_in: int, n_out: int, side: int, *, relu: bool = True) -> list[onnx.NodeProto]:
        spread = np.sqrt(2 / (n_in * side * side))
        # Rows of different reach, as trained ones have.
        rows = draw.uniform(0.3, 2, (n_out, 1, 1, 1))
        tensors[f"{name}.w"] = (draw.standard_normal((n_out, n_in, side, side)) * spread * rows).astype(np.float32)
        tensors[f"{name}.b"] = (draw.standard_normal(n_out) * 0.2).astype(np.float32)
        inner = f"{name}.conv" if relu else f"{name}.out"
        pads = [side // 2] * 4
        made = [helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [inner], name=name, pads=pads)]
        return made + ([helper.make_node("Relu", [inner], [f"{name}.out"], name=f"{name}.relu")] if relu else [])

    def layer(name: str, x: str, n_in: int) -> list[onnx.NodeProto]:
        joined = helper.make_node("Concat", [x, f"{name}b.out"], [f"{name}.cat"], name=f"{name}.cat", axis=1)
        return [*conv(f"{name}a", x, n_in, 8, 1), *conv(f"{name}b", f"{name}a.out", 8, 4, 3, relu=False), joined]

    nodes = [
        *conv("stem", "x", 3, 8, 3),
        *layer("one", "stem.out", 8),
        *layer("two", "one.cat", 12),
        *conv("transition", "two.cat", 16, 8, 1),
        helper.make_node("AveragePool", ["transition.out"], ["pooled"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        *layer("three", "pooled", 8),
        helper.make_node("GlobalAveragePool", ["three.cat"], ["mean"], name="mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "head.w", "head.b"], ["logits"], name="head", transB=1),
    ]  # fmt: skip
    tensors["head.w"] = draw.standard_normal((CLASSES, 12)).astype(np.float32)
    tensors["head.b"] = draw.standard_normal(CLASSES).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", _FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("logits", _FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def inputs(n: int = 8, seed: int = 0) -> np.ndarray:
    """Give `n` inputs (n, 3, 16, 16) in 0..1 whose neighboring pixels correlate."""
    coarse = np.random.default_rng(seed).random((n, 3, 4, 4), np.float32)
    return coarse.repeat(4, axis=2).repeat(4, axis=3)


class _Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter([{"x": inputs()}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def by_onnxruntime(folder: Path, *, opset: int = 17, **options: Any) -> Path:
    """Quantize by ONNX Runtime's `quantize_static`, as Q/DQ."""
    onnx.save(network(opset), folder / "float.onnx")
    quantize_static(folder / "float.onnx", folder / "int8.onnx", _Reader(), quant_format=QuantFormat.QDQ, **options)
    return folder / "int8.onnx"


def by_nncf(folder: Path) -> Path:
    """Quantize by NNCF's ONNX backend, with its defaults."""
    nncf = pytest.importorskip("nncf", reason="pip install nncf")
    images = nncf.Dataset([{"x": inputs(1, seed)} for seed in range(8)])
    onnx.save(nncf.quantize(network(), images, subset_size=8), folder / "int8.onnx")
    return folder / "int8.onnx"


def by_torchao(folder: Path) -> Path:
    """Quantize a DenseNet in torch by PT2E, BatchNormalization behind each Concat, and export it by dynamo."""
    reason = "pip install torchao executorch"
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e", reason=reason)
    xnnpack = pytest.importorskip("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", reason=reason)
    torch.manual_seed(0)
    dense = concat_networks.Dense(8, 2, 4, concat_networks.preact)
    tail = [nn.BatchNorm2d(16), nn.ReLU(), concat_networks.Logits(16)]
    model, x = nn.Sequential(concat_networks.Conv(3, 8), dense, *tail).eval(), torch.from_numpy(inputs(4))
    shapes = ({0: torch.export.Dim("N", min=1, max=64)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        prepared = pt2e.prepare_pt2e(
            torch.export.export(model, (x,), dynamic_shapes=shapes).module(),
            xnnpack.XNNPACKQuantizer().set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True)),
        )
        prepared(x)
        torch.onnx.export(
            pt2e.convert_pt2e(prepared), (x,), folder / "int8.onnx", dynamo=True, external_data=False,
            input_names=["x"], output_names=["logits"], dynamic_shapes=shapes, verbose=False,
        )  # fmt: skip
    return folder / "int8.onnx"


def by_hand(
    folder: Path,
    *,
    opset: int = 17,
    weights: str = "stored",
    constants: str = "initializer",
    zero: bool = True,
    per_channel: bool = True,
    joined: bool = True,
    unsigned: bool = False,
    scale_type: int = _FLOAT,
    bias: bool = False,
    block: int = 0,
    negative_axis: bool = False,
    clip: bool = False,
    transposed: bool = False,
) -> Path:
    """Write Q/DQ pairs around what convolutions and the Gemm read.

    Args:
        folder: Where to write.
        opset: Operator set.
        weights: ``stored`` as integers behind a DequantizeLinear, or ``float`` behind a whole pair.
        constants: Where scales and zero points are: ``initializer``, or ``node`` of operator Constant.
        zero: Whether there is a zero point; without one the type is the attribute ``output_dtype``, or uint8.
        per_channel: A scale for each row of weights.
        joined: Also quantize what a Concat reads.
        unsigned: Activations as uint8 with the zero point that fits their range.
        scale_type: Element type of the scales; another one than float32 puts Casts behind the pair.
        bias: Store biases as int32.
        block: Size of a block of input channels that shares a scale; 0 for none.
        negative_axis: Count the axis of weights from the end.
        clip: A Clip between Q and DQ to -127..127.
        transposed: Store weights (H, W, I, O), with a Transpose behind them.
    """
    model = network(opset)
    graph = model.graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    ranges = _ranges(model)
    nodes: list[onnx.NodeProto] = []
    kept: dict[str, np.ndarray] = dict(tensors)
    scales = helper.tensor_dtype_to_np_dtype(scale_type)

    def constant(name: str, value: np.ndarray) -> str:
        if constants == "node":
            nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name)))
        else:
            kept[name] = value
        return name

    def pair(x: str, name: str, scale: np.ndarray, offset: np.ndarray, stored: np.ndarray | None, **axis: int) -> str:
        given = [constant(f"{name}.scale", scale.astype(scales))]
        if zero:
            given.append(constant(f"{name}.zero", offset))
        kind = helper.np_dtype_to_tensor_dtype(offset.dtype)
        if stored is None:
            typed = {} if zero or opset < 21 else {"output_dtype": kind}
            source = x
            if scale_type != _FLOAT:
                nodes.append(helper.make_node("Cast", [x], [f"{name}.narrow"], to=scale_type))
                source = f"{name}.narrow"
            nodes.append(
                helper.make_node("QuantizeLinear", [source, *given], [f"{name}.q"], f"{name}.q", **typed, **axis)
            )
        else:
            kept[f"{name}.q"] = stored
        source = f"{name}.q"
        if clip:
            ends = [constant(f"{name}.{at}", np.array(end, offset.dtype)) for at, end in (("low", -127), ("high", 127))]
            nodes.append(helper.make_node("Clip", [source, *ends], [f"{name}.clipped"], f"{name}.clip"))
            source = f"{name}.clipped"
        result = f"{name}.dq"
        nodes.append(helper.make_node("DequantizeLinear", [source, *given], [result], f"{name}.dq", **axis))
        if scale_type != _FLOAT:
            nodes.append(helper.make_node("Cast", [result], [f"{name}.wide"], to=_FLOAT))
            result = f"{name}.wide"
        return result

    def activation(x: str) -> str:
        if x in done:
            return done[x]
        low, high = min(ranges[x][0], 0.0), max(ranges[x][1], 0.0)
        if unsigned:
            scale = np.float32((high - low) / 255)
            offset = np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)
        elif not zero and opset < 21:  # the type is uint8 then, around 0
            scale, offset = np.float32(high / 255), np.array(0, np.uint8)
        else:
            scale, offset = np.float32(max(-low, high) / 127), np.array(0, np.int8)
        done[x] = pair(x, x, np.asarray(scale), offset, None)
        return done[x]

    def weight(node: onnx.NodeProto) -> str:
        name, values = node.input[1], tensors[node.input[1]]
        del kept[name]
        axes = tuple(range(1, values.ndim)) if per_channel else None
        steps = np.maximum(np.abs(values).max(axis=axes, keepdims=True) / 127, 1e-9).astype(np.float32)
        axis: dict[str, int] = {}
        if block:
            n_blocks = values.shape[1] // block
            if values.ndim != 4 or values.shape[1] % block:
                n_blocks, size = 1, values.shape[1]
            else:
                size = block
            parts = np.abs(values).reshape(values.shape[0], n_blocks, size, *values.shape[2:])
            steps = (parts.max(axis=2) / 127).astype(np.float32)
            axis = {"axis": 1, "block_size": size}
            wide = steps.repeat(size, axis=1)
        else:
            wide = steps
        integers = np.clip(np.rint(values / wide), -127, 127).astype(np.int8)
        flat = steps if block else steps.reshape(-1) if per_channel else steps.reshape(())
        if per_channel and not block:
            axis = {"axis": -values.ndim if negative_axis else 0}
        order = (2, 3, 1, 0)
        if transposed and values.ndim == 4:
            integers, values = integers.transpose(order), values.transpose(order)
            axis = {"axis": 3} if per_channel else {}
        offset = np.zeros(flat.shape, np.int8)
        if weights == "float":
            result = pair(constant(name, values), name, flat, offset, None, **axis)
        else:
            result = pair(name, name, flat, offset, integers, **axis)
        if transposed and values.ndim == 4:
            nodes.append(helper.make_node("Transpose", [result], [f"{name}.oihw"], f"{name}.oihw", perm=[3, 2, 0, 1]))
            result = f"{name}.oihw"
        return result

    def stored_bias(node: onnx.NodeProto, x: str) -> str:
        name, values = node.input[2], tensors[node.input[2]]
        step = (kept[f"{x}.scale"] * kept[f"{node.input[1].removesuffix('.dq')}.scale"]).astype(np.float32)
        del kept[name]
        kept[f"{name}.q"] = np.rint(values / step).astype(np.int32)
        kept[f"{name}.scale"] = step
        axis = {"axis": 0} if step.ndim else {}
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}.q", f"{name}.scale"], [f"{name}.dq"], f"{name}.dq", **axis)
        )
        return f"{name}.dq"

    done: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            x = node.input[0]
            node.input[0] = activation(x)
            node.input[1] = weight(node)
            if bias:
                node.input[2] = stored_bias(node, x)
        elif node.op_type == "Concat" and joined:
            node.input[:] = [activation(x) for x in node.input]
        nodes.append(node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.array(value, order="C"), name) for name, value in kept.items())
    onnx.save(model, folder / "int8.onnx")
    return folder / "int8.onnx"


def weights_alone(file: Path) -> Path:
    """Take the pairs of activations away: what is left stores weights as integers and computes in float."""
    model = onnx.load(file)
    quantizers = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    past = {
        node.output[0]: quantizers[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantizers
    }
    kept = [node for node in model.graph.node if not {*node.output} & {*quantizers, *past}]
    del model.graph.node[:]
    for node in kept:
        node.input[:] = [past.get(name, name) for name in node.input]
    model.graph.node.extend(kept)
    onnx.save(model, file)
    return file


def by_reference(file: Path, x: np.ndarray) -> np.ndarray:
    """Compute a file with ONNX's reference evaluator, which has pairs from operator set 19 on; they mean the same."""
    model = onnx.load(file)
    (opset,) = (entry for entry in model.opset_import if not entry.domain)
    opset.version = max(opset.version, 19)
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def scales(model: onnx.ModelProto) -> set[bytes]:
    """Give the numbers of every scale of a Q or DQ, as bytes."""
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    known |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant"
    }
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return {known[node.input[1]].tobytes() for node in pairs}


def _ranges(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """Observe the smallest and largest number of every activation."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name != "logits")
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"x": inputs()}
    found = dict(zip([one.name for one in session.get_outputs()], session.run(None, given), strict=True))
    return {name: (float(value.min()), float(value.max())) for name, value in (found | given).items()}


def _ort(**options: Any) -> Callable[[Path], Path]:
    return lambda folder: by_onnxruntime(folder, **options)


def _hand(**options: Any) -> Callable[[Path], Path]:
    return lambda folder: by_hand(folder, **options)


FORMS: dict[str, Callable[[Path], Path]] = {
    "onnxruntime: uint8 activations, int8 weights": _ort(per_channel=False),
    "onnxruntime: a scale per channel": _ort(per_channel=True),
    "onnxruntime: int8 both": _ort(per_channel=True, activation_type=QuantType.QInt8),
    "onnxruntime: uint8 both": _ort(activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8, reduce_range=True),
    "onnxruntime: symmetric": _ort(
        activation_type=QuantType.QInt8, extra_options={"ActivationSymmetric": True, "WeightSymmetric": True}
    ),
    "onnxruntime: asymmetric weights": _ort(extra_options={"WeightSymmetric": False}),
    "onnxruntime: float weights behind a pair": _ort(per_channel=True, extra_options={"AddQDQPairToWeight": True}),
    "onnxruntime: float biases": _ort(per_channel=True, extra_options={"QuantizeBias": False}),
    "onnxruntime: a pair for each reader": _ort(extra_options={"DedicatedQDQPair": True}),
    "onnxruntime: operator set 21": _ort(opset=21, per_channel=True),
    "onnxruntime: operator set 21, 16 bits": _ort(opset=21, activation_type=QuantType.QUInt16),
    "onnxruntime: 16 bits of com.microsoft": _ort(activation_type=QuantType.QInt16),
    "onnxruntime: int4 weights": _ort(opset=21, weight_type=QuantType.QInt4),
    "NNCF": by_nncf,
    "torchao": by_torchao,
    "pytorch-quantization": _hand(weights="float", constants="node", opset=13),
    "pytorch-quantization, a scale per tensor": _hand(
        weights="float", constants="node", per_channel=False, joined=False
    ),
    "ModelOpt, stored weights": _hand(constants="node"),
    "ModelOpt, half scales": _hand(weights="float", opset=19, scale_type=TensorProto.FLOAT16),
    "no zero point, uint8": _hand(zero=False, joined=False),
    "no zero point, operator set 21": _hand(zero=False, opset=21),
    "uint8 activations": _hand(unsigned=True),
    "int32 biases": _hand(bias=True),
    "operator set 21, blocks": _hand(opset=21, block=4),
    "axis from the end": _hand(negative_axis=True),
    "operator set 10": _hand(opset=10, per_channel=False),
    "Brevitas QCDQ": _hand(clip=True, weights="float"),
    "Brevitas QCDQ, stored weights": _hand(clip=True),
    "TensorFlow, weights transposed": _hand(transposed=True),
    "TensorFlow, float weights transposed behind a pair": _hand(transposed=True, weights="float"),
}

REFUSED = {
    "onnxruntime: operator set 21, 16 bits": "a grid of uint16",
    "onnxruntime: 16 bits of com.microsoft": "a grid of int16",
    "onnxruntime: int4 weights": "a grid of int4",
    "operator set 21, blocks": r"a scale for each block of \d+ channels",
}
"""Forms that no engine serves, and what the refusal says of them."""

IN_FLOAT = {"ModelOpt, half scales": ("onnxruntime", "openvino"), "onnxruntime: uint8 both": ("openvino",)}
"""Forms that an engine computes in float: scales of float16 between Casts, weights of uint8 around other than 128."""
