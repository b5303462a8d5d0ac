"""``deploykit quantize``: a graph that carries its precision."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deploy_kit.cli import Command, _options

if TYPE_CHECKING:
    from deploy_kit.recipe import Recipe, Variant
    from deploy_kit.records.artifacts import Artifact
    from deploy_kit.records.results import QuantizedBlock

_TEXT = Optional[str]  # noqa: UP045  # typer reads it at run time, also on Python 3.10
_TEXTS = Optional[list[str]]  # noqa: UP045


def quantize(
    model: _options.ModelPath = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit integers, Q/DQ in the graph.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="IEEE half precision.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="float32 in the form the target likes.")] = False,
    target: Annotated[str, typer.Option(help="The engine it is for: decides layout and form.")] = "onnxruntime",
    layout: Annotated[_TEXT, typer.Option(help="INT8 layout: portable, tensorrt, ort or nncf.")] = None,
    form: Annotated[_TEXT, typer.Option(help="What BN + ReLU become (portable): max or depthwise.")] = None,
    method: Annotated[
        _TEXT, typer.Option(help="How INT8 ranges are chosen: minmax, percentile, entropy or mse.")
    ] = None,
    rounding: Annotated[_TEXT, typer.Option(help="How weights are rounded (INT8): nearest or descent.")] = None,
    scheme: Annotated[_TEXT, typer.Option(help="A scheme of the catalogue, by name.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what INT8 made of each dense block.")] = False,
    keep: Annotated[_TEXTS, typer.Option(help="A layer group that stays in float, by coordinate.")] = None,
    max_drop: Annotated[_TEXT, typer.Option(help="Find the fastest mix that loses at most this: 0.3pt.")] = None,
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="Say what each layer group costs.")] = False,
    tune: Annotated[_TEXT, typer.Option(help="Images that the budget is held on; else the calibration's.")] = None,
    time_limit: Annotated[_TEXT, typer.Option(help="Begin no trial after it: 10min.")] = None,
    calibration: _options.CalibrationSet = None,
    skip_bad: _options.SkipBad = False,
    recipe: _options.RecipeName = None,
    store: _options.StorePath = _options.STORE,
    out: _options.OutPath = None,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Give the graph a precision: --int8, --fp16, --bf16 or --fp32."""
    from deploy_kit.base.errors import RequestError
    from deploy_kit.cli import _mix, _quantities, _steps
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.machine import environment
    from deploy_kit.stages import quantize as stage
    from deploy_kit.stages.report import size

    said = (("int8", int8), ("fp16", fp16), ("bf16", bf16), ("fp32", fp32))
    wish = Wish(
        precisions=tuple(name for name, on in said if on),
        target=target,
        layout=layout,
        form=form,
        method=method,
        rounding=rounding,
        scheme=scheme,
    )
    wanted = _mix.MixRequest(
        max_drop_pp=_quantities.points("--max-drop", max_drop),
        time_limit_s=_quantities.seconds("--time-limit", time_limit),
        sensitivity=sensitivity,
        target=target,
        tune=tune,
    )
    mixes = wanted.max_drop_pp is not None or sensitivity
    if (tune or time_limit) and not mixes:
        raise RequestError(
            "--tune and --time-limit belong to --max-drop and --sensitivity",
            hint="deploykit quantize --int8 --max-drop 0.3pt",
        )
    asked = _steps.Asked(store=store, recipe=recipe, model=model, calibration=calibration, out=out, skip_bad=skip_bad)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        variant, remarks = choose(wish, run.recipe, environment.describe_machine().isa, environment.library_version)
        for remark in remarks:
            console.say(remark)
        variant = _mix.varied(variant, keep or ())
        simplified = _steps.simplified(run, console).onnx
        if mixes:
            found = _mix.made(run, simplified, variant, wanted, console)
            if found.artifact is not None:
                _steps.copy_out(run, found.artifact, out, console)
            text = [pairs(_mix.pairs_of(found.mix)), _mix.sensitivity(found.mix, only_kept=not sensitivity)]
            if explain and found.artifact is not None:
                text.append(_explained(stage.explained(run.store.path(found.artifact))))
            console.result(found, "\n\n".join(filter(None, text)))
            if not found.mix.found:
                raise typer.Exit(1)
            return
        made = run.timed(
            "quantize",
            variant.name,
            lambda: stage.run(simplified, variant, run.host, calibration=run.calibration_images),
        )
        _steps.copy_out(run, made, out, console)
        lines = [
            ("precision", made.precision),
            ("size", f"{size(simplified.size_bytes)} → {size(made.size_bytes)}"),
            *made.made_by.rows,
            ("onnx", str(run.store.root / made.path)),
        ]
        if not explain:
            console.result(made, pairs(lines))
            return
        blocks = stage.explained(run.store.path(made))
        console.result(Explained(artifact=made, blocks=blocks), f"{pairs(lines)}\n\n{_explained(blocks)}")


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What ``--explain --json`` prints: the passport, and each dense block."""

    artifact: "Artifact"
    blocks: "tuple[QuantizedBlock, ...]"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What was said about the precision, and the engine it is for."""

    precisions: tuple[str, ...] = ()
    target: str = "onnxruntime"
    layout: str | None = None
    form: str | None = None
    method: str | None = None
    rounding: str | None = None
    scheme: str | None = None


