"""``deploykit bench``: latency, measured in turns."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import AllowInvalid, FailOnRegression, Fresh, OutputOptions, StepOptions


def bench(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Delivered or foreign engine or ONNX files, or bundles, the first of them the baseline; by default "
            "the store's newest engine.",
        ),
    ] = None,
    *,
    all_engines: Annotated[bool, typer.Option("--all", help="Measure all engines in the store, in turns.")] = False,
    engine: Annotated[
        str | None,
        typer.Option(help="Comma-separated engines to measure, e.g. onnxruntime,openvino; with FILE its engine."),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Comma-separated variants to measure, e.g. fp32,int8.")] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="Load scenario: closed-loop, or LoadGen's single-stream, multi-stream, server or offline.",
        ),
    ] = None,
    batch: Annotated[str | None, typer.Option(help="Comma-separated batch sizes, e.g. 1,8.")] = None,
    streams: Annotated[int | None, typer.Option(help="Number of sessions that run at the same time.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Number of rounds; each engine takes one turn per round.")] = None,
    runs: Annotated[int | None, typer.Option(help="Minimum number of timed runs per turn.")] = None,
    min_iters: Annotated[int | None, typer.Option(help="Minimum number of timed runs per engine.")] = None,
    duration: Annotated[str | None, typer.Option(help="Minimum measuring time per engine, e.g. 10s.")] = None,
    warmup: Annotated[str | None, typer.Option(help="Time limit of the warm-up per engine, e.g. 200ms.")] = None,
    span: Annotated[
        Literal["compute", "whole", "frame"] | None,
        typer.Option(
            help="What is timed: the computation (default), the whole with copying in and out, or frame: from pixels "
            "in memory to the class."
        ),
    ] = None,
    percentiles: Annotated[
        str | None, typer.Option(help="Comma-separated latency percentiles to show, e.g. 50,90,95,99.")
    ] = None,
    target_qps: Annotated[
        float | None, typer.Option(help="Arrival rate in queries per second, for --scenario server.")
    ] = None,
    latency_budget: Annotated[
        str | None, typer.Option(help="Upper limit for the largest percentile shown, e.g. 8ms.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Baseline to compare with: an engine of this run, e.g. fp32@onnxruntime, or an earlier run.json."
        ),
    ] = None,
    fail_on_regression: FailOnRegression = None,
    energy: Annotated[
        bool, typer.Option("--energy", help="Also measure energy: 10 s of runs per engine, after 10 s of idling.")
    ] = False,
    allow_invalid: AllowInvalid = False,
    export_times: Annotated[
        Path | None,
        typer.Option(help="Write the times of every run to this file, as trtexec's --exportTimes does."),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also time each layer, in separate runs.")] = False,
    export_profile: Annotated[
        Path | None,
        typer.Option(
            help="Write the layer profile to this file, as trtexec's --exportProfile does; implies --profile.",
        ),
    ] = None,
    step: Annotated[StepOptions, Only("recipe", "device", "store")],
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Also measure on this device and show it in the same table; repeatable."),
    ] = None,
    fresh: Fresh = False,
    output: OutputOptions,
) -> None:
    """Measure the latency of the newest engine, of selected engines, of all, or of given files, in turns."""
    from deploy_kit.analysis import compare
    from deploy_kit.base.errors import RequestError
    from deploy_kit.base.plain_text import shell_word
    from deploy_kit.base.whole_files import verify_place, write_whole
    from deploy_kit.cli import (
        _bench_files,
        _bench_outcome,
        _bench_request,
        _bench_tables,
        _layer_profiles,
        _other_devices,
        _quantities,
        _steps,
        _tool_formats,
    )
    from deploy_kit.devices import links
    from deploy_kit.recipe import overrides
    from deploy_kit.stages import bench as stage

    options = {
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
    for measurement in earlier.measurements if earlier else ():  # before any work
        compare.verify_valid(measurement, str(baseline))
    named = None if earlier else baseline
    if files and (all_engines or variant):
        raise RequestError(
            "--all and --variant are about engines of the store, and files were given",
            hint=f"leave them out, or the files: deploykit bench {shell_word(files[0])}",
        )
    with (
        output.console() as console,
        _bench_files.opened(step, console) if files else _steps.open_run(step, console) as run,
    ):
        table = overrides.with_bench(run.recipe, options)
        if files:
            engines = _bench_files.taken(files, run, console, engine)
            table = _bench_files.with_first_as_baseline(table, engines, baseline)
        else:
            engines = _bench_request.select_engines(
                run, console, table, everything=all_engines, engines=engine, variants=variant
            )
        table = _bench_request.with_baseline(table, engines, named) if earlier is None else table
        _bench_request.verify_baseline(table, engines, named=named, earlier=earlier is not None)
        _layer_profiles.verify_export(export_profile, n_engines=len(engines))
        if export_times is not None:
            verify_place(export_times, shell_word(export_times / "times.json"))
        _bench_request.verify_target_qps(table, target_qps)
        others = _other_devices.find_devices(step.device, beside or ())
        measured, reused = stage.run(engines, table, run.target, fresh=fresh)
        if reused:
            place = "this machine" if step.device == links.LOCAL.name else repr(step.device)
            console.say(f"already measured on {place}; measure again with --fresh")
        elsewhere, errors = _other_devices.measure(run, console, others, engines, table, fresh=fresh)
        benches = {step.device: measured, **elsewhere}
        rows = {name: _bench_tables.rows_of(engines, one, table) for name, one in benches.items()}
        comparable = bool(measured.measurements) and not measured.invalid
        compared = compare.compare_runs(earlier, measured) if earlier and comparable else None
        if export_times is not None:
            times = _tool_formats.times(measured)
            write_whole(export_times, json.dumps(times, ensure_ascii=False) + "\n")
        for note in filter(None, (m.starved for one in benches.values() for m in one.measurements)):
            console.say(f"note: {note}")
        # Where there are several devices, the table has a column of them.
        texts = [f"device  {step.device}"] if step.device != links.LOCAL.name and not elsewhere else []
        texts += [_bench_tables.latencies(rows, table), *([_bench_tables.comparison(compared)] if compared else [])]
        texts += _other_devices.details(rows)
        console.result(_bench_outcome.record(measured, compared, elsewhere), "\n\n".join(texts))
        _layer_profiles.export(measured.measurements, export_profile, console)
        missed = _other_devices.missed_limits(rows)
        missed += _bench_outcome.regressions(compared, table.fail_on_regression)
        if earlier and measured.invalid:
            missed.append(f"not compared with {baseline}: {measured.invalid[0]}")
        _other_devices.raise_first_failure(benches, errors, allow_invalid=allow_invalid)
        for miss in missed:
            console.say(f"limit not kept: {miss}")
    if missed:
        raise typer.Exit(1)


COMMAND = Command(
    call=bench,
    order=60,
    example="deploykit bench deliver/best-fp32.onnx deliver/best-int8.onnx --latency-budget 8ms",
)
