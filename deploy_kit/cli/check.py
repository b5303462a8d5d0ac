"""``deploykit check``: an engine against the checkpoint's own answers."""

from typing import Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import OutputOptions, StepOptions


def check(
    *,
    max_drop: Annotated[
        str | None,
        typer.Option(
            help="Largest top-1 drop to accept, in points, e.g. 0.3pt; the upper end of its 95 % interval is judged."
        ),
    ] = None,
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
    step: Annotated[StepOptions, Only("images", "skip_bad", "orientation", "crops", "recipe", "device", "store")],
    output: OutputOptions,
) -> None:
    """Check the newest engine against the checkpoint: accepted (exit code 0), rejected (1) or undecided (6)."""
    import dataclasses

    from deploy_kit import pipeline
    from deploy_kit.analysis.diagnosis import expect_labels
    from deploy_kit.cli import _layer_difference, _quantities, _step_inputs, _steps
    from deploy_kit.cli._console import pairs
    from deploy_kit.cli._verdict_codes import EXIT_CODES
    from deploy_kit.records.measurements import NotRun
    from deploy_kit.stages import check as stage
    from deploy_kit.stages.report import accuracy

    points = _quantities.points("--max-drop", max_drop)
    if layers is not None:
        _layer_difference.verify_alone({"--max-drop": max_drop, "--diagnose": diagnose or None, "--crops": step.crops})
        with output.console() as console:
            _layer_difference.show(layers, step, console)
        return
    with output.console() as console, _steps.open_run(step, console) as run:
        source = pipeline.exported(run)
        engine = _step_inputs.newest_engine(run, console, source)
        for remark in stage.overlap(run.calibration_images, run.check_images, engine.preprocess):
            console.say(remark)
        reference = pipeline.reference_logits(run, source)
        if diagnose:
            expect_labels(reference)  # before the check, whose numbers would be lost
        limits = run.recipe.check.with_max_drop(engine.precision, points)
        checked, _ = stage.run(engine, limits, run.target, reference=reference, images=run.check_images)
        if isinstance(checked, NotRun):
            raise _steps.not_run_error(checked.label, checked.why)
        diagnosis = pipeline.diagnosed(run, source, reference, always=diagnose)
        checked = dataclasses.replace(checked, diagnosis=diagnosis)
        left_out = [("left out", reference.made_by.left_out)] if reference.made_by.left_out else []
        console.result(checked, pairs([*accuracy.lines(checked), *left_out]))
    if code := EXIT_CODES[checked.verdict.word]:
        raise typer.Exit(code)


COMMAND = Command(call=check, order=50)
