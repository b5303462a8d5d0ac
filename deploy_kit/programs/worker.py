"""The program that runs on the target: jobs in, replies out, one line of JSON each.

Needs the standard library, numpy and the engine's own package. Native code lives and dies here.
"""

import contextlib
import errno
import functools
import os
import queue
import resource
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from deploy_kit import engines, images
from deploy_kit.base.errors import DeployKitError, InputError, StageError, StoreError
from deploy_kit.base.lazy import need
from deploy_kit.base.process_end import end_process
from deploy_kit.base.progress import ProgressCallback, ProgressEvent, no_progress
from deploy_kit.devices.protocol import Reply, error_reply, progress_line, read_job, reply_line
from deploy_kit.engines import _cuda
from deploy_kit.images.arrays import write_npy
from deploy_kit.machine import environment
from deploy_kit.measure import scenarios, stopwatch
from deploy_kit.measure.gauges._operations import GaugeOperations
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.records.measurements import LoadCost

if TYPE_CHECKING:
    from deploy_kit.quantization.schemes import Calibration, PlannedMix, Scheme

Arguments = dict[str, Any]
MEMORY_SHARE, BOUNDED_S = 0.5, 1800
"""What an engine of somebody else may take: of the machine's memory, and seconds of processor time for a job."""
_WHOLE = ("h2d", "compute", "d2h")
_TIMED = {"compute": ("compute",), "whole": _WHOLE, "frame": _WHOLE}
"""What a device times of one run, by span."""
_END_S = 2.0
"""Seconds that a job has for ending in order once the host is gone."""
_FEW = 4
"""Images that calibrate a graph which is only timed."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Pixels in memory, as a camera or a decoder leaves them, and how they become an engine's input.

    Attributes:
        pixels: uint8 (N, H, W, C), channels in RGB order.
        preprocess: What the engine takes.
    """

    pixels: np.ndarray
    preprocess: Preprocess

    def bind_to(self, session: engines.Session) -> None:
        """Copy the pixels to the device, normalized by numpy where the engine takes floats."""
        taken = self.preprocess.input_pixels
        session.bind(self.pixels if taken else images.normalize(self.pixels, self.preprocess))


