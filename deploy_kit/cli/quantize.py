"""``deploykit quantize``: a graph that carries its precision."""

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deploy_kit.cli import Command, _options

if TYPE_CHECKING:
    from deploy_kit.recipe import Recipe, Variant

_DEFAULT_SCHEME = {"int8": "int8_ort", "fp16": "fp16", "bf16": "bf16"}


def quantize(
    model: _options.ModelPath = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit integers, Q/DQ in the graph.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="IEEE half precision.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16.")] = False,
    scheme: Annotated[Optional[str], typer.Option(help="A scheme of the catalogue, by name.")] = None,  # noqa: UP045
    symmetric: Annotated[bool, typer.Option("--symmetric", help="int8 as TensorRT takes it (int8_ort).")] = False,
    calibration: _options.CalibrationSet = None,
    recipe: _options.RecipeName = None,
    store: _options.StorePath = _options.STORE,
    out: _options.OutPath = None,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Give the graph a precision: --int8, --fp16 or --bf16."""
    from deploy_kit import quantize as stage
    from deploy_kit.cli import _steps
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.report import size

    precisions = [name for name, said in (("int8", int8), ("fp16", fp16), ("bf16", bf16)) if said]
    asked = _steps.Asked(store=store, recipe=recipe, model=model, calibration=calibration, out=out)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        variant = choose(precisions, scheme, run.recipe, symmetric=symmetric)
        lean = _steps.lean(run, console).onnx
        made = run.timed(
            "quantize",
            variant.name,
            lambda: stage.run(
                lean, variant, run.recipe.quantize.calibration, store=run.store, link=run.link, watch=run.watch
            ),
        )
        _steps.copy_out(run, made, out, console)
        lines = [
            ("precision", made.precision),
            ("size", f"{size(lean.size_bytes)} → {size(made.size_bytes)}"),
            *made.made_by,
            ("onnx", str(run.store.root / made.path)),
        ]
        console.result(made, pairs(lines))


def choose(precisions: list[str], scheme: str | None, recipe: "Recipe", *, symmetric: bool) -> "Variant":
    """Find the variant that was asked for: the recipe's own if it has one, else the scheme with its defaults.

    Raises:
        RequestError: Nothing was asked for, or too much.
    """
    from deploy_kit import schemes
    from deploy_kit.errors import RequestError
    from deploy_kit.recipe import Variant

    if len(precisions) + (scheme is not None and not precisions) != 1:
        raise RequestError("say one precision", hint="--int8, --fp16 or --bf16 (or --scheme NAME)")
    name = scheme or _DEFAULT_SCHEME[precisions[0]]
    entry = schemes.CATALOGUE.get(name)
    if precisions and entry.precision != precisions[0]:
        raise RequestError(f"--{precisions[0]} and scheme '{name}', which gives {entry.precision}, contradict")
    options: dict[str, Any] = {"symmetric": True} if symmetric else {}
    for variant in recipe.quantize.variants:
        if variant.scheme == name and variant.options == options:
            return variant
    suffix = "-symmetric" if symmetric else ""
    return Variant(
        name=f"{precisions[0] if precisions and scheme is None else name}{suffix}", scheme=name, options=options
    )


COMMAND = Command(call=quantize, order=30)
