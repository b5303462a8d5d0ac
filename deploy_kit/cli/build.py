"""``deploykit build``: an engine from a typed graph."""

from typing import Annotated, Any, Optional

import typer

from deploy_kit.cli import Command, _options


def build(
    model: _options.ModelPath = None,
    engine: Annotated[str, typer.Option("--engine", help="An engine of the catalogue.")] = "onnxruntime",
    variant: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--variant", help="Which graph: fp32, or a quantized one by name; by default the newest."),
    ] = None,
    compute_capability: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--compute-capability", help="GPU to build for, e.g. 8.9; may be given again (tensorrt_rtx)."),
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
    from deploy_kit import build as stage
    from deploy_kit import doctor, engines
    from deploy_kit.cli import _steps
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.recipe import BuildEntry
    from deploy_kit.report import size

    engines.CATALOGUE.get(engine)  # a misspelt name before any work
    asked = _steps.Asked(store=store, recipe=recipe, model=model, device=device, out=out)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        doctor.require_engine(engine, run.link)
        typed = _steps.typed(run, console, variant)
        options: dict[str, Any] = next((dict(e.options) for e in run.recipe.build.engines if e.engine == engine), {})
        options |= {"compute_capabilities": compute_capability} if compute_capability else {}
        options |= {"threads": threads} if threads is not None else {}
        entry = BuildEntry(engine=engine, variants=(typed.name,), options=options)
        made = run.timed(
            "build",
            f"{typed.name} · {engine}",
            lambda: stage.run(typed, entry, store=run.store, link=run.link, watch=run.watch),
        )
        _steps.copy_out(run, made, out, console)
        proof = made.proof
        assert proof is not None
        lines = [
            ("engine", made.label),
            ("size", size(made.size_bytes)),
            ("computes in", ", ".join(f"{n} {op} {dtype}" for op, dtype, n in proof.counts) or "not readable"),
            ("proved by", proof.source + (f" ({proof.remark})" if proof.remark else "")),
            ("options", made.options),
            *(("note", note) for note in filter(None, [stage.widened(made)])),
            ("file", str(run.store.root / made.path)),
        ]
        console.result(made, pairs(lines))


COMMAND = Command(call=build, order=40)
