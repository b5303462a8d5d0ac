"""ONNX files of other programs → the normal form that all stages take, with a sentence for each change.

    refused       what no rewrite makes usable: training, operators of one runtime, open questions; with the cure
    interface     one float32 input of a known size without the weights, one output; the numbers stay by construction
    rewrites      older operator sets, other float types, conditions, a map of 1×1: shown equal by running both

A normal graph is in operator set 13 or higher, has no functions and no graphs within nodes. One that says it takes
pixels keeps its uint8 input.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_kit.base.errors import InputError
from deploy_kit.base.lazy import need
from deploy_kit.graph import onnx_file

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What is said about an ONNX file beside it.

    Attributes:
        shape: Shape (C, H, W) of one input, as the preprocessing makes it; None where none is known.
        sides: Sides of the input in px; None where nobody names them.
        output: Name of the output to keep, or of a value to make the output; None for the only one.
    """

    shape: tuple[int, ...] | None = None
    sides: tuple[int, ...] | None = None
    output: str | None = None


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """A graph in normal form.

    Attributes:
        model: The graph.
        changes: A sentence for each change; empty where the file was in normal form.
        before: The graph with the same input and output before it was rewritten, in float32 where ONNX Runtime does
            not compute in its own type; None where nothing was rewritten that could change numbers.
        tolerance: Largest difference that the rewrites may make, relative to the largest |output|: None for rewrites
            that are exact but for float32's rounding.
    """

    model: "ir.Model"
    changes: tuple[str, ...]
    before: "onnx.ModelProto | None"
    tolerance: float | None


def adopt(path: Path, stated: Stated) -> Adopted:
    """Bring an ONNX file into normal form.

    Args:
        path: The file.
        stated: What is said beside it.

    Raises:
        InputError: It is not a whole ONNX file, cannot be brought into normal form, or leaves a question open; the hint
            says how to answer it.
    """
    import onnx_ir as ir

    from deploy_kit.graph.adoption import interface, refused, rewrites

    onnx = need("onnx", by="reading ONNX files")
    proto = onnx_file.read(path)
    changes: list[str] = []
    proto = interface.without_functions(proto, path, changes)
    refused.verify(proto, path)
    interface.forget_domains(proto)
    interface.drop_weights(proto, changes)
    proto = interface.write_out(proto, path, changes)
    interface.lower_ir_version(proto, changes)
    interface.name_nodes_apart(proto, changes)
    interface.choose_output(proto, stated.output, path, changes)
    carried = None
    try:
        names = onnx_file.classes(model := ir.serde.deserialize_model(proto))
        carried = onnx_file.preprocess(model) if stated.shape is None else None
    except InputError as error:
        raise InputError(f"{path}: {error}", hint=error.hint) from error
    if carried is not None and stated.sides is None:
        stated = replace(stated, shape=carried.shape)
    interface.size_input(proto, stated, path, changes)
    if carried is None or not carried.input_pixels:
        interface.feed_floats(proto, path, changes)
    proto = interface.infer_anew(proto, path, changes)
    before, n_kept = onnx.ModelProto(), len(changes)
    before.CopyFrom(proto)
    tolerance = rewrites.widen(proto, path, changes)
    if tolerance is not None and rewrites.runs(tolerance):
        rewrites.feed_in_float32(before)
    elif tolerance is not None:  # as it was nothing runs it: what follows is held against its float32 form
        before.CopyFrom(proto)
        n_kept = len(changes)
    proto = rewrites.raise_opset(proto, path, changes)
    rewrites.spread_constants(proto, changes)
    proto = rewrites.dequantize_weights(proto, path, changes)
    proto = rewrites.decide_conditions(proto, path, changes)
    proto = rewrites.flatten_output(proto, path, changes)
    refused.verify_result(proto, path)
    if stated.output is None:
        refused.verify_classes(proto, names, path)
    rewritten = len(changes) > n_kept
    return Adopted(
        model=ir.serde.deserialize_model(proto),
        changes=tuple(changes),
        before=before if rewritten else None,
        tolerance=None if rewritten and not rewrites.runs(tolerance) else tolerance,
    )
