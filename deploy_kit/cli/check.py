"""``deploykit check``: an engine against the checkpoint's own answers."""

from pathlib import Path
from typing import Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._checkpoint_options import CheckpointOptions, ImageOptions
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import OutputOptions, StepOptions


def check(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Engine or ONNX file, delivered or foreign, or a bundle; by default the store's newest engine."
        ),
    ] = None,
    *,
    against: Annotated[
        str | None,
        typer.Option(
            help="What FILE is compared with: a checkpoint or ONNX file, or 'labels' for the accuracy alone; by "
            "default the checkpoint that its passport names."
        ),
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="npz file with 'images' and the expected 'logits', in place of --images.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Check every engine of the store.")] = False,
    engine: Annotated[
        str | None, typer.Option(help="Comma-separated engines of the store to check; with FILE its engine.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Comma-separated variants of the store to check.")] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            help="Largest drop of the task's score (top-1, mIoU, …) to accept, in points, e.g. 0.3pt; the upper end of "
            "its 95 % interval is judged."
        ),
    ] = None,
    min_top1: Annotated[str | None, typer.Option(help="Least top-1 accuracy to accept, e.g. 92%.")] = None,
    diagnose: Annotated[
        bool,
        typer.Option(
            "--diagnose", help="Also run the float graph with other ways to preprocess images, to explain a low score."
        ),
    ] = False,
    layers: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Find the layers where two artifacts differ: files, labels, names of graphs, or 'checkpoint'.",
        ),
    ] = None,
    step: Annotated[
        StepOptions,
        Only(
            "images",
            "task",
            "masks",
            "ignore_index",
            "skip_bad",
            "orientation",
            "crops",
            "every_image",
            "recipe",
            "device",
            "on",
            "store",
        ),
    ],
    image: ImageOptions,
    facts: CheckpointOptions,
    output: OutputOptions,
) -> None:
    """Check an engine against the checkpoint: accepted (exit code 0), rejected (1) or undecided (6)."""
    from deploy_kit.base.errors import RequestError
    from deploy_kit.base.plain_text import shell_word
    from deploy_kit.cli import _checked_engines, _given_engine, _layer_difference, _quantities
    from deploy_kit.cli._verdict_codes import EXIT_CODES

    points, top1 = _quantities.points("--max-drop", max_drop), _quantities.share("--min-top1", min_top1)
    source = image.source_table() | facts.source_table()
    _checked_engines.verify_given(
        {"--against": against, "--golden": golden, "--input and facts of a checkpoint": source}, file
    )
    if layers is not None:
        flags: dict[str, object] = {
            "FILE": file,
            "--all": everything,
            "--engine": engine,
            "--variant": variant,
            "--min-top1": min_top1,
        }
        flags |= {
            "--max-drop": max_drop,
            "--diagnose": diagnose,
            "--crops": step.crops,
            "--every-image": step.every_image,
            "--on": step.on,
        }
        _layer_difference.verify_alone({flag: value or None for flag, value in flags.items()})
        with output.console() as console:
            _layer_difference.show(layers, step, console)
        return
    with output.console() as console:
        if file is None:
            code = _checked_engines.check_engines(
                step, console, everything=everything, engines=engine, variants=variant, max_drop=points, min_top1=top1,
                diagnose=diagnose,
            )  # fmt: skip
        elif everything or variant or diagnose:
            raise RequestError(
                "--all, --variant and --diagnose are about engines of the store, and a file was given",
                hint=f"leave them out, or the file: deploykit check {shell_word(file)}",
            )
        else:
            given = _given_engine.GivenEngine(
                file=file, against=against, golden=golden, engine=engine, source=source, max_drop=points, min_top1=top1
            )
            checked = _given_engine.judge(given, step, console)
            console.result(checked, _given_engine.drawn(checked, step.device))
            code = EXIT_CODES[checked.verdict.word]
    if code:
        raise typer.Exit(code)


COMMAND = Command(
    call=check,
    order=50,
    example="deploykit check deliver/best-int8.onnx --against best.pth --images val/ --max-drop 0.3pt",
)
