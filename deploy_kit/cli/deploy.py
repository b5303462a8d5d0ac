"""``deploykit deploy``: the whole job on one checkpoint, from its file to accepted engines and a recommendation."""

from pathlib import Path
from typing import Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._checkpoint_options import CheckpointOptions, ImageOptions
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import AllowInvalid, Fresh, OutputOptions, Pack, SaveRecipe, StepOptions

DELIVERIES = Path("deliver")


def deploy(
    model: Annotated[Path, typer.Argument(help="Checkpoint or ONNX file.")],
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
    slim: Annotated[
        float | None,
        typer.Option(help="Slim to this share of the multiply-accumulates first, e.g. 0.6: another network."),
    ] = None,
    latency_budget: Annotated[
        str | None, typer.Option(help="Upper limit for the 99th percentile of the latency, e.g. 8ms.")
    ] = None,
    max_size: Annotated[str | None, typer.Option(help="Largest file to recommend, e.g. 10MB.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the files; by default deliver/NAME.")
    ] = None,
    pack: Pack = None,
    save_recipe: SaveRecipe = None,
    rest: Annotated[StepOptions, Only("device", "store", "skip_bad", "orientation", "crops")],
    image: ImageOptions,
    facts: CheckpointOptions,
    fresh: Fresh = False,
    allow_invalid: AllowInvalid = False,
    output: OutputOptions,
) -> None:
    """Take a checkpoint to verified, measured engines, and recommend one.

    Builds fp32 and, with --calibration, int8 on every engine, checks them on --images, measures them in turns, writes
    a report and copies what is accepted to a folder.
    """
    import dataclasses

    from deploy_kit.api import line
    from deploy_kit.cli import _deployment, _quantities, _steps
    from deploy_kit.recipe import overrides
    from deploy_kit.stages import export as export_stage

    given = dataclasses.replace(rest, model=model, images=step.images, calibration=step.calibration)
    source = image.source_table() | facts.source_table()
    points, budget = (
        _quantities.points("--max-drop", max_drop),
        _quantities.milliseconds("--latency-budget", latency_budget),
    )
    megabytes = _quantities.megabytes("--max-size", max_size)
    export_stage.verify_applicable(model, source)
    base = overrides.with_export(overrides.for_checkpoint(str(model)), source, {})
    base = _steps.with_inputs(base, given)
    recipe = line.deployment_recipe(
        base,
        engines=_quantities.names(engines),
        precisions=_quantities.names(precisions),
        device=rest.device,
        max_drop=points,
        latency_budget_ms=budget,
        max_size_mb=megabytes,
    )
    if slim is not None:
        recipe = overrides.with_slim_within(recipe, slim, _required(points))
    with output.console() as console:
        if given.images is None:
            console.say("no images to check on are given: limits judge seeded noise, and no accuracy is measured")
        elif points is None:
            console.say("no limit on the drop of accuracy is set: --max-drop 0.5pt sets one")
        folder = out or DELIVERIES / recipe.name
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
