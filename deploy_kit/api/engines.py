"""From a graph to an engine with numbers: `build`, `check`, `bench`, `speed_up`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from deploy_kit import engines as catalogue
from deploy_kit import pipeline
from deploy_kit.analysis import doctor
from deploy_kit.analysis.diagnosis import expect_labels
from deploy_kit.api import _step
from deploy_kit.api._step import Graph, PathLike, Progress, StoreLike
from deploy_kit.base.errors import DeviceError, MeasurementError, RequestError, StageError
from deploy_kit.measure import speed_ups
from deploy_kit.recipe import BuildEntry, overrides
from deploy_kit.records.artifacts import Artifact, Device
from deploy_kit.records.measurements import Bench, Measurement, NotRun, SpeedUp
from deploy_kit.records.passports import verify_out
from deploy_kit.records.results import ParityReport
from deploy_kit.stages import bench as bench_stage
from deploy_kit.stages import build as build_stage
from deploy_kit.stages import check as check_stage


def build(
    graph: Graph,
    engine: str = "onnxruntime",
    *,
    options: Mapping[str, Any] | None = None,
    threads: int | None = None,
    device: Device | str = "local",
    out: PathLike | None = None,
    store: StoreLike = None,
    on_progress: Progress = "auto",
) -> Artifact:
    """Build an engine, and prove from the engine itself that it computes in the graph's precision.

    Args:
        graph: What `quantize`, `simplify` or `export` returned, or a checkpoint or ONNX file; one that is not
            simplified yet is simplified first.
        engine: An engine of the catalogue: ``onnxruntime``, ``openvino``, ``tensorrt``, ``tensorrt_rtx``, …
        options: Options of the engine, by name; `docs/recipes.md` lists them.
        threads: Threads of one run (CPU engines).
        device: Where it is built: a name of `deploykit devices list`, ``ssh://user@host:port``, or a `Device`.
        out: Also copy the engine and its passport to this path.
        store: Folder of results, see `export`.
        on_progress: See `export`.

    Returns:
        The engine's passport, with the proof of its precision.

    Raises:
        UnknownNameError: No engine has this name.
        MissingPackageError: The engine's package is not installed; the hint installs it.
        BuildError: The engine refuses the graph, or computes in another precision.
    """
    catalogue.CATALOGUE.get(engine)  # a misspelt name before any work
    opened_store, copy_to = _step.open_store(store), _step.path_or_none(out)
    verify_out(copy_to)
    base = _step.recipe_of(graph, opened_store)
    with _step.opened(base, opened_store, on_progress, stage="build", device=device) as step:
        run = step.run
        doctor.require_engine(engine, run.target.connection)
        source = _step.simplified(run, graph)
        settings = next((dict(entry.options) for entry in base.build.engines if entry.engine == engine), {})
        settings |= {**(options or {}), **({} if threads is None else {"threads": threads})}
        entry = BuildEntry(engine=engine, variants=(source.name,), options=settings)
        built = run.timed("build", f"{source.name} · {engine}", lambda: build_stage.run(source, entry, run.target))
        if copy_to is not None:
            opened_store.copy_out(built, copy_to)
        return built


def check(
    engine: Artifact,
    *,
    images: PathLike | None = None,
    skip_bad: bool = False,
    orientation: Literal["stored", "upright"] | None = None,
    crops: Literal[1, 10] | None = None,
    task: str | None = None,
    masks: PathLike | None = None,
    ignore_index: int | None = None,
    every_image: bool = False,
    max_drop: float | None = None,
    min_top1: float | None = None,
    diagnose: bool = False,
    device: Device | str = "local",
    on: str = "",
    store: StoreLike = None,
    on_progress: Progress = "auto",
) -> ParityReport:
    """Hold an engine against the checkpoint's own logits.

    A limit that is not kept is an answer, not an error: ``report.passed`` is False and ``report.verdict`` says why.

    Args:
        engine: What `build` returned.
        images: Images to check with: a folder, a CSV manifest, an npz file or ``bundled:NAME``; by default those that
            the graph was exported with, which is seeded noise where none were given.
        skip_bad: Leave out images that cannot be read, and count them.
        orientation: Whether images with an EXIF orientation are read as they are ``stored`` or turned ``upright``.
        crops: Crops of each image, whose logits are averaged.
        task: What the outputs mean: ``classify``, ``multilabel``, ``segment``, ``sequence``, ``embed`` or ``regress``;
            by default what the output's shape and the labels suggest.
        masks: Folder of masks, for task ``segment``: PNGs of class numbers, with the names of the images.
        ignore_index: Class number of masks that is not judged, e.g. 255.
        every_image: Run a float32 engine on every image also where there are 500 or more (`accuracy.sampling`).
        max_drop: Percentage points of the task's score (top-1, mIoU, …) that may be lost: the upper end of the 95 %
            interval must keep it.
        min_top1: Least top-1 accuracy in 0..1.
        diagnose: Also try other ways to prepare the images on the float graph.
        device: Where it runs, see `build`.
        on: Where to compute what needs no particular machine, see `deploy`.
        store: Folder of results, see `export`.
        on_progress: See `export`.

    Returns:
        Numbers beside their limits.

    Raises:
        RequestError: The checkpoint was changed since the engine was built.
        InputError: The images do not fit the checkpoint, or are among those that calibrated.
        DeviceError: The engine cannot run there.
        CheckError: The comparison could not be carried out.
    """
    opened_store = _step.open_store(store)
    base = overrides.with_inputs(
        _step.recipe_of(engine, opened_store),
        images=_step.text_or_none(images),
        skip_bad=skip_bad,
        orientation=orientation,
        crops=crops,
        task=task,
        masks=_step.text_or_none(masks),
        ignore_index=ignore_index,
        every_image=every_image,
    )
    with _step.opened(base, opened_store, on_progress, stage="check", device=device, on=on) as step:
        run = step.run
        source = pipeline.exported(run)
        if engine.parent not in {source.onnx.sha256, *pipeline.graphs_of(run.store, source)}:
            raise RequestError(
                f"{engine.path}: not built from '{base.source.checkpoint}' as it is now",
                hint="export and build it again",
            )
        for remark in check_stage.overlap(run.calibration_images, run.check_images, engine.preprocess):
            step.remark(remark)
        reference = pipeline.reference_logits(run, source)
        if diagnose:
            expect_labels(reference)  # before the check, whose numbers would be lost
        table = base.check.with_limits(engine.precision, max_drop=max_drop, min_top1=min_top1)
        report, _ = check_stage.run(engine, table, run.target, reference=reference, images=run.check_images)
        if isinstance(report, NotRun):
            raise _not_run(report)
        return dataclasses.replace(report, diagnosis=pipeline.diagnosed(run, source, reference, always=diagnose))


def bench(
    engines: Artifact | Sequence[Artifact],
    *,
    scenario: Literal["closed-loop", "single-stream", "multi-stream", "server", "offline"] | None = None,
    batch: int | Sequence[int] | None = None,
    streams: int | None = None,
    rounds: int | None = None,
    runs: int | None = None,
    min_iters: int | None = None,
    duration: float | None = None,
    warmup: float | None = None,
    span: Literal["compute", "whole", "frame"] | None = None,
    target_qps: float | None = None,
    latency_budget_ms: float | None = None,
    energy: bool = False,
    profile: bool = False,
    fresh: bool = False,
    allow_invalid: bool = False,
    device: Device | str = "local",
    store: StoreLike = None,
    on_progress: Progress = "auto",
) -> Bench:
    """Measure the latency of engines, in turns, with everything that could make the numbers worthless watched.

    Args:
        engines: What `build` returned, one or several.
        scenario: How runs are issued.
        batch: Images per run; by default what each engine was built for.
        streams: Sessions that run at the same time.
        rounds: Turns of every engine.
        runs: Timed runs in one turn, at least.
        min_iters: Timed runs of an engine, at least.
        duration: Seconds of an engine, at least.
        warmup: Limit of the warm-up in seconds.
        span: ``compute``, ``whole`` with copying in and out, or ``frame``, from pixels in memory to the class.
        target_qps: Queries a second that arrive, for the scenario ``server``.
        latency_budget_ms: What the largest percentile must keep in the scenario ``server``, in ms.
        energy: Also run each engine for its energy.
        profile: Also time each layer, in runs of their own.
        fresh: Measure again, even if the store has it.
        allow_invalid: Return measurements that are not valid, marked, instead of raising.
        device: Where it runs, see `build`.
        store: Folder of results, see `export`.
        on_progress: See `export`.

    Returns:
        Raw samples of each engine; ``measurement.percentile_ms(50)`` is its median, and `speed_up` compares two.

    Raises:
        MeasurementError: A measurement is not valid: the machine was busy, throttled or changed its clocks.
        DeviceError: No engine can run there, or the device was lost.
        StageError: An engine died.
    """
    meant = (engines,) if isinstance(engines, Artifact) else tuple(engines)
    if not meant:
        raise RequestError("bench: expected at least one engine, found none", hint="bench([build(graph)])")
    opened_store = _step.open_store(store)
    changes = {
        "scenario": scenario,
        "batch": [batch] if isinstance(batch, int) else None if batch is None else list(batch),
        "streams": streams,
        "rounds": rounds,
        "runs": runs,
        "min_iters": min_iters,
        "duration_s": duration,
        "warmup_s": warmup,
        "span": span,
        "target_qps": target_qps,
        "latency_budget_ms": latency_budget_ms,
        "energy": energy or None,
        "profile": profile or None,
    }
    base = _step.recipe_of(meant[0], opened_store)
    with _step.opened(base, opened_store, on_progress, stage="bench", device=device) as step:
        measured, _ = bench_stage.run(meant, overrides.with_bench(base, changes), step.run.target, fresh=fresh)
        for note in (m.starved for m in measured.measurements if m.starved):
            step.remark(note)
    _verify_measured(measured, allow_invalid=allow_invalid)
    return measured


def speed_up(baseline: Measurement, candidate: Measurement) -> SpeedUp | None:
    """Compare two measurements, with a 95 % interval: in turns where they are of one run, else each by itself.

    Args:
        baseline: Measurement that the ratio is relative to.
        candidate: Measurement that is compared with it.

    Returns:
        The ratio and its interval; None where a machine is emulated, whose times measure the emulator.
    """
    return speed_ups.speed_up(baseline, candidate)


def _verify_measured(measured: Bench, *, allow_invalid: bool) -> None:
    if measured.failed:
        raise StageError(f"{measured.failed[0].label}: {measured.failed[0].why}")
    if measured.stopped:
        raise DeviceError(
            f"{measured.stopped}; the rounds before it are kept",
            hint="the same call goes on from there, without fresh=True",
        )
    if not measured.measurements:
        raise _not_run(measured.not_run[0])
    if measured.invalid and not allow_invalid:
        raise MeasurementError(
            measured.invalid[0], hint="change what it names and measure again, or go on knowingly: allow_invalid=True"
        )


def _not_run(absent: NotRun) -> DeviceError:
    return DeviceError(
        f"{absent.label}: not run: {absent.why}", hint="run this step on a machine that has what the engine needs"
    )
