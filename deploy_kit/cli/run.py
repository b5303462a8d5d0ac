"""``deploykit run``: a whole recipe, from checkpoint to report."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from deploy_kit.cli import Command, _options


def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a bundled recipe.")] = "demo",
    store: _options.StorePath = _options.STORE,
    out: Annotated[Path, typer.Option("--out", help="Folder of reports.")] = Path("reports"),
    device: _options.DeviceName = "local",
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure latency again.")] = False,
    allow_invalid: _options.AllowInvalid = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and end.")] = False,
    save_recipe: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--save-recipe", help="Write the recipe in force to this file."),
    ] = None,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Take a recipe from checkpoint to report: export, simplify, quantize, build, check, bench, report."""
    from deploy_kit import pipeline
    from deploy_kit import recipe as recipes
    from deploy_kit.analysis import doctor
    from deploy_kit.cli._console import Console, table
    from deploy_kit.devices import links
    from deploy_kit.stages import report
    from deploy_kit.store import Store, write_whole

    chosen = recipes.load_recipe(recipe)
    target = links.find_device(device)
    if save_recipe is not None:
        write_whole(save_recipe, recipes.dump_recipe(chosen))
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console:
        if dry_run:
            with links.connect_device(target) as connection:
                doctor.require(chosen, connection)
            console.result(chosen.model_dump(mode="json"), plan(chosen))
            return
        made = pipeline.deploy(
            chosen, target, Store(store, chosen.model_dump(mode="json")), console.on_progress, fresh=fresh
        )
        path = report.run(made, out / chosen.name)
        text = table(report.HEADINGS, [report.cells(row) for row in made.rows])
        remarks = "".join(f"\nnote: {remark}" for remark in made.remarks)
        console.result(made, f"{text}\n{remarks}\nreport: {path}")
    if any(row.failed for row in made.rows):
        raise typer.Exit(5)
    if made.invalid and not allow_invalid:
        raise typer.Exit(6)
    if not made.passed:
        raise typer.Exit(1)


def plan(recipe: object) -> str:
    """Write what a recipe would do, a line a stage."""
    from deploy_kit.graph import passes
    from deploy_kit.recipe import Recipe

    assert isinstance(recipe, Recipe)
    variants = ", ".join(f"{variant.name} ({variant.scheme})" for variant in recipe.quantize.variants) or "none"
    targets = ", ".join(f"{name} · {entry.engine}" for entry in recipe.build.engines for name in entry.variants)
    batch = "dynamic batch" if recipe.export.dynamic else f"batch {recipe.export.batch}"
    return "\n".join(
        (
            f"export    {recipe.source.checkpoint}: {recipe.export.exporter}, opset {recipe.export.opset}, {batch}",
            f"simplify  {', '.join(passes.resolve_names(recipe.simplify.passes))}",
            f"quantize  {variants}; calibrated with {recipe.quantize.calibration or 'nothing'}",
            f"build     {targets}",
            f"check     on {recipe.check.images}, limits for {', '.join(recipe.check.limits) or 'nothing'}",
            f"bench     {timing(recipe)}, span {recipe.bench.span}",
        )
    )


def timing(recipe: object) -> str:
    """Say how long each engine is measured."""
    from deploy_kit.measure import race
    from deploy_kit.recipe import Recipe

    assert isinstance(recipe, Recipe)
    planned = race.plan_race(recipe.bench)
    seconds = f" and {planned.seconds:g} s" if planned.seconds else ""
    scenario = "" if recipe.bench.scenario == "closed-loop" else f"scenario {recipe.bench.scenario}, "
    return f"{scenario}{planned.rounds} rounds of {planned.runs} runs{seconds}"


COMMAND = Command(call=run, order=0)
