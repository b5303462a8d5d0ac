"""The points at which two forms of one network can be held against each other, found in a graph by structure.

    stem, transition1 …                what the first layer of a dense block reads, and the block carries on
    denseblock1.denselayer2.conv1      what the layer's second convolution reads: norm and activation are behind it
    denseblock1.denselayer2.conv2      the maps that the layer adds (of a layer with one convolution: its own name)
    features, logits                   what the head's first matrix product reads; the graph's output

They are the same numbers in every form: a BN that is folded, moved or turned into a maximum stands between two of them,
never across one. Where a form keeps them in other units, its file says in which (`units`).

Skip connections join the blocks of a U-Net, and what is one block then depends on the form. There a point is what a
convolution or a matrix product makes, under the name that all forms keep for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from deploy_kit.base.errors import InputError
from deploy_kit.graph import channel_affine, edit, layer_names
from deploy_kit.graph.channel_affine import UNITS_KEY, Affine
from deploy_kit.graph.layer_location import kind_of
from deploy_kit.graph.layer_names import LayerGroup

STEM, FEATURES, LOGITS = "stem", "features", "logits"
_INTEGERS = (ir.DataType.UINT8, ir.DataType.INT8)
_AFFINE = frozenset({"BatchNormalization", "Mul", "Div", "Add", "Sub"})
_SAME_NUMBERS = ("Cast", "Identity")
_WRITTEN = (".real", ".as_channels")  # that rewrites put behind the name of what a convolution makes, the last first
_SUFFIXES = (".q", ".max.q", ".min.q")  # that `int8.portable` puts behind the name of a value


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point in one graph.

    Attributes:
        name: The same in all forms.
        tensor: What to observe; integers where the graph has them, as they cost a runtime nothing.
        scale: Step of the integers; 1 for floats.
        zero: Integer that stands for 0.0.
        whole: Whether it is integers.
        units: What the restored numbers stand for; None where for themselves.
        rectified: Whether ReLUs alone read it: another form may keep no number below 0.
    """

    name: str
    tensor: str
    scale: float = 1.0
    zero: int = 0
    whole: bool = False
    units: Affine | None = None
    rectified: bool = False


def points_of(model: ir.Model, where: str) -> tuple[Point, ...]:
    """Find the points of a graph, in the order in which they are computed; of one without dense blocks, the logits.

    Raises:
        InputError: The graph was equalized before files said in which units they are.
    """
    _verify_units(model, where)
    noted, found = channel_affine.affines_of(model), dict[str, Point]()
    for group in layer_names.layer_groups(model):
        for name, value in _values(group):
            if value.name not in {point.tensor for point in found.values()}:
                found[name] = _point(name, value, noted)
    found[LOGITS] = Point(name=LOGITS, tensor=str(model.graph.outputs[0].name))
    return tuple(found.values())


def named_points_of(model: ir.Model) -> dict[str, Point]:
    """Find what convolutions and matrix products make, by the names of the values, in graph order; the logits last.

    Where a form quantizes a value, it keeps the name for the integers.
    """
    noted, found = channel_affine.affines_of(model), dict[str, Point]()
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    logits = model.graph.outputs[0]
    for written, value in values.items():
        node, name = value.producer(), written
        if node is None or not _multiplies(node) or _becomes(value, logits):
            continue
        for suffix in _WRITTEN:
            name = name.removesuffix(suffix)
        value = _behind_affine(values.get(name, value))
        # A form may have changed the units in front of a ReLU, and notes them of what is behind it.
        relus = [user.outputs[0] for user, _ in value.uses() if user.op_type == "Relu"]
        rectified = bool(relus) and len(relus) == len(value.uses())
        value = relus[0] if rectified else value
        whole = next(
            (values[one + x] for one in (name, str(value.name)) for x in _SUFFIXES if one + x in values), value
        )
        found[name] = replace(_point(name, whole, noted), rectified=rectified)
    return found | {LOGITS: Point(name=LOGITS, tensor=str(logits.name))}


def _behind_affine(value: ir.Value) -> ir.Value:
    """Return what BNs and constants alone make of a value: folded into the convolution, they keep its name."""
    while len(users := [node for node, _ in value.uses()]) == 1:
        user = users[0]
        others = [one for one in user.inputs if one is not value]
        if user.op_type not in _AFFINE or not all(map(edit.constant, others)):
            break
        value = user.outputs[0]
    return value


def _becomes(value: ir.Value, output: ir.Value) -> bool:
    """Return whether a value is an output, but for what quantizes or casts it."""
    while value is not output:
        users = [node for node, _ in value.uses()]
        if len(users) != 1 or kind_of(users[0]) != "requantize":
            return False
        value = users[0].outputs[0]
    return True


def _multiplies(node: ir.Node) -> bool:
    """Return whether a node multiplies by weights, other than a BN or a pool that is written as a convolution."""
    if node.op_type != "ConvTranspose" and kind_of(node) not in ("conv", "gemm"):
        return False
    value = node.inputs[1]
    while value is not None and (producer := value.producer()) is not None and kind_of(producer) == "requantize":
        value = producer.inputs[0]
    return edit.constant(value)


