"""``deploykit bench``: latency, measured in turns."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from deploy_kit.cli import Command, _options

Text = Optional[str]  # noqa: UP045  # typer reads annotations at run time, also on Python 3.10
Number = Optional[int]  # noqa: UP045


def bench(
    all_engines: Annotated[bool, typer.Option("--all", help="Measure every engine in the store, in turns.")] = False,
    engine: Annotated[Text, typer.Option("--engine", help="Engines to measure, e.g. onnxruntime,openvino.")] = None,
    variant: Annotated[Text, typer.Option("--variant", help="Variants to measure, e.g. fp32,int8.")] = None,
    scenario: Annotated[
        Text, typer.Option("--scenario", help="closed-loop, or LoadGen's single-stream, multi-stream, server, offline.")
    ] = None,
    batch: Annotated[Text, typer.Option("--batch", help="Images per run, e.g. 1,8.")] = None,
    streams: Annotated[Number, typer.Option("--streams", help="Sessions that run at the same time.")] = None,
    rounds: Annotated[Number, typer.Option("--rounds", help="Turns of every engine.")] = None,
    runs: Annotated[Number, typer.Option("--runs", help="Timed runs in one turn, at least.")] = None,
    min_iters: Annotated[Number, typer.Option("--min-iters", help="Timed runs of an engine, at least.")] = None,
    duration: Annotated[Text, typer.Option("--duration", help="Time of an engine, at least, e.g. 10s.")] = None,
    warmup: Annotated[Text, typer.Option("--warmup", help="Limit of the warm-up, e.g. 200ms.")] = None,
    span: Annotated[Text, typer.Option("--span", help="compute, or whole with copying in and out.")] = None,
    percentiles: Annotated[Text, typer.Option("--percentiles", help="What to show, e.g. 50,90,95,99.")] = None,
    target_qps: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--target-qps", help="Queries a second that arrive, for --scenario server."),
    ] = None,
    latency_budget: Annotated[
        Text, typer.Option("--latency-budget", help="What the largest percentile must keep, e.g. 8ms.")
    ] = None,
    baseline: Annotated[
        Text, typer.Option("--baseline", help="Label of an engine of this run, or an earlier run.json.")
    ] = None,
    fail_on_regression: Annotated[
        Text, typer.Option("--fail-on-regression", help="End with 1 where slower than the baseline by more, e.g. 3%.")
    ] = None,
    energy: Annotated[
        bool, typer.Option("--energy", help="Also run each engine 10 s for its energy, after 10 s of idle.")
    ] = False,
    allow_invalid: _options.AllowInvalid = False,
    export_times: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--export-times", help="Also write every run to this file, as trtexec's --exportTimes."),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also time each layer, in runs of their own.")] = False,
    export_profile: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--export-profile", help="Write the profile as trtexec does (JSON); implies --profile."),
    ] = None,
    recipe: _options.RecipeName = None,
    device: _options.DeviceName = "local",
    beside: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--beside", help="Also measure on this device, in the same table; may be given again."),
    ] = None,
    store: _options.StorePath = _options.STORE,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again, even if the store has it.")] = False,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Measure the latency of the newest engine, of some, or of all, in turns."""
    from deploy_kit.analysis import compare
    from deploy_kit.cli import _bench, _beside, _layers, _quantities, _steps
    from deploy_kit.cli._console import Console
    from deploy_kit.recipe import overrides
    from deploy_kit.stages import bench as stage
    from deploy_kit.store import verify_place

    said = {
        "scenario": scenario,
        "batch": _quantities.counts("--batch", batch),
        "streams": streams,
        "rounds": rounds,
        "runs": runs,
        "min_iters": min_iters,
        "duration_s": _quantities.seconds("--duration", duration),
        "warmup_s": _quantities.seconds("--warmup", warmup),
        "span": span,
        "energy": energy or None,
        "percentiles": _quantities.percentiles("--percentiles", percentiles),
        "target_qps": target_qps,
        "latency_budget_ms": _quantities.milliseconds("--latency-budget", latency_budget),
        "profile": True if profile or export_profile else None,
        "fail_on_regression": _quantities.percent("--fail-on-regression", fail_on_regression),
    }
    earlier = compare.read_bench(Path(baseline)) if baseline is not None and baseline.endswith(".json") else None
    for measured in earlier.measurements if earlier else ():  # before any work
        compare.verify_valid(measured, str(baseline))
    asked = _steps.Asked(store=store, recipe=recipe, device=device)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        part = overrides.with_bench(run.recipe, {**said, "baseline": None if earlier else baseline})
        engines = _bench.engines(run, console, part, everything=all_engines, engine=engine, variant=variant)
        _bench.verify_baseline(part, engines, named=baseline if not earlier else None, earlier=earlier is not None)
        _layers.verify_export(export_profile, n_engines=len(engines))
        if export_times is not None:
            verify_place(export_times, f"'{export_times / 'times.json'}'")
        _bench.verify_load(part, target_qps)
        others = _beside.reached(device, beside or ())
        made, reused = stage.run(engines, part, run.target, fresh=fresh)
        if reused:
            console.say(
                f"measured before, on {'this machine' if device == 'local' else repr(device)}: --fresh measures again"
            )
        elsewhere, lost = _beside.measured(run, console, others, engines, part, fresh=fresh)
        found = {device: made, **elsewhere}
        rows = {name: _bench.rows(engines, one, part) for name, one in found.items()}
        held = compare.compare_runs(earlier, made) if earlier and made.measurements and not made.invalid else None
        if export_times is not None:
            _bench.export_times(made, export_times)
        for note in filter(None, (m.starved for one in found.values() for m in one.measurements)):
            console.say(f"note: {note}")
        shown = _bench.latencies(rows, part) + (f"\n\n{_bench.comparison(held)}" if held else "")
        shown = "\n\n".join([shown, *_beside.details(rows)])
        console.result(_bench.record(made, held, elsewhere), shown)
        _layers.export(made.measurements, export_profile, console)
        missed = [*_beside.missed(rows), *_bench.regressions(held, part.fail_on_regression)]
        if earlier and made.invalid:
            missed += [f"not held against {baseline}: {made.invalid[0]}"]
        _beside.end(found, lost, allow_invalid=allow_invalid)
        for limit in missed:
            console.say(f"limit not kept: {limit}")
    if missed:
        raise typer.Exit(1)


COMMAND = Command(call=bench, order=60)
