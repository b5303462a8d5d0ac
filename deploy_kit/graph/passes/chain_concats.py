"""Build each concatenation on the one before it, as a DenseNet grows.

    concat(x, f1, f2, f3) = concat(concat(x, f1, f2), f3)

torchvision writes each dense layer's input as a list of all earlier maps, up to 25 tensors. Chained, the same bytes
move in concatenations of two inputs, and a quantizer meets each map once instead of once per reader.
"""

import onnx_ir as ir

from deploy_kit.graph.passes import Outcome, Pass

_Parts = tuple[ir.Value, ...]


def apply(model: ir.Model) -> Outcome:
    """Replace the longest beginning, or ending, of each concatenation that an earlier one has results."""
    results, parts_of, fired = dict[tuple[int, _Parts], ir.Value](), dict[tuple[int, ir.Value], _Parts](), 0
    for node in model.graph:
        if node.op_type != "Concat" or any(value is None for value in node.inputs):
            continue
        axis = node.attributes.get_int("axis", 1)
        parts = tuple(value for value in node.inputs if value is not None)
        flat = tuple(leaf for value in parts for leaf in parts_of.get((axis, value), (value,)))
        while (shorter := _shortened(parts, axis, results)) is not None:
            parts = shorter
            node.resize_inputs(len(shorter))
            for index, value in enumerate(shorter):
                node.replace_input_with(index, value)
            fired += 1
        results.setdefault((axis, flat), node.outputs[0])
        parts_of[axis, node.outputs[0]] = flat
    return Outcome(fired=fired)


def _shortened(parts: _Parts, axis: int, results: dict[tuple[int, _Parts], ir.Value]) -> _Parts | None:
    """Return the inputs with one earlier result in place of at least two of them; None where there is none."""
    for length in range(len(parts) - 1, 1, -1):
        if (beginning := results.get((axis, parts[:length]))) is not None:
            return (beginning, *parts[length:])
        if (ending := results.get((axis, parts[-length:]))) is not None:
            return (*parts[:-length], ending)
    return None


PASS = Pass(apply=apply, promise=0.0, order=90)
