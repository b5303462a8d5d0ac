"""``deploykit export``: a checkpoint to ONNX."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._checkpoint_options import CheckpointOptions, ImageOptions
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import Dynamic, OutputOptions, SaveRecipe, StepOptions

if TYPE_CHECKING:
    from deploy_kit.cli._console import Console
    from deploy_kit.recipe import Recipe
    from deploy_kit.records.artifacts import Exported


def export(
    model: Annotated[Path | None, typer.Argument(help="Checkpoint or ONNX file; by default the bundled demo.")] = None,
    *,
    image: ImageOptions,
    exporter: Annotated[
        Literal["dynamo", "torchscript"] | None, typer.Option(help="ONNX exporter of torch; by default dynamo.")
    ] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX opset version.")] = None,
    batch: Annotated[int | None, typer.Option(help="Batch size of a static graph.")] = None,
    dynamic: Dynamic = False,
    output_name: Annotated[
        str | None, typer.Option("--output", help="Name of the output of an ONNX file to keep, if it has several.")
    ] = None,
    input_pixels: Annotated[
        bool, typer.Option("--input-pixels", help="Let the graph take uint8 frames (N, H, W, C) and normalize them.")
    ] = False,
    facts: CheckpointOptions,
    step: Annotated[StepOptions, Only("images", "calibration", "skip_bad", "orientation", "recipe", "store", "out")],
    save_recipe: SaveRecipe = None,
    output: OutputOptions,
) -> None:
    """Export a checkpoint to ONNX, and verify the graph against the checkpoint before it is kept."""
    import dataclasses

    from deploy_kit import recipe as recipes
    from deploy_kit.base.whole_files import write_whole
    from deploy_kit.cli import _output_files, _step_inputs, _steps
    from deploy_kit.cli._console import pairs
    from deploy_kit.recipe import overrides
    from deploy_kit.stages import export as stage

    step = dataclasses.replace(step, model=model)
    with output.console() as console:
        base = _base_recipe(step, console)
        source = image.source_table()
        stated = {"exporter": exporter, "opset": opset, "batch": batch}
        stated |= {"dynamic": dynamic or None, "input_pixels": input_pixels or None}
        table = {key: value for key, value in stated.items() if value is not None}
        source |= facts.source_table() | ({} if output_name is None else {"output": output_name})
        if model is not None:
            stage.verify_applicable(model, [*table, *source])
        chosen = overrides.with_export(base, source, table)
        chosen = _steps.with_inputs(chosen, step)
        if save_recipe is not None:
            _output_files.verify_recipe_file(save_recipe, chosen)
        with _steps.open_run(step, console, chosen) as run:
            exported = _step_inputs.exported(run, console)
            _output_files.copy_out(run, exported.onnx, step.out, console)
            if save_recipe is not None:
                write_whole(save_recipe, recipes.dump_recipe(chosen))
            lines = [*_rows(exported), ("onnx", str(run.store.root / exported.onnx.path))]
            console.result(exported, pairs(lines))


def _base_recipe(step: StepOptions, console: "Console") -> "Recipe":
    """Return the recipe named, the default one for a model given, or the demo's."""
    from deploy_kit import recipe as recipes
    from deploy_kit.recipe import overrides

    if step.recipe is not None:
        return recipes.load_recipe(step.recipe)
    if step.model is not None:
        return overrides.for_checkpoint(str(step.model))
    console.say("no checkpoint given: using the bundled demo (DenseNet-BC-40 on Fashion-MNIST)")
    return recipes.load_recipe(overrides.DEMO)


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


COMMAND = Command(
    call=export,
    order=10,
    example="deploykit export best.pth --input 224x224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --images val/",
)
