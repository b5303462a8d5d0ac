"""``deploykit quantize``: a graph that carries its precision."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deploy_kit.cli import Command, _options

if TYPE_CHECKING:
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
    from deploy_kit.api import mixing
    from deploy_kit.base.errors import RequestError
    from deploy_kit.cli import _mix, _quantities, _steps
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.machine import environment
    from deploy_kit.quantization.variant_choice import VariantRequest, choose_variant, keep_float
    from deploy_kit.stages import quantize as stage
    from deploy_kit.stages.report import size

    said = (("int8", int8), ("fp16", fp16), ("bf16", bf16), ("fp32", fp32))
    request = VariantRequest(
        precisions=tuple(name for name, on in said if on),
        target=target,
        layout=layout,
        form=form,
        method=method,
        rounding=rounding,
        scheme=scheme,
    )
    wanted = mixing.MixRequest(
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
        variant, remarks = choose_variant(
            request, run.recipe, environment.describe_machine().isa, environment.library_version
        )
        for remark in remarks:
            console.say(remark)
        variant = keep_float(variant, keep or ())
        simplified = _steps.simplified(run, console).onnx
        if mixes:
            found = mixing.mix_in_run(run, simplified, variant, wanted, console.say)
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
