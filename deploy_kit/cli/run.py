"""``deploykit run``: a whole recipe, from checkpoint to report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._options import (
    REPORTS,
    STORE,
    AllowInvalid,
    DeviceName,
    Fresh,
    On,
    OutputOptions,
    Pack,
    ReportFolder,
    SaveRecipe,
    StorePath,
)

if TYPE_CHECKING:
    from deploy_kit.recipe import Recipe


def run(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or name of a bundled recipe, e.g. demo.")],
    *,
    store: StorePath = STORE,
    out: ReportFolder = REPORTS,
    deliver: Annotated[Path | None, typer.Option(help="Folder to copy accepted engines to.")] = None,
    pack: Pack = None,
    device: DeviceName = "local",
    fresh: Fresh = False,
    allow_invalid: AllowInvalid = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and exit.")] = False,
    save_recipe: SaveRecipe = None,
    on: On = "",
    output: OutputOptions,
) -> None:
    """Take a recipe from checkpoint to report: export, simplify, quantize, build, check, bench, report."""
    from deploy_kit import recipe as recipes
    from deploy_kit.analysis import doctor
    from deploy_kit.cli import _deployment
    from deploy_kit.devices import links

    chosen = recipes.load_recipe(recipe)
    with output.console() as console:
        if dry_run:
            with links.connect_device(links.find_device(device)) as connection:
                doctor.require(chosen, connection)
            console.result(chosen.model_dump(mode="json"), plan(chosen))
            return
        code = _deployment.run(
            chosen,
            console,
            device=device,
            store=store,
            reports=out / chosen.name,
            deliveries=deliver,
            save_recipe=save_recipe,
            fresh=fresh,
            allow_invalid=allow_invalid,
            bundle=pack,
            on=on,
        )
    if code:
        raise typer.Exit(code)


def plan(recipe: "Recipe") -> str:
    """Describe what a recipe would do, a line for each stage."""
    from deploy_kit.graph import passes

    variants = ", ".join(f"{variant.name} ({variant.scheme})" for variant in recipe.quantize.variants) or "none"
    targets = ", ".join(f"{name} · {entry.engine}" for entry in recipe.build.engines for name in entry.variants)
    batch = "dynamic batch" if recipe.export.dynamic else f"batch {recipe.export.batch}"
    return "\n".join(
        (
            f"export    {recipe.source.checkpoint}: {recipe.export.exporter}, opset {recipe.export.opset}, {batch}",
            f"simplify  {', '.join(passes.resolve_names(recipe.simplify.passes))}",
            *(() if recipe.slim is None else (f"slim      to {recipe.slim.macs:g} of the multiply-accumulates",)),
            f"quantize  {variants}; calibrated with {recipe.quantize.calibration or 'nothing'}",
            f"build     {targets}",
            f"check     on {recipe.check.images}, limits for {', '.join(recipe.check.limits) or 'nothing'}",
            f"bench     {timing(recipe)}, span {recipe.bench.span}",
        )
    )


def timing(recipe: "Recipe") -> str:
    """Describe how long each engine is measured."""
    from deploy_kit.measure import race

    planned = race.plan_race(recipe.bench)
    seconds = f" and {planned.seconds:g} s" if planned.seconds else ""
    scenario = "" if recipe.bench.scenario == "closed-loop" else f"scenario {recipe.bench.scenario}, "
    return f"{scenario}{planned.rounds} rounds of {planned.runs} runs{seconds}"


COMMAND = Command(
    call=run,
    order=4,
    example="deploykit run my.yaml --deliver files/",
)
