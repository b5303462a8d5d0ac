"""OpenVINO for this bundle: what `predict.py` runs its tensors with."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def open_engine(path: Path, manifest: dict[str, Any], options: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Load the file.

    Args:
        path: The engine's file.
        manifest: What the bundle says of itself.
        options: Options in place of the manifest's: ``threads`` (0: every core), ``inference_precision``, ``device``.

    Returns:
        Inputs (N, …) → outputs (N, K).
    """
    # Its import tells an analytics host of itself and writes ~/intel, unless the package that does so is not there.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    chosen = {**manifest["engine"]["options"], **options}
    device = chosen["device"].upper()
    properties = {"INFERENCE_PRECISION_HINT": chosen["inference_precision"], "PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        properties["INFERENCE_NUM_THREADS"] = chosen["threads"] or len(os.sched_getaffinity(0))
    compiled = openvino.Core().compile_model(path, device, properties)
    request = compiled.create_infer_request()
    return lambda tensors: request.infer({0: tensors})[0].copy()  # the next run writes into the same memory
