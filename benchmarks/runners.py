"""Opens a file on its engine: deploykit's own sessions, and torch behind the same three methods."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.candidates import Unavailable
from deploy_kit import checkpoint, engines
from deploy_kit.engines import Session
from deploy_kit.records import codec

_NO_COMPILER = "No working C++ compiler"  # torch._inductor.exc.InvalidCxxCompiler, inside what dynamo raises


class _Torch:
    """A checkpoint in torch, behind the `Session` seam."""

    def __init__(self, path: Path, threads: int, compiled: bool) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self._model: Any = checkpoint.read_checkpoint(path).model
        if compiled:
            # Freezing takes the weights for constants, as every other engine does.
            self._model = torch.compile(self._model, options={"freezing": True})
        self.batch = 0
        self.settings: Mapping[str, str] = {"threads": str(torch.get_num_threads())}

    def bind(self, image: np.ndarray) -> None:
        self._image = self._torch.from_numpy(image)

    def run(self) -> None:
        try:
            with self._torch.no_grad():
                self._logits = self._model(self._image)
        except RuntimeError as error:
            if _NO_COMPILER in str(error):
                raise Unavailable("torch.compile needs a C++ compiler, and this machine has none") from error
            raise

    def fetch(self) -> np.ndarray:
        return np.asarray(self._logits.numpy())


def open_session(engine: str, path: str, options: dict[str, Any], threads: int) -> Session:
    """Load a file; `threads` of one run."""
    if engine == "torch":
        return _Torch(Path(path), threads, bool(options.get("compiled")))
    entry = engines.CATALOGUE.get(engine)
    chosen = codec.from_json(entry.options, {**options, "threads": threads}, f"engine '{engine}'")
    return entry.open_session(Path(path), chosen)
