"""A plan in numbers, block by block."""

import math
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, onnx_file
from deploy_kit.graph.passes.batchnorm_to_max import NEVER
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.equalize import EqualizedGroup
from deploy_kit.quantization.int8.grids import Grid
from deploy_kit.quantization.int8.plan import Int8Plan
from deploy_kit.records.results import FloatNodes, QuantizedBlock

Moved: TypeAlias = Literal["int8", "fp16", "fp32"]
_BYTES: dict[Moved, int] = {"int8": 1, "fp16": 2, "fp32": 4}

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SMOOTH = frozenset(
    {
        "Celu", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Log", "LogSoftmax", "Mish", "Pow",
        "Reciprocal", "Selu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip
_STATISTICS = frozenset(
    {
        "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization", "LpNormalization",
        "MeanVarianceNormalization", "RMSNormalization", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare",
    }
)  # fmt: skip
_UNCOUNTED = frozenset({*onnx_file.PAIR, "Cast", "Constant", "ConstantOfShape", "Identity", "Range", "Shape"})


def floating(model: ir.Model) -> tuple[FloatNodes, ...]:
    """List what computes in float in a quantized graph, each operator with its reason; the most frequent first."""
    found: dict[tuple[str, str], list[str]] = {}
    for node in model.graph:
        dtype = node.outputs[0].dtype
        if node.op_type in _UNCOUNTED or dtype is None or not dtype.is_floating_point() or _on_integers(node):
            continue
        found.setdefault((node.op_type, _why(node)), []).append(str(node.name or node.outputs[0].name))
    rows = (FloatNodes(operator=op, n=len(names), why=why, first=names[0]) for (op, why), names in found.items())
    return tuple(sorted(rows, key=lambda row: -row.n))


def _maker(value: ir.Value | None) -> ir.Node | None:
    return value.producer() if value is not None else None


def _restored(value: ir.Value | None) -> bool:
    maker = _maker(value)
    return maker is not None and maker.op_type == "DequantizeLinear"


def _quantized(value: ir.Value | None) -> bool:
    """Return whether a quantizer reads a value, itself or behind a ReLU or Clip."""
    readers = value.consumers() if value is not None else ()
    return any(
        node.op_type == "QuantizeLinear" or (node.op_type in ("Relu", "Clip") and _quantized(node.outputs[0]))
        for node in readers
    )


def _on_integers(node: ir.Node) -> bool:
    """Return whether engines take a node and the pairs around it for one operation on integers."""
    if node.op_type in _WEIGHTED:
        return all(map(_restored, node.inputs[:2]))
    maker = _maker(node.inputs[0]) if node.inputs else None
    if node.op_type in ("Relu", "Clip") and maker is not None and maker.op_type in _WEIGHTED:
        return _on_integers(maker)
    given = [value for value in node.inputs if value is not None and not edit.constant(value)]
    return bool(given) and all(map(_restored, given)) and _quantized(node.outputs[0])


def _why(node: ir.Node) -> str:
    """Return why a node computes in float."""
    if node.op_type in _SMOOTH:
        return "a curve: no engine here has it on integers"
    if node.op_type in _STATISTICS:
        return "sums or statistics of each image: no engine here has them on integers"
    if (
        node.op_type in ("Resize", "Upsample", "GridSample")
        and node.attributes.get_string("mode", "nearest") != "nearest"
    ):
        return "interpolates: its results lie between the steps of a grid"
    if node.op_type in ("Mul", "Div") and not any(map(edit.constant, node.inputs)):
        return "two activations are multiplied or divided, as by a gate"
    if node.op_type in _WEIGHTED and not (edit.constant(node.inputs[1]) or _restored(node.inputs[1])):
        return "its weights are computed"
    for value in node.inputs:
        maker = _maker(value)
        if value is not None and value.is_graph_input():
            return "reads the input itself"
        if maker is not None and maker.op_type != "DequantizeLinear" and not edit.constant(value):
            return f"reads what {maker.op_type} gives in float"
    if node.outputs[0].is_graph_output():
        return "gives the output"
    reader = next(iter(node.outputs[0].consumers()), None)
    return f"{reader.op_type} reads its result in float" if reader is not None else "nothing reads its result"


def blocks(plan: Int8Plan, concats: Moved = "int8", rest: Moved = "fp32") -> tuple[QuantizedBlock, ...]:
    """Describe each group of the plan that concatenates; call it before a writer changes the plan.

    Args:
        plan: An equalized plan that is not written yet.
        concats: Type that the writer lets concatenations move.
        rest: Type of everything that stays float.
    """
    rows = [row for row in plan.rows if row.reach.size]  # the input joined to itself has no source to describe
    return tuple(_block(f"block {number}", row, plan, (concats, rest)) for number, row in enumerate(rows, start=1))


def _block(name: str, row: EqualizedGroup, plan: Int8Plan, types: tuple[Moved, Moved]) -> QuantizedBlock:
    group = row.group
    grid = next((plan.grids[value] for value in group.values if value in plan.grids), None)
    writers = [value.producer() for value in group.values]
    movers = [node for node in writers if node is not None and grouping.shares_grid(node)]
    joins = [node for node in movers if node.op_type == "Concat" and node not in plan.kept]
    concats = types[0] if any(node.outputs[0] in plan.grids for node in joins) else types[1]
    norms = {n for v in group.values for n in v.consumers() if n.op_type == "BatchNormalization"}
    bounds = [node for node in movers if node.op_type in ("Max", "Min")]
    floats = [node for node in (*norms, *(b for b in bounds if not _second_half(b))) if node in plan.kept]
    norms, bounds = norms - plan.kept, [node for node in bounds if node not in plan.kept]
    idle, constant = _idle_and_constant(bounds, grid) if grid is not None else (0.0, 0.0)
    signed = grid is not None and grid.signed
    reach = np.sort(row.reach)
    return QuantizedBlock(
        name=name,
        channels=len(reach),
        concats=concats,
        scale=grid.scale if grid is not None else 0.0,
        zero_point=grid.zero if grid is not None else 0,
        spread=(float(reach[0]), float(np.median(reach)), float(reach[-1])),
        not_equalized=row.refused,
        maxima=sum(not _second_half(node) for node in bounds),
        depthwise=0 if signed else len(norms),
        floating=len(floats) + (len(norms) if signed else 0),
        never=idle,
        always=constant,
        macs=sum(onnx_file.macs_of(node) for node in _convolutions(group)),
        moved_bytes=_BYTES[concats] * sum(_size(n.outputs[0]) for n in movers if n.op_type in ("Concat", "Max", "Min")),
    )


def _second_half(node: ir.Node) -> bool:
    """Return whether a minimum belongs to the maximum before it: one BN with slopes of both signs."""
    source = node.inputs[0]
    before = source.producer() if source is not None else None
    return (
        node.op_type == "Min" and before is not None and source is not None
        and before.op_type == "Max" and grouping.only_reader(source) is node
    )  # fmt: skip


def _idle_and_constant(bounds: list[ir.Node], grid: Grid) -> tuple[float, float]:
    """Return the shares of bounds beyond the grid: those that never clip, and those that always do."""
    idle, constant, total = 0, 0, 0
    for node in bounds:
        limits = edit.array(node.inputs[1]).reshape(-1)
        raw = grid.raw(limits[np.abs(limits) < NEVER])
        below, above = int((raw < grid.low).sum()), int((raw > grid.high).sum())
        idle, constant = (idle + below, constant + above) if node.op_type == "Max" else (idle + above, constant + below)
        total += len(raw)
    return (idle / total, constant / total) if total else (0.0, 0.0)


def _convolutions(group: grouping.ScaleGroup) -> set[ir.Node]:
    """Find the block's convolutions: its readers, and those that write into it without reading another block."""
    readers = {node for value in group.values for node in value.consumers() if node.op_type == "Conv"}
    makers = set()
    for value in group.sources:
        maker = value.producer()
        if maker is not None and maker.op_type == "Relu":
            maker = grouping.fused_into(maker)
        source = maker.inputs[0] if maker is not None and maker.op_type == "Conv" else None
        before = source.producer() if source is not None else None
        if maker is not None and maker.op_type == "Conv" and (before is None or before.op_type == "Relu"):
            makers.add(maker)
    return readers | makers


def _size(value: ir.Value) -> int:
    """Count the elements of one image."""
    return math.prod(size for size in tuple(value.shape or ())[1:] if isinstance(size, int))
