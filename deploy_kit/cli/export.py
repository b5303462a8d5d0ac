"""``deploykit export``: a checkpoint to ONNX."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from deploy_kit.cli import Command, _facts, _options

_TEXT = Optional[str]  # noqa: UP045  # typer reads it at run time, also on Python 3.10


def export(
    model: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="A checkpoint or an ONNX file; by default the bundled demo."),
    ] = None,
    size: _facts.InputSize = None,
    mean: Annotated[_TEXT, typer.Option(help="Per channel, e.g. 0.485,0.456,0.406 (of 0..1).")] = None,
    std: Annotated[_TEXT, typer.Option(help="Per channel, e.g. 0.229,0.224,0.225.")] = None,
    color: Annotated[_TEXT, typer.Option(help="gray, rgb or bgr; by default as many channels as --mean has.")] = None,
    resize: Annotated[Optional[int], typer.Option(help="Scale the shorter side first, in px.")] = None,  # noqa: UP045
    interpolation: Annotated[_TEXT, typer.Option(help="Filter of --resize: bilinear (default) or bicubic.")] = None,
    exporter: Annotated[_TEXT, typer.Option(help="dynamo or torchscript.")] = None,
    opset: Annotated[Optional[int], typer.Option(help="ONNX operator set.")] = None,  # noqa: UP045
    batch: Annotated[Optional[int], typer.Option(help="Images per run of a static graph.")] = None,  # noqa: UP045
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Leave the batch open.")] = False,
    state_key: _facts.StateKey = None,
    head: _facts.Head = None,
    ignore: _facts.Ignore = None,
    probe: _facts.Probe = None,
    strict: _facts.Strict = False,
    stem_stride: _facts.StemStride = None,
    stem_pool: _facts.StemPool = None,
    concat: _facts.Concat = None,
    activation: _facts.Activation = None,
    outer_activation: _facts.OuterActivation = None,
    hidden_activation: _facts.HiddenActivation = None,
    slope: _facts.Slope = None,
    transition_relu: _facts.TransitionRelu = None,
    transition_pool: _facts.TransitionPool = None,
    final_relu: _facts.FinalRelu = None,
    eps: _facts.Eps = None,
    head_pool: _facts.HeadPool = None,
    head_activation: _facts.HeadActivation = None,
    images: _options.CheckSet = None,
    calibration: _options.CalibrationSet = None,
    skip_bad: _options.SkipBad = False,
    recipe: _options.RecipeName = None,
    store: _options.StorePath = _options.STORE,
    out: _options.OutPath = None,
    save_recipe: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--save-recipe", help="Write the recipe in force to this file."),
    ] = None,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Export a checkpoint to ONNX, re-run and compared before it is kept."""
    given = dict(locals())
    from deploy_kit import recipe as recipes
    from deploy_kit.cli import _steps
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.recipe import overrides
    from deploy_kit.store import write_whole

    asked = _steps.Asked(
        store=store, recipe=recipe, model=model, images=images, calibration=calibration, out=out, skip_bad=skip_bad
    )
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console:
        if recipe is not None:
            base = recipes.load_recipe(recipe)
        elif model is not None:
            base = overrides.for_checkpoint(str(model))
        else:
            console.say("no checkpoint given: taking the bundled demo (DenseNet-BC-40 on Fashion-MNIST)")
            base = recipes.load_recipe(_steps.DEMO)
        data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
        if model is not None:
            data["source"]["checkpoint"] = str(model)
        said = {"exporter": exporter, "opset": opset, "batch": batch, "dynamic": dynamic or None}
        data["export"] |= {key: value for key, value in said.items() if value is not None}
        data["source"] |= _facts.source(given) | shape(
            size, mean, std, color=color, resize=resize, interpolation=interpolation
        )
        chosen = _steps.changed(recipes.parse_recipe(data), asked)
        if save_recipe is not None:
            _steps.verify_recipe_file(save_recipe)
        with _steps.started(asked, console, chosen) as run:
            made = _steps.exported(run, console)
            _steps.copy_out(run, made.onnx, out, console)
            if save_recipe is not None:
                write_whole(save_recipe, recipes.dump_recipe(chosen))
            facts = made.checkpoint
            lines = [
                ("checkpoint", f"{facts.name} ({facts.container}, {facts.parameters:,} parameters)"),
                ("architecture", facts.title),
                *((f"{fact} from", source) for fact, source in (facts.spec.sources if facts.spec else ())),
                *(("remark", remark) for remark in facts.remarks),
                ("input", f"{made.onnx.inputs[0].name} {list(made.onnx.inputs[0].shape)}"),
                *(("output", f"{output.name} {list(output.shape)}") for output in made.onnx.outputs),
                ("difference", made.agreement),
                ("onnx", str(run.store.root / made.onnx.path)),
            ]
            console.result(made, pairs(lines))


def shape(
    size: str | None,
    mean: str | None,
    std: str | None,
    *,
    color: str | None,
    resize: int | None,
    interpolation: str | None,
) -> dict[str, Any]:
    """Turn what was said about the input into a recipe's ``preprocess`` table, or its ``input`` if that is all.

    Raises:
        RequestError: A part is missing or not a number.
    """
    from deploy_kit.base.errors import RequestError

    if mean is None and std is None and color is None and resize is None and interpolation is None:
        return {} if size is None else {"input": _facts.numbers(size, "x", "--input 224x224"), "preprocess": None}
    if size is None or mean is None or std is None:
        raise RequestError(
            "--mean, --std and --input belong together", hint="e.g. --input 28x28 --mean 0.286 --std 0.353"
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
    more = {"resize": resize, "interpolation": interpolation}
    return {"preprocess": table | {key: value for key, value in more.items() if value is not None}}


COMMAND = Command(call=export, order=10)