def choose(
    wish: Wish, recipe: "Recipe", isa: tuple[str, ...], version_of: Callable[[str], str]
) -> "tuple[Variant, tuple[str, ...]]":
    """Find the variant that was asked for: the recipe's own if it has one, else the scheme with its defaults.

    Args:
        wish: What was said.
        recipe: In force.
        isa: Instruction sets of the processor it will run on.
        version_of: Gives the version of an installed distribution.

    Returns:
        The variant, and what was decided for the processor and the runtime at hand.

    Raises:
        RequestError: Nothing was asked for, or too much.
        UnknownNameError: No such target or scheme.
    """
    from deploy_kit.base.errors import RequestError
    from deploy_kit.quantization import schemes
    from deploy_kit.recipe import Variant, targets

    named = wish.scheme is not None
    if len(wish.precisions) + (named and not wish.precisions) != 1:
        raise RequestError("say one precision", hint="--int8, --fp16, --bf16 or --fp32 (or --scheme NAME)")
    precision = wish.precisions[0] if wish.precisions else ""
    if (wish.layout or wish.form or wish.method or wish.rounding) and (named or precision != "int8"):
        raise RequestError(
            "--layout, --form, --method and --rounding belong to --int8",
            hint="deploykit quantize --int8 --layout portable",
        )
    liked = targets.find_target(wish.target)
    layout = wish.layout or liked.int8
    name = wish.scheme or (f"int8_{layout}" if precision == "int8" else precision)
    entry = schemes.CATALOGUE.get(name)
    if precision and entry.precision != precision:
        raise RequestError(f"--{precision} and scheme '{name}', which gives {entry.precision}, contradict")
    said = {"form": wish.form, "method": wish.method, "rounding": wish.rounding}
    options: dict[str, Any] = {option: value for option, value in said.items() if value}
    remarks: tuple[str, ...] = ()
    if name == "int8_portable":
        fitted, remarks = _fitted(wish, isa, version_of("onnxruntime"))
        options |= fitted
    elif not named and precision != "int8":
        wanted = liked.passes(entry.precision)
        options = {"passes": list(wanted)} if wanted else {}
    own = [variant for variant in recipe.quantize.variants if variant.scheme == name]
    if len(own) == 1 and entry.precision == "int8":
        options = {**own[0].options, **options}
    for variant in own:
        if variant.options == options:
            return variant, remarks
    if len(own) > 1 and entry.precision == "int8":
        called = ", ".join(variant.name for variant in own)
        remarks = (*remarks, f"the options of the recipe's {called} are left alone: one of several is not picked here")
    return Variant(name=_name(wish, precision, layout, name), scheme=name, options=options), remarks


def _fitted(wish: Wish, isa: tuple[str, ...], runtime: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fit the portable layout to a processor and a runtime; say what was decided and why."""
    from deploy_kit.base import versions
    from deploy_kit.recipe import targets

    options: dict[str, Any] = {}
    remarks = []
    if targets.narrow_weights(isa):
        options["reduce_range"] = True
        remarks.append("this processor has no VNNI: weights in 7 bits, so that its 16-bit sums do not saturate")
    if wish.form is None and wish.target == "onnxruntime" and versions.lacks_integer_maximum(runtime):
        options["form"] = "depthwise"
        floor = versions.INTEGER_MAXIMUM
        remarks.append(f"onnxruntime {runtime} has no maximum of integers ({floor} has): the depthwise form instead")
    return options, tuple(remarks)


def _name(wish: Wish, precision: str, layout: str, scheme: str) -> str:
    """Name a variant that no recipe names: by its precision, and by what differs from the usual."""
    if wish.scheme is not None:
        return scheme
    if precision != "int8":
        return precision if precision != "fp32" else f"fp32-{wish.target}"
    unusual = [(layout, "portable"), (wish.form or "max", "max"), (wish.method or "minmax", "minmax")]
    unusual.append((wish.rounding or "", ""))
    return "-".join([precision, *(said for said, usual in unusual if said != usual)])


def _explained(found: "tuple[QuantizedBlock, ...]") -> str:
    """Lay out a line for each dense block."""
    from deploy_kit.cli._console import table

    if not found:
        return "nothing to explain: this scheme does not plan by blocks, or the graph concatenates nothing"
    headings = (
        "block", "channels", "scale", "zero", "half ranges: least, median, most", "BN + ReLU became",
        "never clip", "constant", "MMACs", "kB moved (estimate)",
    )  # fmt: skip
    return table(headings, [_row(block) for block in found])


def _row(block: "QuantizedBlock") -> tuple[str, ...]:
    became = ((block.maxima, "maximum"), (block.depthwise, "depthwise"), (block.floating, "float"))
    after = f"left: {block.not_equalized}" if block.not_equalized else "→ 1 each"
    return (
        block.name,
        str(block.channels),
        f"{block.scale:.3g}" if block.concats == "int8" else block.concats,
        str(block.zero_point) if block.concats == "int8" else "–",
        f"{', '.join(f'{value:.3g}' for value in block.spread)} {after}",
        ", ".join(f"{n} {what}" for n, what in became if n) or "none",
        f"{block.never:.1%}",
        f"{block.always:.1%}",
        f"{block.macs / 1e6:,.1f}",
        f"{block.moved_bytes / 1e3:,.0f}",
    )


COMMAND = Command(call=quantize, order=30)
