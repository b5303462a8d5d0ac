"""Float graph → one standard-ONNX INT8 graph that ONNX Runtime and OpenVINO both run at their best.

Within a group (`scale_groups`) everything stays uint8: concatenations, poolings, and the maxima that
BatchNormalization and ReLU have become. Convolutions are Q/DQ groups that both runtimes take as one integer kernel:
uint8 activations, int8 weights per output channel, int32 bias.

The results of an integer graph are off on average, by an amount that is known, so biases correct it:

    b' = b − Σ (W_q − W)·E[y] − Σ W_q·e        y: the input, e = E[y_q] − E[y]: the mean error of its integers

E[y] is observed. e comes from rounding a constant once instead of a signal many times: max(x, t) on integers gives t_q,
the nearest integer of t:

    e = (t_q − t)·(1 − p)                      p: share of the channel's pixels beyond t, from its mean and deviation
    e = 0                                      where t_q falls below the grid: the maximum never clips
    e = t_q − t                                where it falls above: it always does

At the border a kernel reads zeros of padding, which are exact: a tap counts for the pixels for which it is inside.
Where weights are chosen by what a convolution reads, the same sample gives E[W_q·y_q] − E[W·y] without any formula,
clipped ends of ranges included.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, onnx_file, receptive_window, sums_of_two
from deploy_kit.quantization.int8 import channel_moves, mixed_precision, weight_rounding
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.adaptive_rounding import Rounded
from deploy_kit.quantization.int8.channel_moments import clipped, summed
from deploy_kit.quantization.int8.grids import (
    ChosenGrid,
    Grid,
    Weights,
    channel_scales,
    quantize_weights,
)
from deploy_kit.quantization.int8.pixel_grid import PixelGrid
from deploy_kit.quantization.int8.plan import Int8Plan

_WEIGHTED = frozenset({"Conv", "Gemm", "BatchNormalization"})


@dataclass(kw_only=True)
class _Writer:
    """The new graph while it is written.

    Attributes:
        plan: The plan, whose model is the old graph.
        nodes: Nodes written so far.
        constants: Constants by name.
        integers: Integers of each old value.
        floats: Each old value in float, as it was computed.
        restored: Each old value in float, restored from its integers.
        rounded: Integers of weights that were chosen by what the node reads.
        scales: Scales (outputs,) that they were chosen for.
    """

    plan: Int8Plan
    nodes: list[ir.Node] = field(default_factory=list)
    constants: dict[str, ir.Value] = field(default_factory=dict)
    integers: dict[ir.Value, ir.Value] = field(default_factory=dict)
    floats: dict[ir.Value, ir.Value] = field(default_factory=dict)
    restored: dict[ir.Value, ir.Value] = field(default_factory=dict)
    rounded: dict[ir.Node, Rounded] = field(default_factory=dict)
    scales: dict[ir.Node, np.ndarray] = field(default_factory=dict)

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Add a constant, or return the one of this name: a name stands for one content."""
        if name not in self.constants:
            tensor = ir.Tensor(array, name=name)
            self.constants[name] = ir.Value(
                name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
            )
        return self.constants[name]

    def node(self, operator: str, inputs: Sequence[ir.Value | None], output: str, **attributes: object) -> ir.Value:
        """Add a node, and return its output."""
        made = ir.node(operator, inputs, attributes or None, name=output)
        made.outputs[0].name = output
        self.nodes.append(made)
        return made.outputs[0]

    def grid_inputs(self, grid: Grid) -> list[ir.Value]:
        """Return scale and zero point as constants, one pair for each grid."""
        name = f"grid.{np.float32(grid.scale).view(np.uint32):08x}.{grid.zero}"
        return [
            self.constant(f"{name}.scale", np.array(grid.scale, np.float32)),
            self.constant(f"{name}.zero", np.array(grid.zero, np.uint8)),
        ]

    def quantized(self, value: ir.Value) -> ir.Value:
        """Return a value as integers of its grid; it is quantized once."""
        if value not in self.integers:
            inputs = [self.floats[value], *self.grid_inputs(self.plan.grids[value])]
            self.integers[value] = self.node("QuantizeLinear", inputs, f"{value.name}.q")
        return self.integers[value]

    def real(self, value: ir.Value) -> ir.Value:
        """Return a value in float; one with a grid through its integers, so that all readers see the same numbers."""
        if value not in self.plan.grids:
            return self.floats[value]
        if value not in self.restored:
            inputs = [self.quantized(value), *self.grid_inputs(self.plan.grids[value])]
            self.restored[value] = self.node("DequantizeLinear", inputs, f"{value.name}.dq")
        return self.restored[value]

    def read(self, value: ir.Value, node: ir.Node) -> ir.Value:
        """Return a constant, or a value in float; between nodes that stay in float it is not rounded to the grid."""
        exact = node in self.plan.kept and mixed_precision.in_float(value, self.plan) and value in self.floats
        return self.floats[value] if exact or value.const_value is not None else self.real(value)

    def weight(self, name: str, quantized: Weights, input_scale: float) -> list[ir.Value]:
        """Add DequantizeLinear nodes for weights and bias, and return the results of both."""
        scales = self.constant(f"{name}.w.scale", quantized.scales)
        zeros = self.constant(f"{name}.w.zero", np.zeros(quantized.scales.shape, np.int8))
        integers = self.constant(f"{name}.w.q", quantized.integers)
        steps = self.constant(f"{name}.b.scale", (np.float32(input_scale) * quantized.scales).astype(np.float32))
        bias = self.constant(f"{name}.b.q", quantized.bias)
        none = self.constant(f"{name}.b.zero", np.zeros(quantized.scales.shape, np.int32))
        return [
            self.node("DequantizeLinear", [integers, scales, zeros], f"{name}.w", axis=0),
            self.node("DequantizeLinear", [bias, steps, none], f"{name}.b", axis=0),
        ]


