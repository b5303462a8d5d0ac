"""``deploykit check``: an engine against the checkpoint's own answers."""

from typing import Annotated, Optional

import typer

from deploy_kit.cli import Command, _options


def check(
    images: _options.CheckSet = None,
    skip_bad: _options.SkipBad = False,
    crops: Annotated[
        Optional[int],  # noqa: UP045  # typer reads it at run time, also on Python 3.10
        typer.Option(help="Of each image, whose logits are averaged: 1 or 10."),
    ] = None,
    max_drop: Annotated[
        Optional[str],  # noqa: UP045  # typer reads it at run time, also on Python 3.10
        typer.Option(help="Points of top-1 that may be lost, e.g. 0.3pt; the 95 % interval's upper end must keep it."),
    ] = None,
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Also try other ways to prepare the images on the float graph.")
    ] = False,
    layers: Annotated[
        Optional[tuple[str, str]],  # noqa: UP045  # typer reads it at run time, also on Python 3.10
        typer.Option(metavar="A B", help="Say where two differ: files, labels, names of graphs, or 'checkpoint'."),
    ] = None,
    recipe: _options.RecipeName = None,
    device: _options.DeviceName = "local",
    store: _options.StorePath = _options.STORE,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Check the newest engine against the checkpoint; exit code 1 if a limit is not kept."""
    import dataclasses

    from deploy_kit import pipeline
    from deploy_kit.analysis.diagnosis import expect_labels
    from deploy_kit.cli import _difference, _quantities, _steps
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.records.measurements import NotRun
    from deploy_kit.stages import check as stage
    from deploy_kit.stages.report import accuracy

    points = _quantities.points("--max-drop", max_drop)
    asked = _steps.Asked(store=store, recipe=recipe, device=device, images=images, skip_bad=skip_bad, crops=crops)
    if layers is not None:
        _difference.verify_alone({"--max-drop": max_drop, "--diagnose": diagnose or None, "--crops": crops})
        with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console:
            _difference.show(layers, asked, console)
        return
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        source = pipeline.exported(run)
        engine = _steps.newest_engine(run, console, source)
        for remark in stage.overlap(run.calibration_images, run.check_images, engine.preprocess):
            console.say(remark)
        reference = pipeline.reference_logits(run, source)
        if diagnose:
            expect_labels(reference)  # before the check, whose numbers would be lost
        part = run.recipe.check.with_max_drop(engine.precision, points)
        made, _ = stage.run(engine, part, run.target, reference=reference, images=run.check_images)
        if isinstance(made, NotRun):
            raise _steps.not_run(made.label, made.why)
        made = dataclasses.replace(made, diagnosis=pipeline.diagnosed(run, source, reference, always=diagnose))
        left_out = [("left out", reference.made_by.left_out)] if reference.made_by.left_out else []
        console.result(made, pairs([*accuracy.lines(made), *left_out]))
    if not made.passed:
        raise typer.Exit(1)


COMMAND = Command(call=check, order=50)
