"""ONNX Runtime for this bundle: what `predict.py` runs its tensors with."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def open_engine(path: Path, manifest: dict[str, Any], options: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Load the file.

    Args:
        path: The engine's file.
        manifest: What the bundle says of itself.
        options: Options in place of the manifest's: ``threads`` (0: every core), ``optimize``, ``device``.

    Returns:
        Inputs (N, …) → outputs (N, K).
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would send events to its maker
    import onnxruntime

    chosen = {**manifest["engine"]["options"], **options}
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = chosen["threads"] or len(os.sched_getaffinity(0))
    settings.log_severity_level = 3
    # x64 without VNNI adds two products of uint8 and int8 in 16 bits, which saturate unless the weights leave room, as
    # this file then says; with this it adds them in 32.
    fits = b"deploykit.sums_fit_16_bits" in path.read_bytes()
    settings.add_session_config_entry("session.x64quantprecision", "0" if fits else "1")
    if not chosen["optimize"]:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    kind, _, number = chosen["device"].partition(":")
    asked = [("CUDAExecutionProvider", {"device_id": int(number or 0)})] if kind == "cuda" else []
    providers = [*asked, "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:  # each release raises classes of its own
        if "replace the existing tensor" not in str(error):
            raise
        settings.add_session_config_entry(
            "session.x64quantprecision", "0"
        )  # it takes no weights that share a zero point
        session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
    if asked and session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError(f"asked for {chosen['device']}, ONNX Runtime fell back to {session.get_providers()[0]}")
    name = session.get_inputs()[0].name
    return lambda tensors: session.run(None, {name: tensors})[0]
