"""The program that runs on the target: jobs in, replies out, one line of JSON each.

Needs the standard library, numpy and the engine's own package. Native code lives and dies here.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from deploy_kit import codec, engines, environment, images, stopwatch
from deploy_kit.errors import DeployKitError, StageError, StoreError
from deploy_kit.records import Preprocess
from deploy_kit.watch import Event, Watch, silent
from deploy_kit.wire import Reply, failure, progress_line, read_job, reply_line

Arguments = dict[str, Any]
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Worker:
    """One open session at most, and the operations on it."""

    def __init__(self, watch: Watch = silent) -> None:
        """Start with nothing open; `watch` hears of the progress of long operations."""
        self._watch = watch
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
        built = engine.build(Path(arguments["onnx"]), folder, options, self._watch)
        proof = engine.prove_precision(folder / engine.file_name, options)
        return {"proof": codec.to_json(proof), "built": codec.to_json(built)}

    def open(self, arguments: Arguments) -> Arguments:
        """Load an engine; answer with its batch and settings."""
        engine = engines.CATALOGUE.get(arguments["engine"])
        options = codec.from_json(engine.options, arguments["options"], f"engine '{arguments['engine']}'")
        self._session = engine.open_session(Path(arguments["path"]), options)
        return {"batch": self._session.batch, "settings": dict(self._session.settings)}

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
        """Bind the images of ``inputs`` and run until steady."""
        self._first = np.load(arguments["inputs"])
        self._opened().bind(self._first)
        ended = stopwatch.warm_up(self._timed(arguments["span"]), limit_s=arguments["limit_s"])
        return {"runs": ended.runs, "steady": ended.steady}

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

    def tell(event: Event) -> None:
        replies.write(progress_line(event))
        replies.flush()

    worker = Worker(tell)
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
