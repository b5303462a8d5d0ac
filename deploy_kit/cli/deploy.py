"""``deploykit deploy``: the whole job on one checkpoint, from its file to accepted engines and a recommendation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._checkpoint_options import CheckpointOptions, ImageOptions
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import AllowInvalid, Dynamic, Fresh, OutputOptions, Pack, SaveRecipe, StepOptions

if TYPE_CHECKING:
    from deploy_kit.cli._console import Console
    from deploy_kit.recipe import Recipe

DELIVERIES = Path("deliver")


def deploy(
    model: Annotated[Path, typer.Argument(help="Checkpoint or ONNX file; demo is the bundled one.")],
    *,
    step: Annotated[StepOptions, Only("images", "calibration")],
    engines: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated engines; by default onnxruntime,openvino, on a GPU tensorrt,onnxruntime.",
        ),
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(help="Comma-separated precisions; by default fp32, int8, and fp16 where the engine gains by it."),
    ] = None,
    max_drop: Annotated[
        str | None, typer.Option(help="Largest drop of accuracy to accept, in points, e.g. 0.5pt.")
    ] = None,
    min_top1: Annotated[
        str | None,
        typer.Option(help="Least top-1 accuracy to accept, e.g. 92%: what the checkpoint is known to reach."),
    ] = None,
    slim: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|auto",
            help="Slim to this share of the multiply-accumulates first, e.g. 0.6: another network; auto searches the "
            "fastest combination with INT8 within --max-drop.",
        ),
    ] = None,
    tune: Annotated[
        str | None, typer.Option(help="Images that choose for --slim auto; labels are used if they have any.")
    ] = None,
    dynamic: Dynamic = False,
    latency_budget: Annotated[
        str | None, typer.Option(help="Upper limit for the 99th percentile of the latency, e.g. 8ms.")
    ] = None,
    max_size: Annotated[str | None, typer.Option(help="Largest file to recommend, e.g. 10MB.")] = None,
    max_energy: Annotated[
        str | None,
        typer.Option(help="Largest energy above idle per image to recommend, e.g. 40mJ; measures energy."),
    ] = None,
    max_power: Annotated[
        str | None, typer.Option(help="Largest mean power while it runs to recommend, e.g. 10W; measures energy.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the files; by default deliver/NAME.")
    ] = None,
    pack: Pack = None,
    save_recipe: SaveRecipe = None,
    rest: Annotated[
        StepOptions,
        Only("task", "masks", "ignore_index", "device", "store", "skip_bad", "orientation", "crops", "every_image"),
    ],
    image: ImageOptions,
    facts: CheckpointOptions,
    fresh: Fresh = False,
    allow_invalid: AllowInvalid = False,
    output: OutputOptions,
) -> None:
    """Take a checkpoint to verified, measured engines, and recommend one.

    Builds fp32 and, with --calibration, int8 on every engine, checks them on --images, measures them in turns, writes
    a report and copies the engines whose accuracy is accepted to a folder.
    """
    import dataclasses

    from deploy_kit.api import line, one_budget
    from deploy_kit.cli import _deployment, _quantities, _steps
    from deploy_kit.images import SYNTHETIC
    from deploy_kit.recipe import overrides
    from deploy_kit.stages import export as export_stage

    given = dataclasses.replace(rest, model=model, images=step.images, calibration=step.calibration)
    source = image.source_table() | facts.source_table()
    points, budget = (
        _quantities.points("--max-drop", max_drop),
        _quantities.milliseconds("--latency-budget", latency_budget),
    )
    costs = {
        "max_size_mb": _quantities.megabytes("--max-size", max_size),
        "max_energy_mj": _quantities.millijoules("--max-energy", max_energy),
        "max_power_w": _quantities.watts("--max-power", max_power),
    }
    table = {"dynamic": True} if dynamic else {}
    export_stage.verify_applicable(model, [*table, *source])
    base = overrides.with_export(overrides.for_checkpoint(str(model)), source, table)
    base = _steps.with_inputs(base, given)
    export_stage.require_checkpoint(base.source)
    recipe = line.deployment_recipe(
        base,
        engines=_quantities.names(engines),
        precisions=_quantities.names(precisions),
        device=rest.device,
        max_drop=points,
        min_top1=_quantities.share("--min-top1", min_top1),
        latency_budget_ms=budget,
        **costs,
    )
    share = _share(slim, tune)
    if slim is not None:
        points = _required(points)
        if share is not None:
            recipe = overrides.with_slim_within(recipe, share, points, one_budget.pricing(recipe))
    with output.console() as console:
        if recipe.check.images == SYNTHETIC:
            console.say("no images to check on are given: limits judge seeded noise, and no accuracy is measured")
        elif points is None:
            console.say("no limit on the drop of accuracy is set: --max-drop 0.5pt sets one")
        if recipe.quantize.calibration is None and precisions is None:
            console.say("no images to calibrate with are given: a float network gets no INT8 (--calibration FOLDER)")
        folder = out or DELIVERIES / recipe.name
        if tune is not None and points is not None:
            recipe = _searched(recipe, points, tune, rest, console, folder)
        code = _deployment.run(
            recipe,
            console,
            device=rest.device,
            store=rest.store,
            reports=folder,
            deliveries=folder,
            save_recipe=save_recipe,
            fresh=fresh,
            allow_invalid=allow_invalid,
            bundle=pack,
        )
    if code:
        raise typer.Exit(code)


def _share(slim: str | None, tune: str | None) -> float | None:
    """Parse --slim; None where it is not given, or where the share is to be searched, which takes --tune."""
    from deploy_kit.base.errors import RequestError

    if slim == "auto":
        if tune is None:
            raise RequestError(
                "--slim auto needs images that choose, other than those weights are fitted to",
                hint="give some thousand, with or without labels: --tune FOLDER (or an npz file)",
            )
        return None
    if tune is not None:
        raise RequestError("--tune applies to --slim auto only", hint="deploykit deploy CHECKPOINT --slim auto ...")
    try:
        return None if slim is None else float(slim)
    except ValueError as error:
        raise RequestError(
            f"--slim: expected a share of the multiply-accumulates or auto, found '{slim}'",
            hint="e.g. --slim 0.6, or --slim auto",
        ) from error


def _searched(
    recipe: "Recipe", points: float, tune: str, rest: StepOptions, console: "Console", folder: Path
) -> "Recipe":
    """Return the recipe of the fastest combination within the budget; without one, end with exit code 1."""
    from deploy_kit import pipeline
    from deploy_kit.api import one_budget
    from deploy_kit.cli import _slim_search
    from deploy_kit.cli._console import pairs
    from deploy_kit.devices import links
    from deploy_kit.stages import deliver
    from deploy_kit.store import Store

    with pipeline.open_run(recipe, Store(rest.store), links.find_device(rest.device), console.on_progress) as run:
        deliver.require_unmixed(recipe, pipeline.exported(run), folder)
        found, chosen = one_budget.find_fastest(run, points, tune, console.say)
    if chosen is None:
        console.result(found, pairs([*_slim_search.rows(found), ("answer", "nothing within the budget")]))
        raise typer.Exit(1)
    console.say(found.words)
    return chosen


def _required(points: float | None) -> float:
    from deploy_kit.base.errors import RequestError

    if points is None:
        raise RequestError(
            "--slim makes another network than the checkpoint's, and nothing says what it may lose",
            hint="add --max-drop 0.5pt, and --images with labels to measure it on",
        )
    return points


COMMAND = Command(
    call=deploy,
    order=0,
    example="deploykit deploy best.pth --images val/ --calibration calib/ --max-drop 0.5pt -o deliver/",
)
