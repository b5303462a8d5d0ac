"""``deploykit quantize``: a graph that carries its precision."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import OutputOptions, StepOptions

if TYPE_CHECKING:
    from deploy_kit.pipeline import Run
    from deploy_kit.records.artifacts import Artifact


def quantize(
    *,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize to 8-bit integers, with Q/DQ nodes in the graph.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Convert to float16 (IEEE half precision).")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Convert to bfloat16.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Keep float32, in the form that suits the target.")] = False,
    target: Annotated[
        str, typer.Option(help="Engine the graph is for; decides the default layout and form.")
    ] = "onnxruntime",
    layout: Annotated[str | None, typer.Option(help="INT8 layout: portable, tensorrt, ort or nncf.")] = None,
    form: Annotated[
        Literal["max", "depthwise"] | None,
        typer.Option(help="Form of BN + ReLU in the portable layout; by default the target's."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Calibration method for INT8 ranges: minmax, percentile, entropy or mse.")
    ] = None,
    rounding: Annotated[
        Literal["nearest", "descent"] | None, typer.Option(help="Rounding of INT8 weights; by default the scheme's.")
    ] = None,
    scheme: Annotated[str | None, typer.Option(help="Name of a quantization scheme.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how INT8 treats each dense block, and what stays in float and why.")
    ] = False,
    keep: Annotated[
        list[str] | None, typer.Option(help="Layer group to keep in float, e.g. denseblock1.denselayer2; repeatable.")
    ] = None,
    max_drop: Annotated[
        str | None, typer.Option(help="Find the fastest mix of INT8 and float within this top-1 drop, e.g. 0.3pt.")
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Measure how much accuracy INT8 costs in each layer group.")
    ] = False,
    tune: Annotated[
        str | None, typer.Option(help="Tuning images of the search; by default the calibration images.")
    ] = None,
    tune_masks: Annotated[
        str | None, typer.Option("--tune-masks", help="Folder of masks of the tuning images, for task segment.")
    ] = None,
    time_limit: Annotated[str | None, typer.Option(help="Time after which no trial starts, e.g. 10min.")] = None,
    step: Annotated[
        StepOptions,
        Only("model", "calibration", "task", "ignore_index", "skip_bad", "orientation", "recipe", "on", "store", "out"),
    ],
    output: OutputOptions,
) -> None:
    """Convert the graph to a precision: --int8, --fp16, --bf16 or --fp32."""
    from deploy_kit.api import mixing
    from deploy_kit.base.errors import RequestError
    from deploy_kit.cli import _mixed_precision, _output_files, _quantities, _step_inputs, _steps
    from deploy_kit.cli._block_table import ExplainedArtifact, block_table, float_table
    from deploy_kit.cli._console import pairs
    from deploy_kit.machine import environment
    from deploy_kit.quantization.variant_choice import VariantRequest, choose_variant, keep_float, verify_place
    from deploy_kit.stages import quantize as stage

    precisions = (("int8", int8), ("fp16", fp16), ("bf16", bf16), ("fp32", fp32))
    request = VariantRequest(
        precisions=tuple(name for name, chosen in precisions if chosen),
        target=target,
        layout=layout,
        form=form,
        method=method,
        rounding=rounding,
        scheme=scheme,
    )
    search = mixing.MixRequest(
        max_drop_pp=_quantities.points("--max-drop", max_drop),
        time_limit_s=_quantities.seconds("--time-limit", time_limit),
        sensitivity=sensitivity,
        target=target,
        tune=tune,
        masks=tune_masks,
    )
    searching = max_drop is not None or sensitivity
    if (tune or tune_masks or time_limit) and not searching:
        raise RequestError(
            "--tune, --tune-masks and --time-limit apply to --max-drop and --sensitivity only",
            hint="deploykit quantize --int8 --max-drop 0.3pt",
        )
    with output.console() as console, _steps.open_run(step, console) as run:
        isa = environment.describe_machine().isa
        variant, remarks = choose_variant(request, run.recipe, isa, environment.library_version)
        for remark in remarks:
            console.say(remark)
        variant = keep_float(variant, keep or ())
        verify_place(variant, step.on)
        simplified = _step_inputs.float_graph(run, console)
        record: Any
        if searching:
            record = mixing.mix_in_run(run, simplified, variant, search, console.say)
            artifact = record.artifact
            texts = [
                pairs(_mixed_precision.summary_rows(record.mix)),
                _mixed_precision.decision_table(record.mix, only_float=not sensitivity),
            ]
        else:
            record = artifact = run.timed(
                "quantize",
                variant.name,
                lambda: stage.run(simplified, variant, run.host, calibration=run.calibration_images),
            )
            texts = [pairs(_rows(run, simplified, artifact))]
        if artifact is not None:
            _output_files.copy_out(run, artifact, step.out, console)
            if explain:
                made = run.store.path(artifact)
                blocks, floats = stage.explained(made), stage.floating(made)
                record = record if searching else ExplainedArtifact(artifact=artifact, blocks=blocks, floats=floats)
                texts += [block_table(blocks), float_table(floats)]
        console.result(record, "\n\n".join(filter(None, texts)))
    if artifact is None:
        raise typer.Exit(1)


def _rows(run: "Run", simplified: "Artifact", quantized: "Artifact") -> list[tuple[str, str]]:
    from deploy_kit.records.engine_table import size

    return [
        ("precision", quantized.precision),
        ("size", f"{size(simplified.size_bytes)} → {size(quantized.size_bytes)}"),
        *quantized.made_by.rows,
        ("onnx", str(run.store.root / quantized.path)),
    ]


COMMAND = Command(
    call=quantize,
    order=30,
    example="deploykit quantize --int8 --calibration calib/ -o best-int8.onnx",
)
