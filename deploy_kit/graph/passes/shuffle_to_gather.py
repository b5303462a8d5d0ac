"""A channel shuffle, written as reshape, transpose and reshape, as one Gather of channels.

    reshape(N, g, C/g, …) → transpose 1 ↔ 2 → reshape(N, C, …)        y[c] = x[(c mod g)·C/g + ⌊c/g⌋]

Channels keep their identity in it, so that what is known of them (ranges, bounds) goes on to what reads the result.
"""

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Replace every shuffle of channels whose shapes are known."""
    fired = 0
    for last in tuple(model.graph):
        found = _shuffle(last)
        if found is None:
            continue
        source, order = found
        name, old = str(last.outputs[0].name), last.outputs[0]
        index = edit.initializer(model, f"{name}.order", order, ir.DataType.INT64)
        gather = ir.node("Gather", [source, index], {"axis": 1}, name=last.name)
        edit.put_in_place(model, last, old, gather)
        fired += 1
    return Outcome(fired=fired)


def _shuffle(last: ir.Node) -> tuple[ir.Value, np.ndarray] | None:
    """Return what is shuffled and the order of its channels; None where the node ends no shuffle."""
    moved = _before(last, "Reshape")
    transpose = moved.producer() if moved is not None else None
    split = _before(transpose, "Transpose")
    first = split.producer() if split is not None else None
    source = _before(first, "Reshape")
    shapes = [_sizes(value) for value in (source, split, last.outputs[0])]
    if transpose is None or source is None or moved is None or split is None or not all(shapes):
        return None
    whole, parts, result = shapes
    swapped = [0, 2, 1, *range(3, len(parts))]
    inner = [value for value in (moved, split) if not edit.alone(value)]
    fits = whole == result and len(parts) == len(whole) + 1 and parts[3:] == whole[2:]
    if inner or not fits or list(transpose.attributes.get_ints("perm", ())) != swapped:
        return None
    if not isinstance(whole[1], int) or not isinstance(parts[1], int) or not isinstance(parts[2], int):
        return None
    if parts[1] * parts[2] != whole[1]:
        return None
    return source, np.arange(whole[1]).reshape(parts[1], parts[2]).T.reshape(-1)


def _before(node: ir.Node | None, operator: str) -> ir.Value | None:
    return node.inputs[0] if node is not None and node.op_type == operator else None


def _sizes(value: ir.Value | None) -> list[int | str | None]:
    shape = value.shape if value is not None else None
    return [size if isinstance(size, int) else size.value for size in shape] if shape is not None else []


PASS = Pass(apply=apply, promise=0.0)
