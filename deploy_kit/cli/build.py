"""``deploykit build``: an engine from a typed graph."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deploy_kit.cli import Command, _options

if TYPE_CHECKING:
    from deploy_kit.records.artifacts import Proof

_Texts = Optional[list[str]]  # noqa: UP045  # typer reads it at run time, also on Python 3.10


def build(
    model: _options.ModelPath = None,
    engine: Annotated[str, typer.Option("--engine", help="An engine of the catalogue.")] = "onnxruntime",
    variant: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--variant", help="Which graph: fp32, or a quantized one by name; by default the newest."),
    ] = None,
    compute_capability: Annotated[
        _Texts, typer.Option("--compute-capability", help="GPU to build for, e.g. 8.9; again for another (RTX).")
    ] = None,
    min_shapes: Annotated[
        _Texts, typer.Option(help="Smallest input of an open graph, e.g. input:1x3x224x224; again for a profile.")
    ] = None,
    opt_shapes: Annotated[_Texts, typer.Option(help="Input that it is tuned for.")] = None,
    max_shapes: Annotated[_Texts, typer.Option(help="Largest input.")] = None,
    option: Annotated[
        _Texts, typer.Option("--build-option", "-o", help="Any option of the engine, key=value; see docs/recipes.md.")
    ] = None,
    threads: Annotated[Optional[int], typer.Option(help="Threads of one run (CPU engines).")] = None,  # noqa: UP045
    recipe: _options.RecipeName = None,
    device: _options.DeviceName = "local",
    store: _options.StorePath = _options.STORE,
    out: _options.OutPath = None,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Build an engine and prove its precision."""
    from deploy_kit import engines
    from deploy_kit.analysis import doctor
    from deploy_kit.cli import _engine_options, _steps
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.recipe import BuildEntry
    from deploy_kit.stages import build as stage
    from deploy_kit.stages.report import layer_breakdown, size

    engines.CATALOGUE.get(engine)  # a misspelt name before any work
    asked = _steps.Asked(store=store, recipe=recipe, model=model, device=device, out=out)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        doctor.require_engine(engine, run.target.connection)
        graph = _steps.quantized(run, console, variant)
        options: dict[str, Any] = next((dict(e.options) for e in run.recipe.build.engines if e.engine == engine), {})
        flags = {
            "compute_capabilities": compute_capability, "min_shapes": min_shapes, "opt_shapes": opt_shapes,
            "max_shapes": max_shapes, "threads": threads,
        }  # fmt: skip
        options |= _engine_options.parse(engines.CATALOGUE.get(engine).options, option or ())
        options |= {name: value for name, value in flags.items() if value is not None}
        entry = BuildEntry(engine=engine, variants=(graph.name,), options=options)
        made = run.timed(
            "build",
            f"{graph.name} · {engine}",
            lambda: stage.run(graph, entry, run.target),
        )
        _steps.copy_out(run, made, out, console)
        proof = made.proof
        assert proof is not None
        lines = [
            ("engine", made.label),
            ("size", size(made.size_bytes)),
            *_proved(proof),
            ("runs on", layer_breakdown.where(proof)),
            ("options", _engine_options.changed(engines.CATALOGUE.get(engine).options, json.loads(made.options))),
            *(
                ("note", note)
                for note in filter(None, [stage.widened(made), layer_breakdown.split(made), proof.advice])
            ),
            ("file", str(run.store.root / made.path)),
        ]
        console.result(made, pairs(lines))


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


COMMAND = Command(call=build, order=40)