def write_portable(plan: Int8Plan) -> ir.Model:
    """Write the integer graph; the plan's model stays as it is."""
    writer, old = _Writer(plan=plan), plan.model.graph
    for value in onnx_file.inputs(plan.model):
        writer.floats[value] = ir.Value(name=value.name, type=value.type, shape=value.shape)
    inputs = list(writer.floats.values())
    for name, value in old.initializers.items():
        assert value.const_value is not None
        writer.floats[value] = ir.Value(name=name, const_value=value.const_value, type=value.type, shape=value.shape)
    if plan.choices.rounding == "descent":
        _round(writer)
    pixels = plan.pixels if plan.pixels is not None and plan.pixels.value in plan.grids else None
    for node in old:
        if pixels is not None and node in pixels.nodes:
            _take_pixels(writer, pixels)
            continue
        if node.op_type == "Relu" and grouping.fused_into(node) is not None:
            continue  # written with the node it belongs to
        write_node = _WRITERS.get(node.op_type, _copy) if _on_integers(writer, node) else _copy
        write_node(writer, node)
    outputs = [writer.floats[value] if value in writer.floats else writer.real(value) for value in old.outputs]
    for value, new in zip(old.outputs, outputs, strict=True):
        new.name, new.type, new.shape = value.name, value.type, value.shape
    used = {
        value for node in writer.nodes for value in node.inputs if value is not None and value.const_value is not None
    }
    written = ir.Graph(
        inputs, outputs, nodes=writer.nodes, initializers=sorted(used, key=lambda v: v.name or ""),
        opset_imports=plan.model.opset_imports, name=old.name,
    )  # fmt: skip
    model = ir.Model(written, ir_version=plan.model.ir_version, producer_name="deploykit")
    model.metadata_props.update(plan.model.metadata_props)
    return model


