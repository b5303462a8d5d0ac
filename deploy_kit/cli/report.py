"""``deploykit report``: what the store knows, as one table and two files."""

from pathlib import Path
from typing import Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import REPORTS, AllowInvalid, OutputOptions, ReportFolder, SaveRecipe, StepOptions


def report(
    record: Annotated[
        Path | None,
        typer.Argument(help="report.json to verify and draw again; by default what the store knows is reported."),
    ] = None,
    *,
    step: Annotated[StepOptions, Only("images", "recipe", "store")],
    out: ReportFolder = REPORTS,
    allow_invalid: AllowInvalid = False,
    save_recipe: SaveRecipe = None,
    output: OutputOptions,
) -> None:
    """Write report.json, report.md and report.html on everything made from the newest checkpoint.

    --save-recipe writes the steps that were taken as a recipe for `deploykit run`.
    """
    if record is not None:
        code = _drawn_again(record, step, out, save_recipe, output, allow_invalid=allow_invalid)
        if code:
            raise typer.Exit(code)
        return
    from deploy_kit import pipeline
    from deploy_kit import recipe as recipes
    from deploy_kit.base.whole_files import write_whole
    from deploy_kit.cli import _deployment, _output_files, _step_inputs, _steps
    from deploy_kit.cli._verdict_codes import report_code
    from deploy_kit.stages import report as stage

    with output.console() as console, _steps.open_run(step, console, lasting=step.images is None) as run:
        _step_inputs.require_engines(run)  # before the checkpoint is exported for nothing
        source = pipeline.exported(run)
        _step_inputs.require_engines(run, source)
        folder = out / run.recipe.name
        _output_files.verify_report_folder(folder, run.recipe.source.checkpoint)
        if save_recipe is not None:
            done = pipeline.recipe_done(run, source)
            _output_files.verify_recipe_file(save_recipe, done)
            write_whole(save_recipe, recipes.dump_recipe(done))
        collected = pipeline.collect(run, source)
        path = stage.run(collected, folder)
        again = f"measure again: {_deployment.bench_line(collected, step.store)}"
        console.result(collected, _deployment.text(collected, path, again=again, store=step.store))
    if code := report_code(collected, allow_invalid=allow_invalid):
        raise typer.Exit(code)


def _drawn_again(
    record: Path, step: StepOptions, out: Path, save_recipe: Path | None, output: OutputOptions, *, allow_invalid: bool
) -> int:
    """Draw a report from its record alone, once it and the files beside it are found to agree."""
    from deploy_kit.analysis.recommendation import verify_recommendation
    from deploy_kit.base.errors import RequestError
    from deploy_kit.base.plain_text import shell_word
    from deploy_kit.cli import _deployment, _output_files
    from deploy_kit.cli._verdict_codes import report_code
    from deploy_kit.stages import deliver
    from deploy_kit.stages import report as stage
    from deploy_kit.stages.report import plausible

    given = {"--images": step.images, "--recipe": step.recipe, "--save-recipe": save_recipe}
    for flag in (flag for flag, value in given.items() if value is not None):
        raise RequestError(
            f"{flag}: a report is drawn again from its record alone", hint=f"deploykit report {shell_word(record)}"
        )
    with output.console() as console:
        found = stage.load_report(record)
        verify_recommendation(found, str(record))
        n = plausible.verify_delivered(found, record.parent)
        passports = deliver.verify_passports(found, record.parent)
        with_files = f"with {n} delivered files and {passports} passports beside it"
        beside = with_files if n else "no delivered file lies beside it"
        console.say(f"{record}: its numbers agree with each other, and {beside}; a report is not signed")
        for name in stage.unlike_views(found, record.parent):
            console.say(f"note: {record.parent / name}: changed, or not drawn from this record")
        folder = out / found.recipe
        _output_files.verify_report_folder(folder, found.checkpoint.name)
        console.result(found, _deployment.text(found, stage.run(found, folder, again=True)))
    return report_code(found, allow_invalid=allow_invalid)


COMMAND = Command(
    call=report,
    order=70,
    example="deploykit report -o reports/",
)
