"""``deploykit inspect``: what is this file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._checkpoint_options import CheckpointOptions, InputSize
from deploy_kit.cli._options import OutputOptions

if TYPE_CHECKING:
    from deploy_kit.analysis.inspection import Inspection


def inspect(
    path: Annotated[Path, typer.Argument(help="Checkpoint, ONNX graph, built engine or bundle.")],
    *,
    size: InputSize = None,
    facts: CheckpointOptions,
    output: OutputOptions,
) -> None:
    """Describe a file: architecture, parameters, MACs, precision, passport."""
    from deploy_kit.analysis import inspection as stage
    from deploy_kit.cli import _file_kinds, _quantities
    from deploy_kit.cli._console import pairs
    from deploy_kit.recipe import overrides

    recipe = overrides.with_export(overrides.for_checkpoint(str(path)), facts.source_table(), {})
    sides = None if size is None else tuple(_quantities.whole_numbers(size, "x", "--input 224x224"))
    with _file_kinds.named(path, "inspect", "a checkpoint, graph, engine or bundle"):
        inspected = stage.inspect_file(path, recipe.source, sides)
    with output.console() as console:
        console.result(inspected, pairs(_rows(inspected)))


def _rows(inspected: "Inspection") -> list[tuple[str, str]]:
    from deploy_kit.records.engine_table import size

    rows = [
        ("file", f"{inspected.path} ({size(inspected.size_bytes)})"),
        ("is", inspected.title),
        *inspected.facts,
    ]
    for name, specs in (("input", inspected.inputs), ("output", inspected.outputs)):
        rows += [(name, f"{spec.name} {spec.dtype} {list(spec.shape)}") for spec in specs]
    if inspected.operators:
        rows.append(("operators", ", ".join(f"{n} {name}" for name, n in inspected.operators)))
    if inspected.passport:
        rows.append(("made by", "; ".join(f"{k} {v}" for k, v in inspected.passport.made_by.rows)))
        rows.append(("parent", inspected.passport.parent))
    origin = inspected.passport.origin if inspected.passport else None
    if origin is not None:
        graph = "; ".join(f"{k} {v}" for k, v in origin.graph_made_by.rows)
        rows += [
            *([("graph made by", graph)] if graph else []),
            ("checkpoint", f"{origin.checkpoint} (sha256 {origin.checkpoint_sha256})"),
            *([("calibrated on", _data(origin.calibration, origin.calibration_sha256))] if origin.calibration else []),
            ("checked on", f"{origin.n_images:,} images ({_data(origin.images, origin.images_sha256)})"),
            *([("lost", origin.drop)] if origin.drop else []),
            ("accuracy", origin.accuracy),
        ]
    return rows


def _data(name: str, digest: str) -> str:
    return f"{name}, sha256 {digest}" if digest else name


COMMAND = Command(
    call=inspect,
    order=80,
    example="deploykit inspect deliver/best-int8.xml",
)
