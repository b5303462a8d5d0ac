"""ExecuTorch for this bundle: what `predict.py` runs its tensors with."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def open_engine(path: Path, manifest: dict[str, Any], options: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Load the program.

    Args:
        path: The engine's file.
        manifest: What the bundle says of itself.
        options: Options in place of the manifest's: ``threads`` (0: every core).

    Returns:
        Inputs (N, …) → outputs (N, K).
    """
    import torch  # its libraries are the runtime's

    with warnings.catch_warnings():  # it warns that its interface may change
        warnings.simplefilter("ignore")
        from executorch.extension.pybindings import portable_lib

    chosen = {**manifest["engine"]["options"], **options}
    portable_lib._unsafe_reset_threadpool(chosen["threads"] or len(os.sched_getaffinity(0)))
    data = path.read_bytes()  # the runtime reads the weights in these bytes and does not hold them
    whole = portable_lib.Verification.InternalConsistency
    method = portable_lib._load_program_from_buffer(data, program_verification=whole).load_method("forward")

    def run(tensors: np.ndarray, held: bytes = data) -> np.ndarray:
        return np.array(method([torch.from_numpy(np.ascontiguousarray(tensors))])[0].numpy())

    return run
