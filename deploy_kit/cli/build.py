"""``deploykit build``: an engine from a typed graph."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import OutputOptions, StepOptions

if TYPE_CHECKING:
    from deploy_kit.records.artifacts import Artifact, Proof


def build(
    *,
    engine: Annotated[
        str, typer.Option(help="Engine to build, e.g. onnxruntime, openvino or tensorrt.")
    ] = "onnxruntime",
    variant: Annotated[
        str | None,
        typer.Option(help="Graph to build: fp32, or the name of a quantized one; by default the newest."),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="Compute capability to build for, e.g. 8.9; repeatable (TensorRT-RTX)."),
    ] = None,
    min_shapes: Annotated[
        list[str] | None,
        typer.Option(
            help="Smallest input shape of a dynamic graph, e.g. input:1x3x224x224; repeatable, one per profile."
        ),
    ] = None,
    opt_shapes: Annotated[
        list[str] | None, typer.Option(help="Input shape to optimize for; repeatable, one per profile.")
    ] = None,
    max_shapes: Annotated[
        list[str] | None, typer.Option(help="Largest input shape; repeatable, one per profile.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--build-option", "-o", help="Any option of the engine as key=value, see docs/recipes.md; repeatable."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Number of threads per run (CPU engines).")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also copy the engine to this path.")] = None,
    step: Annotated[StepOptions, Only("model", "recipe", "device", "store")],
    output: OutputOptions,
) -> None:
    """Build an engine and prove its precision."""
    import dataclasses

    from deploy_kit import engines
    from deploy_kit.analysis import doctor
    from deploy_kit.cli import _engine_options, _output_files, _step_inputs, _steps
    from deploy_kit.cli._console import pairs
    from deploy_kit.recipe import BuildEntry
    from deploy_kit.stages import build as stage

    accepted = engines.CATALOGUE.get(engine).options  # a misspelt name before any work
    flags = {
        "compute_capabilities": compute_capability, "min_shapes": min_shapes, "opt_shapes": opt_shapes,
        "max_shapes": max_shapes, "threads": threads,
    }  # fmt: skip
    step = dataclasses.replace(step, out=out)  # its short form is taken here
    with output.console() as console, _steps.open_run(step, console) as run:
        doctor.require_engine(engine, run.target.connection)
        graph = _step_inputs.graph_to_build(run, console, variant)
        options: dict[str, Any] = next((dict(e.options) for e in run.recipe.build.engines if e.engine == engine), {})
        options |= _engine_options.parse(accepted, option or ())
        options |= {name: value for name, value in flags.items() if value is not None}
        entry = BuildEntry(engine=engine, variants=(graph.name,), options=options)
        built = run.timed("build", f"{graph.name} · {engine}", lambda: stage.run(graph, entry, run.target))
        _output_files.copy_out(run, built, step.out, console)
        settings = _engine_options.changed(accepted, json.loads(built.options))
        lines = [*_steps.with_device(_rows(built, settings), step.device), ("file", str(run.store.root / built.path))]
        console.result(built, pairs(lines))


def _rows(built: "Artifact", settings: str) -> list[tuple[str, str]]:
    from deploy_kit.records.engine_table import size
    from deploy_kit.stages import build as stage
    from deploy_kit.stages.report import layer_breakdown

    proof = built.proof
    assert proof is not None
    notes = filter(None, (stage.widened(built), stage.saturating(built), layer_breakdown.split(built), proof.advice))
    return [
        ("engine", built.label),
        ("size", size(built.size_bytes)),
        *_proved(proof),
        ("runs on", layer_breakdown.where(proof)),
        ("options", settings),
        *(("note", note) for note in notes),
    ]


def _proved(proof: "Proof") -> list[tuple[str, str]]:
    typed = ((f"{op} {dtype}", n) for op, dtype, n in proof.network)
    computes = _counted((f"{op} {dtype}", n) for op, dtype, n in proof.counts)
    rows = [
        ("computes in", computes or "not readable"),
        ("proved by", proof.source + (f" ({proof.remark})" if proof.remark else "")),
        ("kernels", _counted(proof.kernels)),
        ("typed network", _counted(typed)),
        ("in and out", ", ".join(f"{name} {dtype}" for name, dtype in proof.bindings)),
    ]
    return [row for row in rows if row[1]]


def _counted(rows: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in rows)


COMMAND = Command(
    call=build,
    order=40,
    example="deploykit build --engine openvino --variant int8",
)
