"""What `pack` packs: an engine of the store, or a file given by the user; either is judged first."""

import typer

from deploy_kit import pipeline
from deploy_kit.cli import _given_engine, _step_inputs, _steps
from deploy_kit.cli._console import Console
from deploy_kit.cli._given_engine import GivenEngine
from deploy_kit.cli._options import StepOptions
from deploy_kit.cli._verdict_codes import EXIT_CODES
from deploy_kit.delivery.manifest import Manifest
from deploy_kit.records.measurements import NotRun
from deploy_kit.records.results import ParityReport
from deploy_kit.stages import check, pack
from deploy_kit.stages.pack import PackTable


def of_file(given: GivenEngine, step: StepOptions, console: Console, table: PackTable) -> Manifest:
    """Pack a file.

    Raises:
        typer.Exit: Its check does not let it; what was found is printed.
        DeployKitError: As `_given_engine.judge`, and `stages.pack`.
    """
    with _given_engine.proved(given, step, console) as (proved, images, target):
        _expect_accepted(proved.parity, console, table)
        return pack.run(proved, table, target, images=images)


def of_store(
    step: StepOptions, console: Console, table: PackTable, *, engine: str | None, variant: str | None
) -> Manifest:
    """Pack the newest engine of the store, or the newest of this engine and variant.

    Raises:
        typer.Exit: Its check does not let it; what was found is printed.
        RequestError: There is none.
        DeviceError: It cannot run on the device.
    """
    with _steps.open_run(step, console) as run:
        source = pipeline.exported(run)
        chosen = _step_inputs.newest_engine(run, console, source, engine=engine, variant=variant)
        logits = pipeline.reference_logits(run, source)
        parity, _ = check.run(chosen, run.recipe.check, run.target, reference=logits, images=run.check_images)
        if isinstance(parity, NotRun):
            raise _steps.not_run_error(parity.label, parity.why)
        _expect_accepted(parity, console, table)
        return pipeline.packed(run, source, chosen, parity, table)


def _expect_accepted(parity: ParityReport, console: Console, table: PackTable) -> None:
    word = parity.verdict.word
    if word == "rejected" or (word == "undecided" and not table.allow_undecided):
        console.result(parity, f"{parity.label}: not packed: {parity.verdict.text}")
        raise typer.Exit(EXIT_CODES[word])