def reads(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return which of these points each of them is computed from; those left out are passed over.

    Args:
        names: In the order in which they are computed.

    Returns:
        Of ``.conv2`` its layer's ``.conv1``; of all others what their block's concatenation holds by then.
    """
    found: dict[str, tuple[str, ...]] = {}
    held: tuple[str, ...] = ()
    for name in names:
        inner = name.removesuffix(".conv2") + ".conv1"
        own = name.endswith(".conv2") and inner in found
        found[name] = (inner,) if own else held
        held = (*held, name) if _in_block(name) else (name,)
        if own:
            held = tuple(one for one in held if one != inner)
    return found


def block_before(end: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the points of the block that ends at `end`; none where it ends none."""
    before = names[: names.index(end)]
    start = next((at for at in reversed(range(len(before))) if not _in_block(before[at])), -1)
    return tuple(before[start + 1 :])


def restored(array: np.ndarray, point: Point) -> np.ndarray:
    """Return the network's own numbers, (n, C, pixels) float64, of what was observed: (n, C, …)."""
    flat = array.reshape(array.shape[0], array.shape[1], -1).astype(np.float64)
    flat = (flat - point.zero) * point.scale
    return flat if point.units is None else _column(point.units).apply(flat)


def in_common(one: np.ndarray, other: np.ndarray, both: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    """Cut both of what the readers of either cannot tell apart: (n, C, pixels) each."""
    for ends in filter(None, map(holds, both)):
        one, other = np.clip(one, *ends), np.clip(other, *ends)
    if any(point.rectified for point in both):
        one, other = np.maximum(one, 0), np.maximum(other, 0)
    return one, other


def holds(point: Point) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the ends (C, 1) of what an equalized integer can hold: its readers cannot tell what lies beyond apart."""
    if point.units is None or not point.whole:
        return None
    column = _column(point.units)
    return column.m - column.r, column.m + column.r


def _column(by: Affine) -> Affine:
    return Affine(r=by.r[:, None], m=by.m[:, None])


def _in_block(name: str) -> bool:
    return name.startswith("denseblock")


def _verify_units(model: ir.Model, where: str) -> None:
    made = model.metadata_props.get("deploykit.int8")
    if made and '"not_equalized":""' in made and UNITS_KEY not in model.metadata_props:
        raise InputError(
            f"{where}: it is equalized, and does not say in which units its numbers are", hint="quantize it again"
        )


def _values(group: LayerGroup) -> Iterable[tuple[str, ir.Value]]:
    """Name the values of one group that are points."""
    weighted, inside = group.weighted, set(group.nodes)
    if not group.by_structure or not weighted:
        return
    if group.name == "head" and _pooled(weighted[0].inputs[0]):
        yield FEATURES, _source(weighted[0].inputs[0])
    if not _in_block(group.name):
        return
    joined = next((node for node in group.nodes if node.op_type == "Concat" and not _one_axis(node)), None)
    parts = [_source(value) for value in joined.inputs] if joined else []
    if group.name.endswith(".denselayer1"):
        block = int(group.name[len("denseblock") :].partition(".")[0])
        yield from ((f"transition{block - 1}" if block > 1 else STEM, v) for v in parts if v.producer() not in inside)
    for number, node in enumerate(weighted[1:], start=1):
        yield f"{group.name}.conv{number}", _source(node.inputs[0])
    last = f"{group.name}.conv{len(weighted)}" if len(weighted) > 1 else group.name
    yield from ((last, v) for v in parts if v.producer() in inside)


def _one_axis(concat: ir.Node) -> bool:
    """Return whether a concatenation is of sizes, as exporters compute those of a Resize, and of no maps."""
    return any(value is not None and value.shape is not None and len(value.shape) == 1 for value in concat.inputs)


def _pooled(value: ir.Value | None) -> bool:
    """Whether a value is the pooled map as it is: a BN in between may have been folded in the other form."""
    node = value.producer() if value is not None else None
    while node is not None and kind_of(node) in ("copy", "requantize", "concat"):
        before = node.inputs[0]
        node = before.producer() if before is not None else None
    return node is not None and kind_of(node) == "pool"


def _source(value: ir.Value | None) -> ir.Value:
    """Go up to the integers, or to what is merely widened or passed on."""
    assert value is not None
    producer = value.producer()
    while producer is not None and producer.op_type in (*_SAME_NUMBERS, "DequantizeLinear"):
        assert producer.inputs[0] is not None
        value = producer.inputs[0]
        if producer.op_type == "DequantizeLinear":
            break
        producer = value.producer()
    return value


def _point(name: str, value: ir.Value, noted: Mapping[str, Affine]) -> Point:
    tensor, known = str(value.name), _noted(value, noted)
    if value.dtype not in _INTEGERS:
        return Point(name=name, tensor=tensor, units=known)
    node = value.producer()
    while node is not None and node.op_type != "QuantizeLinear":  # maxima and pools pass integers on
        before = node.inputs[0]
        node = before.producer() if before is not None else None
    assert node is not None
    scale, zero = (edit.array(part).reshape(()) for part in node.inputs[1:3])
    return Point(name=name, tensor=tensor, scale=float(scale), zero=int(zero), whole=True, units=known)


def _noted(value: ir.Value, noted: Mapping[str, Affine]) -> Affine | None:
    name = str(value.name)
    return next((noted[one] for one in (name, *(name.removesuffix(x) for x in _SUFFIXES)) if one in noted), None)