class WorkerProgram:
    """One open engine at most, with a session for each stream, and the operations on it."""

    def __init__(self, on_progress: ProgressCallback = no_progress) -> None:
        """Start with nothing open; `on_progress` hears of the progress of long operations."""
        self._on_progress = on_progress
        self._sessions: tuple[engines.Session, ...] = ()
        self._first: np.ndarray | None = None
        self._frames: Frames | None = None
        self._pace_ms, self._bounded = 0.0, False
        self._planned: PlannedMix | None = None
        self._load_ms, self._memory_before_mib = 0.0, 0
        self.operations: dict[str, Callable[[Arguments], Arguments]] = {
            "why_unavailable": self.why_unavailable,
            "quantize": self.quantize,
            "plan": self.plan,
            "mix": self.mix,
            "slim_curves": self.slim_curves,
            "slim_times": self.slim_times,
            "slim": self.slim,
            "distill": self.distill,
            "build": self.build,
            "prove": self.prove,
            "open": self.open,
            "infer": self.infer,
            "warm_up": self.warm_up,
            "time": self.time,
            "profile": self.profile,
            "observe": self.observe,
            "scenario_why_unavailable": self.scenario_why_unavailable,
            "environment": self.environment,
            "cuda_capability": self.cuda_capability,
            **GaugeOperations().table(),
        }

    def why_unavailable(self, arguments: Arguments) -> Arguments:
        """Return why the engine cannot run here; empty if it can."""
        return {"why": engines.CATALOGUE.get(arguments["engine"]).why_unavailable()}

    def scenario_why_unavailable(self, arguments: Arguments) -> Arguments:
        """Return why the scenario cannot run here; empty if it can."""
        return {"why": scenarios.get_scenario(arguments["scenario"]).why_unavailable()}

    def quantize(self, arguments: Arguments) -> Arguments:
        """Apply a scheme to ``source``; only where the host's own packages are installed."""
        facts: list[list[str]] = []
        with self._scheme(arguments, facts) as (scheme, options, calibration):
            scheme.apply(Path(arguments["source"]), Path(arguments["target"]), options, calibration)
        n_images = calibration.n_images if calibration is not None else 0
        return {"n": n_images, "facts": facts, "peak_memory_mib": environment.peak_memory_mib()}

    def plan(self, arguments: Arguments) -> Arguments:
        """Observe the calibration images once, for `mix`; answer with the layer groups of ``source``."""
        with self._scheme(arguments, []) as (scheme, options, calibration):
            if scheme.planned is None or calibration is None:
                raise StageError(f"worker: scheme '{arguments['scheme']}' cannot leave layer groups in float")
            self._planned = scheme.planned(Path(arguments["source"]), options, calibration)
        return {"groups": self._planned.groups}

    def mix(self, arguments: Arguments) -> Arguments:
        """Write what was planned to ``target``, with the layer groups of ``keep`` in float."""
        if self._planned is None:
            raise StageError("worker: mix was asked for before plan")
        self._planned.write(Path(arguments["target"]), tuple(arguments["keep"]))
        return {}

    def slim_curves(self, arguments: Arguments) -> Arguments:
        """Measure what removing channels of ``source`` costs; the sensitivities go to the npz file ``target``."""
        from deploy_kit.graph import torch_graph
        from deploy_kit.slimming import curves

        torch_graph.keep_freed_memory()
        image_set, preprocess = _image_set(arguments)
        found = curves.measure(Path(arguments["source"]), image_set, preprocess, self._on_progress)
        arrays = {str(index): array for index, array in enumerate(found.sensitivities)}
        np.savez(arguments["target"], **arrays)  # type: ignore[arg-type]  # numpy types only keyword flags
        return {
            "macs": found.macs,
            "curves": codec.to_json(found.curves),
            "refused": found.refused,
            "peak_memory_mib": environment.peak_memory_mib(),
        }

    def slim_times(self, arguments: Arguments) -> Arguments:
        """Profile ``source`` in INT8 with the channels of each entry of ``kept``, entries in turns.

        The graphs are written to ``targets``; each has a trace for each of ``rounds``.
        """
        from deploy_kit.graph import onnx_file
        from deploy_kit.quantization import schemes
        from deploy_kit.slimming import surgery

        image_set, preprocess = _image_set(arguments)
        engine, scheme = engines.CATALOGUE.get(arguments["engine"]), schemes.CATALOGUE.get(arguments["scheme"])
        few, built = image_set.first(_FEW), list[str]()
        for kept, target in zip(arguments["kept"], arguments["targets"], strict=True):
            model = onnx_file.load(Path(arguments["source"]))
            surgery.narrow_all(model, kept)
            wide = Path(target).with_suffix(".float.onnx")
            onnx_file.save(onnx_file.reread(surgery.forget_shapes(model)), wide)
            scheme.apply(wide, Path(target), scheme.options(), schemes.stream(wide, few, preprocess))
            folder = Path(target).with_suffix(".engine")
            folder.mkdir()
            engine.build(Path(target), folder, engine.options(), self._on_progress)
            built.append(str(folder / engine.file_name))
        write_npy(arguments["inputs"], next(few.batches(preprocess, arguments["batch"])))
        traces: list[list[object]] = [[] for _ in built]
        for _ in range(arguments["rounds"]):
            for found, path in zip(traces, built, strict=True):
                found.append(self.profile({**arguments, "path": path})["trace"])
        return {"traces": traces}

    def slim(self, arguments: Arguments) -> Arguments:
        """Remove channels of ``source`` down to the numbers ``kept``, refit what follows, and write ``target``."""
        from deploy_kit.graph import torch_graph
        from deploy_kit.records.slimming import ChannelCurve
        from deploy_kit.slimming import compensation

        torch_graph.keep_freed_memory()
        image_set, preprocess = _image_set(arguments)
        rows = tuple(codec.from_json(ChannelCurve, row) for row in arguments["curves"])
        with np.load(arguments["sensitivities"], allow_pickle=False) as held:
            task = compensation.SlimTask(
                source=Path(arguments["source"]),
                target=Path(arguments["target"]),
                curves=rows,
                kept=tuple(arguments["kept"]),
                sensitivities=tuple(held[str(index)] for index in range(len(rows))),
            )
        found = compensation.slim(task, image_set, preprocess, self._on_progress)
        return {
            "macs": found.macs,
            "layers": codec.to_json(found.layers),
            "peak_memory_mib": environment.peak_memory_mib(),
        }

    def distill(self, arguments: Arguments) -> Arguments:
        """Train the weights of the slimmed graph ``target`` to the answers of ``source``."""
        from deploy_kit.graph import torch_graph
        from deploy_kit.slimming import distillation

        torch_graph.keep_freed_memory()
        image_set, preprocess = _image_set(arguments)
        found = distillation.distill(
            Path(arguments["source"]), Path(arguments["target"]), image_set, preprocess, arguments["seconds"],
            self._on_progress,
        )  # fmt: skip
        return {"words": found.words, "peak_memory_mib": environment.peak_memory_mib()}

    def build(self, arguments: Arguments) -> Arguments:
        """Build an engine from ``onnx`` into ``folder`` and prove its precision."""
        engine = engines.CATALOGUE.get(arguments["engine"])
        options = codec.from_json(engine.options, arguments["options"], f"engine '{arguments['engine']}'")
        folder = Path(arguments["folder"])
        begun = time.perf_counter()
        built = engine.build(Path(arguments["onnx"]), folder, options, self._on_progress)
        build_s = round(time.perf_counter() - begun, 3)
        proof = engine.prove_precision(folder / engine.file_name, options)
        return {"proof": codec.to_json(proof), "build_s": build_s, "built": codec.to_json(built)}

    def prove(self, arguments: Arguments) -> Arguments:
        """Read from an engine's file which types it computes in."""
        engine = engines.CATALOGUE.get(arguments["engine"])
        options = codec.from_json(engine.options, arguments["options"], f"engine '{arguments['engine']}'")
        return {"proof": codec.to_json(engine.prove_precision(Path(arguments["path"]), options))}

    def open(self, arguments: Arguments) -> Arguments:
        """Load an engine, a session for each of ``streams``; answer with its batch and settings.

        One that is ``bounded`` came from somebody else: it may take half of the machine's memory, and `BOUNDED_S`
        seconds of processor time for each job.
        """
        engine, streams = engines.CATALOGUE.get(arguments["engine"]), int(arguments.get("streams", 1))
        options = codec.from_json(engine.options, arguments["options"], f"engine '{arguments['engine']}'")
        shared = _shared(options, streams)
        need(engine.package, by=f"engine '{arguments['engine']}'")  # importing it is not loading the engine
        self._bounded = bool(arguments.get("bounded"))
        self._bound()
        self._sessions = ()  # two engines at once would count as the memory of one
        self._memory_before_mib, begun = environment.resident_memory_mib(), time.perf_counter_ns()
        self._sessions = tuple(engine.open_session(Path(arguments["path"]), shared) for _ in range(streams))
        self._load_ms = (time.perf_counter_ns() - begun) / 1e6
        session = self._sessions[0]
        return {"batch": session.batch, "settings": dict(session.settings)}

    def _bound(self) -> None:
        if self._bounded:
            _limit(resource.RLIMIT_DATA, int(MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
            _limit(resource.RLIMIT_CPU, int(time.process_time()) + BOUNDED_S)

    def infer(self, arguments: Arguments) -> Arguments:
        """Run all images of npy file ``inputs`` (n, C, H, W) and write their logits (n, classes) to ``outputs``."""
        session = self._opened()[0]
        self._bound()
        images = np.load(arguments["inputs"], mmap_mode="r")
        batch = session.batch or min(len(images), int(arguments.get("batch", 32)))
        logits = []
        for full in _batches(images, batch, fixed=bool(session.batch)):
            session.bind(full)
            session.run()
            logits.append(session.fetch())
        write_npy(arguments["outputs"], np.concatenate(logits)[: len(images)].astype(np.float32, copy=False))
        return {"n": len(images)}

    def warm_up(self, arguments: Arguments) -> Arguments:
        """Bind the images of ``inputs`` to every stream and run each until steady; say what came before that cost.

        Span ``frame`` begins with the pixels of ``frames`` instead, which become the input as ``preprocess`` says.
        """
        self._first, self._frames = np.load(arguments["inputs"]), None
        if arguments["span"] == "frame":
            preprocess = codec.from_json(Preprocess, arguments["preprocess"])
            self._frames = Frames(pixels=np.load(arguments["frames"]), preprocess=preprocess)
        first, *_ = self._opened()
        first.bind(self._first)
        begun = time.perf_counter_ns()
        first.run()
        first_ms = (time.perf_counter_ns() - begun) / 1e6
        runs, steady = 1, True
        for session, steps in zip(self._opened(), self._steps(arguments["span"]), strict=True):
            session.bind(self._first)
            ended = stopwatch.warm_up(_in_one(steps), limit_s=arguments["limit_s"] / len(self._sessions))
            runs, steady, self._pace_ms = runs + ended.runs, steady and ended.steady, ended.median_ms
        cost = LoadCost(
            load_ms=self._load_ms,
            first_ms=first_ms,
            memory_before_mib=self._memory_before_mib,
            peak_memory_mib=environment.peak_memory_mib(),
        )
        return {"runs": runs, "steady": steady, "cost": codec.to_json(cost)}

    def profile(self, arguments: Arguments) -> Arguments:
        """Time each layer of an engine over ``runs`` runs on the images of ``inputs``; nothing stays open."""
        name = arguments["engine"]
        engine = engines.CATALOGUE.get(name)
        if engine.profile is None:
            raise StageError(f"worker: engine '{name}' does not time its layers")
        options = codec.from_json(engine.options, arguments["options"], f"engine '{name}'")
        trace = engine.profile(Path(arguments["path"]), options, np.load(arguments["inputs"]), arguments["runs"])
        return {"trace": codec.to_json(trace)}

    def observe(self, arguments: Arguments) -> Arguments:
        """Run all images of ``inputs`` and write the output and ``tensors`` within the graph; nothing stays open.

        The npz file ``outputs`` holds them as ``0``, ``1``, …, (n, …) each. ``batch`` is the engine's own, 0 where it
        takes any number.
        """
        name = arguments["engine"]
        engine = engines.CATALOGUE.get(name)
        if engine.observe is None:
            raise StageError(f"worker: engine '{name}' does not show what is within it")
        options = codec.from_json(engine.options, arguments["options"], f"engine '{name}'")
        images, fixed = np.load(arguments["inputs"]), arguments["batch"]
        batches = _batches(images, fixed or len(images), fixed=bool(fixed))
        found = list(engine.observe(Path(arguments["path"]), options, tuple(arguments["tensors"]), batches))
        arrays = {str(at): np.concatenate(parts)[: len(images)] for at, parts in enumerate(zip(*found, strict=True))}
        np.savez(arguments["outputs"], **arrays)  # type: ignore[arg-type]  # numpy types only keyword flags
        return {"n": len(images)}

    def time(self, arguments: Arguments) -> Arguments:
        """Take one turn of a scenario: ``n`` samples at least, for ``seconds`` at least, after discarded runs."""
        scenario = scenarios.get_scenario(arguments.get("scenario", "closed-loop"))
        load = scenarios.TurnLoad(
            n=arguments["n"],
            seconds=arguments.get("seconds", 0.0),
            batch=arguments.get("batch", 1),
            pace_ms=self._pace_ms,
            target_qps=arguments.get("target_qps", 0.0),
            latency_budget_ms=arguments.get("latency_budget_ms", 0.0),
            devices=self._devices(arguments["span"]),
        )
        turn, said = scenario.run(self._steps(arguments["span"]), load)
        return {"turn": codec.to_json(turn), "loadgen": codec.to_json(said)}

    def environment(self, arguments: Arguments) -> Arguments:
        """Describe this machine."""
        return {"environment": codec.to_json(environment.describe_machine())}

    def cuda_capability(self, arguments: Arguments) -> Arguments:
        """Return the first NVIDIA GPU's compute capability; empty where there is none. Starts CUDA in this process."""
        gpu = _cuda.device_or_none()
        return {"capability": gpu.capability if gpu else ""}

    @contextlib.contextmanager
    def _scheme(
        self, arguments: Arguments, facts: list[list[str]]
    ) -> "Iterator[tuple[Scheme, Any, Calibration | None]]":
        """Return the scheme that a job names, its options, and its images where it has any; `facts` hears of them.

        Where ``on`` names workers, they are opened when images are observed.
        """
        from deploy_kit.parallel import ray_workers
        from deploy_kit.quantization import schemes

        scheme = schemes.CATALOGUE.get(arguments["scheme"])
        options = codec.from_json(scheme.options, arguments["options"], f"scheme '{arguments['scheme']}'")
        if arguments["calibration"] is None:
            yield scheme, options, None
            return
        image_set, preprocess = _image_set(arguments)
        calibration = schemes.stream(Path(arguments["source"]), image_set, preprocess)
        kept = Path(arguments["store"]) if arguments.get("store") else None
        with contextlib.ExitStack() as held:
            opened = ray_workers.open_workers(arguments.get("on", ""), lambda text: None, verified=True)
            context = replace(
                calibration.context,
                store=kept,
                on_progress=self._on_progress,
                note=lambda *fact: facts.append(list(fact)),
                workers=functools.cache(lambda: held.enter_context(opened)),
            )
            yield scheme, options, replace(calibration, context=context)

    def _opened(self) -> tuple[engines.Session, ...]:
        if not self._sessions:
            raise StageError("worker: no engine is open")
        return self._sessions

    def _steps(self, span: str) -> tuple[stopwatch.Steps, ...]:
        """Return what one run of each stream consists of."""
        sessions, image = self._opened(), self._first
        if span == "compute":
            return tuple((session.run,) for session in sessions)
        if image is None:
            raise StageError("worker: time was asked for before warm_up")
        if span == "frame" and self._frames is not None:
            take = self._frames.bind_to
            return tuple((partial(take, session), session.run, partial(_classes, session)) for session in sessions)
        return tuple((partial(session.bind, image), session.run, session.fetch) for session in sessions)

    def _devices(self, span: str) -> tuple[stopwatch.DeviceClock, ...]:
        """Return the device's own clock of each stream; empty where it has none."""
        timed = [session for session in self._opened() if isinstance(session, engines.DeviceTimed)]
        return tuple(partial(_device_ms, session, _TIMED[span]) for session in timed)


def _image_set(arguments: Arguments) -> tuple[images.ImageSet, Preprocess]:
    """Open the image set that a job names, as the host has opened it."""
    preprocess = codec.from_json(Preprocess, arguments["preprocess"])
    image_set = images.open_set(
        arguments["calibration"],
        preprocess,
        skip_bad=bool(arguments.get("skip_bad", False)),
        orientation=arguments.get("orientation"),
    )
    if arguments.get("digest", image_set.digest) != image_set.digest:
        raise InputError(f"{image_set.name}: its images changed while they were in use", hint="run it again")
    return image_set, preprocess


def _batches(images: np.ndarray, size: int, *, fixed: bool) -> Iterator[np.ndarray]:
    """Return the images `size` at a time; a last batch of fixed size is filled up with the last image."""
    for start in range(0, len(images), size):
        part = np.asarray(images[start : start + size])
        lacking = size - len(part) if fixed else 0
        yield np.concatenate([part, np.repeat(part[-1:], lacking, axis=0)]) if lacking else part


def _classes(session: engines.Session) -> np.ndarray:
    """Return the class of each image: the place of its largest logit."""
    return np.asarray(session.fetch().argmax(1))


def _device_ms(session: engines.DeviceTimed, names: tuple[str, ...]) -> tuple[float, ...]:
    found = session.device_ms
    return tuple(found[name] for name in names)


def _limit(kind: int, value: int) -> None:
    """Set a limit of this process, as far as whoever started it allows."""
    hard = resource.getrlimit(kind)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (most, hard))


def _shared(options: Any, streams: int) -> Any:
    """Return each stream its share of the cores, unless the options say how many threads a run takes."""
    if streams == 1 or getattr(options, "threads", None) != 0:
        return options
    return replace(options, threads=max(1, environment.usable_cores() // streams))


def _in_one(steps: stopwatch.Steps) -> Callable[[], None]:
    def run() -> None:
        for step in steps:
            step()

    return run


def serve(jobs: Iterable[str], replies: TextIO, host_gone: threading.Event) -> None:
    """Answer jobs until the input ends; a job that tells of its progress is cancelled once the host is gone."""

    def tell(event: ProgressEvent) -> None:
        if host_gone.is_set():
            raise BrokenPipeError
        replies.write(progress_line(event))
        replies.flush()

    worker = WorkerProgram(tell)
    for line in jobs:
        job = read_job(line)
        try:
            operation = worker.operations.get(job.op)
            if operation is None:
                raise StageError(f"worker: no operation is called '{job.op}'")
            reply = Reply(result=operation(job.arguments))
        except DeployKitError as error:
            reply = error_reply(error)
        except OSError as error:
            place = error.filename or job.arguments.get("target")  # to write into a file fails without its name
            where = f"{place}: " if place else ""
            full = error.errno in (None, *_FULL)  # numpy writes a part of a file, and does not say why no more
            hint = "free some space, or choose another folder with --store" if full else ""
            reply = error_reply(StoreError(f"{where}{error.strerror or error} (in '{job.op}')", hint=hint))
        except Exception as error:  # noqa: BLE001  # the host must hear of a bug too, with where it happened
            at = traceback.extract_tb(error.__traceback__)[-1]
            text = f"worker: {type(error).__name__} in '{job.op}' at {Path(at.filename).name}:{at.lineno}: {error}"
            reply = error_reply(StageError(text))
        replies.write(reply_line(reply))
        replies.flush()


def _jobs_of(host: TextIO, host_gone: threading.Event) -> Iterator[str]:
    """Yield the lines of a host; once it is gone this process ends, also in a job: nobody would read its reply."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in host:
            lines.put(line)
        host_gone.set()
        lines.put("")
        time.sleep(_END_S)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while line := lines.get():
        yield line


def main() -> None:
    """Serve on standard input and output; whatever else prints to standard output goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    host_gone = threading.Event()
    serve(_jobs_of(os.fdopen(os.dup(0)), host_gone), replies, host_gone)
    end_process(0)


if __name__ == "__main__":
    main()