def numbers(written: ir.Model, node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the weights (outputs, inputs / groups, …) and the bias (outputs,) that a graph computes a node with.

    Args:
        written: What `write_portable` wrote.
        node: A node of the plan; one that stayed in float has no such numbers.
    """
    held, name = written.graph.initializers, node.outputs[0].name
    if f"{name}.w.q" not in held:
        return None
    rows, scales, bias, steps = (edit.array(held[f"{name}.{part}"]) for part in ("w.q", "w.scale", "b.q", "b.scale"))
    return rows * scales.reshape(-1, *[1] * (rows.ndim - 1)), bias * steps


def _take_pixels(writer: _Writer, pixels: PixelGrid) -> None:
    """Take the pixels for the integers of the value that they stand for, or make them of floats.

    OpenVINO 2026.4 computes on integers behind a quantizer alone. One behind a DequantizeLinear of the same grid does
    nothing: OpenVINO turns the two into a move of bytes, and ONNX Runtime drops them. Without them the stem of
    DenseNet-121 takes OpenVINO 2.5 ms instead of 1.0 (EPYC with AVX512-VNNI, one thread).
    """
    if pixels.value in writer.integers:
        return
    read, name = writer.floats[pixels.source], pixels.value.name
    if pixels.steps is None:
        grid = writer.grid_inputs(pixels.grid)
        restored = writer.node("DequantizeLinear", [read, *grid], f"{name}.pixels")
        writer.integers[pixels.value] = writer.node("QuantizeLinear", [restored, *grid], f"{name}.q")
    else:
        steps = [
            writer.constant(f"{name}.{part}", of) for part, of in zip(("scale", "zero"), pixels.steps, strict=True)
        ]
        writer.integers[pixels.value] = writer.node("QuantizeLinear", [read, *steps], f"{name}.q", axis=1)


def _on_integers(writer: _Writer, node: ir.Node) -> bool:
    grids, values = writer.plan.grids, grouping.activations(node)
    computes = node.op_type not in _WEIGHTED or grouping.quantizable(node)
    return node not in writer.plan.kept and computes and bool(values) and all(value in grids for value in values)


def _copy(writer: _Writer, node: ir.Node, *, without: str = "") -> None:
    """Compute in float, between DequantizeLinear and QuantizeLinear; all attributes but one stay."""
    inputs = [None if v is None else writer.read(v, node) for v in node.inputs]
    made = ir.node(node.op_type, inputs, name=node.name, domain=node.domain, num_outputs=len(node.outputs))
    made.attributes.update({key: kept for key, kept in node.attributes.items() if key != without})
    writer.nodes.append(made)
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
    _finish(writer, node, made.outputs[0])
    for old, new in zip(node.outputs[1:], made.outputs[1:], strict=True):
        writer.floats[old] = new


def _finish(writer: _Writer, node: ir.Node, result: ir.Value) -> None:
    """Register a node's float result: with its ReLU, and quantized where it has a grid."""
    relu = grouping.fused_relu(node)
    value = relu.outputs[0] if relu is not None else node.outputs[0]
    grid = writer.plan.grids.get(value)
    # With a zero point of 0 the quantizer's saturation is the ReLU; otherwise 0 lies inside the grid, and a maximum of
    # integers clips.
    clipped = grid is not None and grid.zero > 0
    if relu is not None and not clipped:
        result = writer.node("Relu", [result], str(relu.outputs[0].name))
    writer.floats[value] = result
    if grid is None:
        return
    whole = writer.quantized(value)
    if relu is not None and clipped:
        writer.integers[value] = _limited(writer, "Max", whole, np.array([grid.zero]), value)
        del writer.floats[value]  # this was the result before the ReLU


def _limited(writer: _Writer, operator: str, whole: ir.Value, limits: np.ndarray, like: ir.Value) -> ir.Value:
    """Add Max or Min against integers, one or one for each channel, on `whole`."""
    shape = like.shape
    rank = len(shape) if shape is not None else 4
    columns = shape[-1] if shape is not None and isinstance(shape[-1], int) and rank > 2 and limits.size > 1 else 1
    # ONNX Runtime 1.31 broadcasts row by row: a constant that is a row long halves the time.
    tile = np.broadcast_to(limits.reshape(1, -1, *[1] * (rank - 2)), (1, limits.size, *[1] * (rank - 3), columns))
    bound = writer.constant(f"{like.name}.{operator.lower()}", np.ascontiguousarray(tile.astype(np.uint8)))
    return writer.node(operator, [whole, bound], f"{like.name}.{operator.lower()}.q")


def _round(writer: _Writer) -> None:
    """Choose the integers of all convolutions and Gemm by what they read."""
    plan, by_node = writer.plan, {}
    for node in plan.model.graph:
        if node.op_type in ("Conv", "Gemm") and _on_integers(writer, node):
            rows, read = _rows(node), plan.grids[grouping.activations(node)[0]]
            paired = _paired(plan, rows, node.attributes.get_int("group", 1))
            scales = channel_scales(rows, edit.bias(node, len(rows)), read.scale, paired)
            by_node[node] = weight_rounding.Rows(weights=rows, scales=scales, paired=paired)
            writer.scales[node] = scales
    writer.rounded = weight_rounding.rounded_weights(plan, by_node)


def _paired(plan: Int8Plan, rows: np.ndarray, group: int) -> np.ndarray:
    """List the weights (outputs, inputs / groups, …) that must keep their sums within 16 bits."""
    return sums_of_two.pairs_of(rows, group) if plan.choices.narrow_sums else sums_of_two.NO_PAIRS


def _rows(node: ir.Node) -> np.ndarray:
    """Return the weights of a Conv or Gemm, (outputs, inputs / groups, …) float64."""
    matrix = edit.array(node.inputs[1])
    across = node.op_type == "Gemm" and not node.attributes.get_int("transB")
    return np.ascontiguousarray(matrix.T if across else matrix)


def _conv(writer: _Writer, node: ir.Node) -> None:
    weight = _rows(node)
    attributes = {key: value.value for key, value in node.attributes.items()}
    _weighted(writer, node, "Conv", weight, edit.bias(node, len(weight)), attributes)


def _weighted(
    writer: _Writer, node: ir.Node, operator: str, weight: np.ndarray, bias: np.ndarray, attributes: dict[str, object]
) -> None:
    """Write a node with weights (outputs, inputs / groups, …): both as integers, the bias corrected."""
    source, name = node.inputs[0], node.outputs[0].name
    assert source is not None
    scale, read = writer.plan.grids[source].scale, writer.plan.moments(source)
    rounded = writer.rounded.get(node)
    chosen = None if rounded is None else ChosenGrid(integers=rounded.integers, scales=writer.scales[node])
    # Quantized twice: the error of the integers is known only then, and the corrected bias may need another scale.
    group = attributes.get("group", 1)
    paired = _paired(writer.plan, weight, group if isinstance(group, int) else 1)
    trial = quantize_weights(weight, bias, scale, paired=paired, chosen=chosen)
    if rounded is not None and writer.plan.choices.bias_correction:
        drift = rounded.drift(weight, trial.values)
    else:
        # Without bias correction, too, a channel that is constant beyond the grid is corrected: its error is no
        # rounding.
        counted = np.ones(len(read.mean), bool) if writer.plan.choices.bias_correction else read.fixed
        inside = receptive_window.inside(node)
        drift = summed(trial.values - weight, read.mean * counted, inside)
        drift += summed(trial.values, read.error * counted, inside)
    moved = writer.plan.fitted.get(str(name), 0.0) - drift
    whole = quantize_weights(weight, bias + moved, scale, paired=paired, chosen=chosen)
    inputs = [writer.real(source), *writer.weight(str(name), whole, scale)]
    _finish(writer, node, writer.node(operator, inputs, f"{name}.real", **attributes))


def _gemm(writer: _Writer, node: ir.Node) -> None:
    rows = _rows(node)
    _weighted(writer, node, "Gemm", rows, edit.bias(node, len(rows)), {"transB": 1})


def _norm(writer: _Writer, node: ir.Node) -> None:
    """Write a BN as a depthwise 1×1 convolution: weights ±127 are exact, the slope is their scale."""
    relu = grouping.fused_relu(node)
    if (node if relu is None else relu).outputs[0] not in writer.plan.grids:
        _copy(writer, node)  # its readers compute in float, and so would a convolution in its place, but slower
        return
    slope, offset = edit.affine(node)
    rank = len(node.outputs[0].shape or (0, 0, 0, 0))
    kernel = slope.reshape(-1, *[1] * (rank - 1))
    _weighted(writer, node, "Conv", kernel, offset, {"group": len(kernel)})


def _average(writer: _Writer, node: ir.Node) -> None:
    """Leave an average pool in float that `average_pools` has left: one that pads, or may.

    Without padding its attribute has no effect, but ONNX Runtime 1.31's integer pool counts what `ceil_mode` adds.
    """
    moves = node.attributes
    plain = not any(moves.get_ints("pads", ())) and moves.get_string("auto_pad", "NOTSET") == "NOTSET"
    _copy(writer, node, without="count_include_pad" if plain else "")


def _move(writer: _Writer, node: ir.Node) -> None:
    """Write a node that moves values, on their integers."""
    if not grouping.shares_grid(node) or node.outputs[0] not in writer.plan.grids:
        _copy(writer, node)
        return
    moving = set(grouping.activations(node))
    inputs = [v and (writer.quantized(v) if v in moving else writer.floats[v]) for v in node.inputs]
    attributes = {key: value.value for key, value in node.attributes.items()}
    name = f"{node.outputs[0].name}.q"
    writer.integers[node.outputs[0]] = writer.node(node.op_type, inputs, name, **attributes)


def _relu(writer: _Writer, node: ir.Node) -> None:
    source, value = node.inputs[0], node.outputs[0]
    assert source is not None
    if value not in writer.plan.grids:
        _copy(writer, node)
        return
    zero = writer.plan.grids[value].zero
    whole = writer.quantized(source)
    writer.integers[value] = _limited(writer, "Max", whole, np.array([zero]), value) if zero else whole
    _note(writer, source, value, np.zeros_like(writer.plan.moments(source).mean), upper=False)


def _bounded(writer: _Writer, node: ir.Node) -> None:
    """Write a maximum or minimum against a constant on integers."""
    limit, value = grouping.bound(node), node.outputs[0]
    if limit is None or value not in writer.plan.grids:
        _copy(writer, node)
        return
    source = node.inputs[0]
    assert source is not None
    grid = writer.plan.grids[value]
    limits = np.broadcast_to(edit.array(limit).reshape(-1), writer.plan.moments(source).mean.shape)
    whole, upper = grid.quantize(limits), node.op_type == "Min"
    # Where the grid ends at the bound, as it mostly does at that of a ReLU6, the quantizer has clipped.
    idle = upper and bool((whole >= grid.high).all())
    read = writer.quantized(source)
    writer.integers[value] = read if idle else _limited(writer, node.op_type, read, whole, value)
    _note(writer, source, value, limits, upper=upper)


def _note(writer: _Writer, source: ir.Value, value: ir.Value, limits: np.ndarray, *, upper: bool) -> None:
    """Record the moments behind a bound, which the biases behind it correct."""
    after = clipped(writer.plan.moments(source), limits, writer.plan.grids[value], upper=upper)
    writer.plan.known[value] = dataclasses.replace(after, mean=writer.plan.means.get(value, after.mean))


_WRITERS: dict[str, Callable[[_Writer, ir.Node], None]] = {
    **dict.fromkeys(channel_moves.MOVERS, _move),
    "Conv": _conv,
    "Gemm": _gemm,
    "BatchNormalization": _norm,
    "AveragePool": _average,
    "Relu": _relu,
    "Max": _bounded,
    "Min": _bounded,
}
