"""``check`` on engines of the store: the newest, some or all of the checkpoint in force, on its images or on others."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from deploy_kit import pipeline
from deploy_kit.analysis.diagnosis import expect_labels
from deploy_kit.base.errors import RequestError
from deploy_kit.cli import _bench_request, _step_inputs, _steps
from deploy_kit.cli._console import Console, pairs
from deploy_kit.cli._options import StepOptions
from deploy_kit.cli._verdict_codes import EXIT_CODES
from deploy_kit.pipeline import Run
from deploy_kit.records.artifacts import Artifact, Exported
from deploy_kit.records.measurements import NotRun
from deploy_kit.records.verdict import Word
from deploy_kit.stages import check as stage
from deploy_kit.stages.report import accuracy

_SEVEREST_FIRST: tuple[Word, ...] = ("rejected", "undecided", "accepted")


def verify_given(flags: Mapping[str, object], file: Path | None) -> None:
    """Refuse options that are about a given file where none is.

    Raises:
        RequestError: One was given.
    """
    given = [flag for flag, value in flags.items() if value]
    if file is None and given:
        raise RequestError(
            f"{given[0]}: is about a file, and none is given", hint="deploykit check FILE --against CHECKPOINT"
        )


def check_engines(
    step: StepOptions,
    console: Console,
    *,
    everything: bool,
    engines: str | None,
    variants: str | None,
    max_drop: float | None,
    min_top1: float | None,
    diagnose: bool,
) -> int:
    """Check engines of the store and print the results; images that are said for this check stay with it.

    Returns:
        The exit code: that of the severest verdict.

    Raises:
        RequestError: Nothing was built here from the checkpoint in force.
        DeviceError: An engine cannot run on the device.
    """
    with _steps.open_run(step, console, lasting=step.images is None) as run:
        source = pipeline.exported(run)
        chosen = _chosen(run, console, source, everything=everything, engines=engines, variants=variants)
        for remark in stage.overlap(run.calibration_images, run.check_images, chosen[0].preprocess):
            console.say(remark)
        logits = pipeline.reference_logits(run, source)
        if diagnose:
            expect_labels(logits)  # before the check, whose numbers would be lost
        table = run.recipe.check
        found = []
        for engine in chosen:
            limits = table.with_limits(engine.precision, max_drop=max_drop, min_top1=min_top1)
            checked, _ = stage.run(engine, limits, run.target, reference=logits, images=run.check_images)
            if isinstance(checked, NotRun):
                raise _steps.not_run_error(checked.label, checked.why)
            against = f"{source.checkpoint.name}, sha256 {source.checkpoint.sha256}"
            found.append(dataclasses.replace(checked, against=against))
        diagnosis = pipeline.diagnosed(run, source, logits, always=diagnose)
        found = [dataclasses.replace(checked, diagnosis=diagnosis) for checked in found]
        left_out = [("left out", logits.made_by.left_out)] if logits.made_by.left_out else []
        several = everything or engines or variants
        drawn = (_steps.with_device(accuracy.lines(checked), step.device) for checked in found)
        text = "\n\n".join(pairs([*rows, *left_out]) for rows in drawn)
        console.result(tuple(found) if several else found[0], text)
    words = {checked.verdict.word for checked in found}
    return EXIT_CODES[next(word for word in _SEVEREST_FIRST if word in words)]


def _chosen(
    run: Run, console: Console, source: Exported, *, everything: bool, engines: str | None, variants: str | None
) -> tuple[Artifact, ...]:
    if not (everything or engines or variants):
        return (_step_inputs.newest_engine(run, console, source),)
    built = _step_inputs.require_engines(run, source)
    chosen = _bench_request.matching_engines(
        built, run.recipe.bench.model_copy(update={"batch": ()}), engines=engines, variants=variants
    )
    _step_inputs.tell_inputs_apart(run, console, chosen)
    return chosen
