"""``deploykit export``: a checkpoint to ONNX."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._checkpoint_options import CheckpointOptions, InputSize
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import OutputOptions, SaveRecipe, StepOptions

if TYPE_CHECKING:
    from deploy_kit.cli._console import Console
    from deploy_kit.recipe import Recipe
    from deploy_kit.records.artifacts import Exported


def export(
    model: Annotated[Path | None, typer.Argument(help="Checkpoint or ONNX file; by default the bundled demo.")] = None,
    *,
    size: InputSize = None,
    mean: Annotated[str | None, typer.Option(help="Mean per channel in 0..1, e.g. 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel, e.g. 0.229,0.224,0.225.")] = None,
    color: Annotated[
        str | None, typer.Option(help="Color order: gray, rgb or bgr; by default gray for one mean, rgb for three.")
    ] = None,
    resize: Annotated[
        int | None, typer.Option(help="Length in px to scale the shorter side to, before a center crop.")
    ] = None,
    interpolation: Annotated[
        str | None, typer.Option(help="Interpolation of --resize: bilinear (default) or bicubic.")
    ] = None,
    exporter: Annotated[str | None, typer.Option(help="ONNX exporter of torch: dynamo or torchscript.")] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX opset version.")] = None,
    batch: Annotated[int | None, typer.Option(help="Batch size of a static graph.")] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Export a graph with a dynamic batch size.")] = False,
    output_name: Annotated[
        str | None, typer.Option("--output", help="Name of the output of an ONNX file to keep, if it has several.")
    ] = None,
    facts: CheckpointOptions,
    step: Annotated[StepOptions, Only("images", "calibration", "skip_bad", "orientation", "recipe", "store", "out")],
    save_recipe: SaveRecipe = None,
    output: OutputOptions,
) -> None:
    """Export a checkpoint to ONNX, and verify the graph against the checkpoint before it is kept."""
    import dataclasses

    from deploy_kit import recipe as recipes
    from deploy_kit.cli import _output_files, _step_inputs, _steps
    from deploy_kit.cli._console import pairs
    from deploy_kit.recipe import overrides
    from deploy_kit.stages import export as stage
    from deploy_kit.store import write_whole

    step = dataclasses.replace(step, model=model)
    with output.console() as console:
        base = _base_recipe(step, console)
        source = input_table(size, mean, std, color=color, resize=resize, interpolation=interpolation)
        stated = {"exporter": exporter, "opset": opset, "batch": batch, "dynamic": dynamic or None}
        table = {key: value for key, value in stated.items() if value is not None}
        source |= facts.source_table() | ({} if output_name is None else {"output": output_name})
        if model is not None:
            stage.verify_applicable(model, [*table, *source])
        chosen = overrides.with_export(base, source, table)
        chosen = _steps.with_inputs(chosen, step)
        if save_recipe is not None:
            _output_files.verify_recipe_file(save_recipe)
        with _steps.open_run(step, console, chosen) as run:
            exported = _step_inputs.exported(run, console)
            _output_files.copy_out(run, exported.onnx, step.out, console)
            if save_recipe is not None:
                write_whole(save_recipe, recipes.dump_recipe(chosen))
            lines = [*_rows(exported), ("onnx", str(run.store.root / exported.onnx.path))]
            console.result(exported, pairs(lines))


def input_table(
    size: str | None,
    mean: str | None,
    std: str | None,
    *,
    color: str | None,
    resize: int | None,
    interpolation: str | None,
) -> dict[str, Any]:
    """Turn the options of the input into a recipe's ``preprocess`` table, or its ``input`` if there is a size alone.

    Raises:
        RequestError: A part is missing or not a number.
    """
    from deploy_kit.base.errors import RequestError
    from deploy_kit.cli import _quantities

    if mean is None and std is None and color is None and resize is None and interpolation is None:
        if size is None:
            return {}
        return {"input": _quantities.whole_numbers(size, "x", "--input 224x224"), "preprocess": None}
    if size is None or mean is None or std is None:
        raise RequestError(
            "--mean, --std and --input must be given together", hint="e.g. --input 28x28 --mean 0.286 --std 0.353"
        )
    try:
        height, width = (int(side) for side in size.lower().split("x"))
        means, stds = ([float(part) for part in text.split(",")] for text in (mean, std))
    except ValueError as error:
        raise RequestError(
            f"--input {size} --mean {mean} --std {std}: expected numbers",
            hint="e.g. --input 224x224 --mean 0.5 --std 0.5",
        ) from error
    chosen = color or ("gray" if len(means) == 1 else "rgb")
    table: dict[str, Any] = {"height": height, "width": width, "color": chosen, "mean": means, "std": stds}
    stated = {"resize": resize, "interpolation": interpolation}
    return {"preprocess": table | {key: value for key, value in stated.items() if value is not None}}


def _base_recipe(step: StepOptions, console: "Console") -> "Recipe":
    """Return the recipe named, the default one for a model given, or the demo's."""
    from deploy_kit import recipe as recipes
    from deploy_kit.cli import _steps
    from deploy_kit.recipe import overrides

    if step.recipe is not None:
        return recipes.load_recipe(step.recipe)
    if step.model is not None:
        return overrides.for_checkpoint(str(step.model))
    console.say("no checkpoint given: using the bundled demo (DenseNet-BC-40 on Fashion-MNIST)")
    return recipes.load_recipe(_steps.DEMO)


def _rows(exported: "Exported") -> list[tuple[str, str]]:
    facts, onnx = exported.checkpoint, exported.onnx
    return [
        ("checkpoint", f"{facts.name} ({facts.container}, {facts.parameters:,} parameters)"),
        ("architecture", facts.title),
        *((f"{fact} from", source) for fact, source in (facts.spec.sources if facts.spec else ())),
        *(("remark", remark) for remark in facts.remarks),
        ("input", f"{onnx.inputs[0].name} {list(onnx.inputs[0].shape)}"),
        *(("output", f"{output.name} {list(output.shape)}") for output in onnx.outputs),
        ("difference", exported.agreement),
    ]


COMMAND = Command(call=export, order=10)
