"""``deploykit pack``: a proved engine as a bundle that needs no deploykit."""

from pathlib import Path
from typing import Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._checkpoint_options import CheckpointOptions, ImageOptions
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import OutputOptions, StepOptions


def pack(
    *,
    engine: Annotated[str | None, typer.Option(help="Engine to pack; by default that of the newest one.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant to pack, e.g. int8; by default the newest.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write, or a file that ends in .zip.")] = Path(
        "bundle"
    ),
    name: Annotated[str, typer.Option(help="Name of the bundle; by default checkpoint, variant and engine.")] = "",
    golden: Annotated[int, typer.Option(help="Number of check images to pack, to verify with.")] = 8,
    sign: Annotated[Path | None, typer.Option(help="PEM file with an elliptic-curve private key to sign with.")] = None,
    allow_undecided: Annotated[
        bool,
        typer.Option("--allow-undecided", help="Pack an engine, too, whose check could not decide."),
    ] = False,
    triton: Annotated[
        bool,
        typer.Option(help="Pack a model repository for Triton, too; it holds the engine's file a second time."),
    ] = True,
    against: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint or ONNX file that a given engine's file is compared with; by default the checkpoint that "
            "its passport names."
        ),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            help="Largest drop of the task's score of a given engine's file, in points, e.g. 0.3pt; an engine of the "
            "store keeps the limits of its recipe."
        ),
    ] = None,
    min_top1: Annotated[
        str | None, typer.Option(help="Least top-1 accuracy of a given engine's file to accept, e.g. 92%.")
    ] = None,
    step: Annotated[StepOptions, Only("model", "images", "skip_bad", "orientation", "recipe", "device", "store")],
    image: ImageOptions,
    facts: CheckpointOptions,
    output: OutputOptions,
) -> None:
    """Pack an engine that keeps its limits into a bundle: engine, manifest, programs, golden outputs, model card.

    The engine is the newest of the store, or a file: one that `--out` delivered, or made elsewhere with --against.
    """
    from deploy_kit.base.errors import RequestError
    from deploy_kit.base.plain_text import shell_word
    from deploy_kit.cli import _given_engine, _packing, _quantities
    from deploy_kit.cli._console import pairs
    from deploy_kit.records.engine_table import size
    from deploy_kit.stages import pack as stage

    table = stage.PackTable(
        out=out, name=name, n_golden=golden, sign=sign, allow_undecided=allow_undecided, triton=triton
    )
    stage.verify_request(table)
    stated = image.source_table() | facts.source_table()
    file = step.model if against is not None or _given_engine.is_engine(step.model) else None
    points, top1 = _quantities.points("--max-drop", max_drop), _quantities.share("--min-top1", min_top1)
    if file is None and (stated or against is not None or points is not None or top1 is not None):
        raise RequestError(
            "--against, --max-drop, --min-top1, --input and facts of a checkpoint are about an engine's file, and none "
            "is given",
            hint="deploykit pack model.onnx --against CHECKPOINT --images FOLDER",
        )
    if file is not None and variant is not None:
        raise RequestError(
            "--variant is about engines of the store, and a file was given", hint="leave out --variant, or the file"
        )

    with output.console() as console:
        if file is not None:
            given = _given_engine.GivenEngine(
                file=file, against=against, golden=None, engine=engine, source=stated, max_drop=points, min_top1=top1,
                to_pack=True,
            )  # fmt: skip
            manifest = _packing.of_file(given, step, console, table)
        else:
            manifest = _packing.of_store(step, console, table, engine=engine, variant=variant)
        rows = [
            ("bundle", str(out)),
            ("name", manifest.name),
            ("engine", f"{manifest.engine.package}, {'exactly' if manifest.engine.exact else 'at least'} "
             f"{manifest.engine.minimum}"),
            ("files", f"{len(manifest.files)}, {size(sum(file.size for file in manifest.files))}"),
            ("classes", f"{len(manifest.classes)} names" if manifest.classes else "without names"),
            ("accuracy", manifest.check.accuracy.text),
        ]  # fmt: skip
        console.say(f"next: deploykit verify {shell_word(out)}")
        console.result(manifest, pairs(rows))


COMMAND = Command(call=pack, order=72, example="deploykit pack best.pth --variant int8 -o best-int8/")
