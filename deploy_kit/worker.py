"""The program that runs on the target: jobs in, replies out, one line of JSON each.

Needs the standard library, numpy and the engine's own package. Native code lives and dies here.
"""

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from deploy_kit import codec, engines, environment, images, stopwatch
from deploy_kit.errors import DeployKitError, StageError, StoreError
from deploy_kit.lazy import need
from deploy_kit.records import Preprocess
from deploy_kit.wire import Reply, failure, read_job, reply_line

Arguments = dict[str, Any]
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Worker:
    """One open session at most, and the operations on it."""

    def __init__(self) -> None:
        """Start with nothing open."""
        self._session: engines.Session | None = None
        self._first: np.ndarray | None = None
        self.operations: dict[str, Callable[[Arguments], Arguments]] = {
            "hindrance": self.hindrance,
            "quantize": self.quantize,
            "build": self.build,
            "open": self.open,
            "infer": self.infer,
            "warm_up": self.warm_up,
            "time": self.time,
            "profile": self.profile,
            "environment": self.environment,
        }

    def hindrance(self, arguments: Arguments) -> Arguments:
        """Say why the engine cannot run here; empty if it can."""
        return {"why": engines.CATALOGUE.get(arguments["engine"]).hindrance()}

    def quantize(self, arguments: Arguments) -> Arguments:
        """Apply a scheme to ``source``; only where the host's own packages are installed."""
        from deploy_kit import schemes

        scheme = schemes.CATALOGUE.get(arguments["scheme"])
        options = codec.from_json(scheme.options, arguments["options"], f"scheme '{arguments['scheme']}'")
        source, n_images, calibration = Path(arguments["source"]), 0, None
        if arguments["calibration"] is not None:
            preprocess = codec.from_json(Preprocess, arguments["preprocess"])
            image_set = images.open_set(arguments["calibration"], preprocess)
            calibration = schemes.stream(source, image_set, preprocess)
            n_images = calibration.n_images
        scheme.apply(source, Path(arguments["target"]), options, calibration)
        return {"n": n_images, "peak_memory_mib": environment.peak_memory_mib()}

    def build(self, arguments: Arguments) -> Arguments:
        """Build an engine from ``onnx`` into ``folder`` and prove its precision."""
        engine = engines.CATALOGUE.get(arguments["engine"])
        options = codec.from_json(engine.options, arguments["options"], f"engine '{arguments['engine']}'")
        folder = Path(arguments["folder"])
        begun = time.perf_counter()
        engine.build(Path(arguments["onnx"]), folder, options)
        build_s = time.perf_counter() - begun
        proof = engine.prove_precision(folder / engine.file_name, options)
        return {"proof": codec.to_json(proof), "build_s": round(build_s, 3)}

    def open(self, arguments: Arguments) -> Arguments:
        """Load an engine; answer with its batch, its settings and what loading cost."""
        name = arguments["engine"]
        engine = engines.CATALOGUE.get(name)
        options = codec.from_json(engine.options, arguments["options"], f"engine '{name}'")
        need(engine.package, by=f"engine '{name}'")  # importing it is not loading the engine
        self._session = None  # two at once would count as the memory of one
        before, begun = environment.memory_mib(), time.perf_counter_ns()
        self._session = engine.open_session(Path(arguments["path"]), options)
        return {
            "batch": self._session.batch,
            "settings": dict(self._session.settings),
            "load_ms": (time.perf_counter_ns() - begun) / 1e6,
            "memory_before_mib": before,
        }

    def infer(self, arguments: Arguments) -> Arguments:
        """Run all images of npy file ``inputs`` (n, C, H, W) and write their logits (n, classes) to ``outputs``."""
        session = self._opened()
        images = np.load(arguments["inputs"], mmap_mode="r")
        batch = session.batch or min(len(images), int(arguments.get("batch", 32)))
        logits = []
        for start in range(0, len(images), batch):
            part = np.asarray(images[start : start + batch])
            full = part
            if session.batch and len(part) < batch:  # a static batch: fill up with the last image, cut off below
                full = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
            session.bind(full)
            session.run()
            logits.append(session.fetch()[: len(part)])
        np.save(arguments["outputs"], np.concatenate(logits).astype(np.float32))
        return {"n": len(images)}

    def warm_up(self, arguments: Arguments) -> Arguments:
        """Bind the images of ``inputs`` and run until steady; the first run is timed for itself."""
        self._first = np.load(arguments["inputs"])
        self._opened().bind(self._first)
        (first_ms,) = stopwatch.sample_ms(self._opened().run, 1)
        ended = stopwatch.warm_up(self._timed(arguments["span"]), limit_s=arguments["limit_s"])
        peak = environment.peak_memory_mib()
        return {"runs": 1 + ended.runs, "steady": ended.steady, "first_ms": first_ms, "peak_memory_mib": peak}

    def profile(self, arguments: Arguments) -> Arguments:
        """Time each layer of an engine over ``runs`` runs on the images of ``inputs``; nothing stays open."""
        name = arguments["engine"]
        engine = engines.CATALOGUE.get(name)
        if engine.profile is None:
            raise StageError(f"worker: engine '{name}' does not time its layers")
        options = codec.from_json(engine.options, arguments["options"], f"engine '{name}'")
        trace = engine.profile(Path(arguments["path"]), options, np.load(arguments["inputs"]), arguments["runs"])
        return {"trace": codec.to_json(trace)}

    def time(self, arguments: Arguments) -> Arguments:
        """Take ``n`` samples after one discarded run."""
        run = self._timed(arguments["span"])
        run()
        return {"samples_ms": stopwatch.sample_ms(run, arguments["n"])}

    def environment(self, arguments: Arguments) -> Arguments:
        """Describe this machine."""
        return {"environment": codec.to_json(environment.describe())}

    def _opened(self) -> engines.Session:
        if self._session is None:
            raise StageError("worker: no engine is open")
        return self._session

    def _timed(self, span: str) -> Callable[[], None]:
        session, image = self._opened(), self._first
        if span == "compute":
            return session.run
        if image is None:
            raise StageError("worker: time was asked for before warm_up")

        def whole() -> None:
            session.bind(image)
            session.run()
            session.fetch()

        return whole


def serve(jobs: TextIO, replies: TextIO) -> None:
    """Answer jobs until the input ends."""
    worker = Worker()
    for line in jobs:
        job = read_job(line)
        try:
            operation = worker.operations.get(job.op)
            if operation is None:
                raise StageError(f"worker: no operation is called '{job.op}'")
            reply = Reply(result=operation(job.arguments))
        except DeployKitError as error:
            reply = failure(error)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            hint = "free some space, or choose another folder with --store" if error.errno in _FULL else ""
            reply = failure(StoreError(f"{where}{error.strerror or error} (in '{job.op}')", hint=hint))
        except Exception as error:  # noqa: BLE001  # the host must hear of a bug too, with where it happened
            at = traceback.extract_tb(error.__traceback__)[-1]
            text = f"worker: {type(error).__name__} in '{job.op}' at {Path(at.filename).name}:{at.lineno}: {error}"
            reply = failure(StageError(text))
        replies.write(reply_line(reply))
        replies.flush()


def main() -> None:
    """Serve on standard input and output; whatever else prints to standard output goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
