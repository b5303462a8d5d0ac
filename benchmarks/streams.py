"""Several streams: runs at the same time, each in a thread of its own with its share of the cores."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.candidates import Unavailable
from benchmarks.runners import open_session

RUNS = 8  # of each stream in one sample: handing work to the threads costs some 50 µs


def open_streams(
    engine: str, path: str, options: dict[str, Any], *, image: np.ndarray, threads: int, n_streams: int
) -> tuple[Callable[[], None], dict[str, str]]:
    """Load a file for several streams.

    ONNX Runtime gets a session a stream, with its share of the threads; OpenVINO one compiled model with as many
    streams, and an infer request for each.

    Returns:
        What runs `RUNS` times on every stream and returns when all have finished, and the settings.
    """
    if engine == "onnxruntime":
        runs, settings = _sessions(engine, path, options, image, threads // n_streams, n_streams)
    elif engine == "openvino":
        runs, settings = _requests(path, options, image, threads, n_streams)
    else:
        raise Unavailable("not measured with streams")
    pool = ThreadPoolExecutor(n_streams)

    def stream(run: Callable[[], None]) -> None:
        for _ in range(RUNS):
            run()

    def together() -> None:
        for done in [pool.submit(stream, run) for run in runs]:
            done.result()

    return together, settings


def _sessions(
    engine: str, path: str, options: dict[str, Any], image: np.ndarray, threads: int, n: int
) -> tuple[list[Callable[[], None]], dict[str, str]]:
    sessions = [open_session(engine, path, options, threads) for _ in range(n)]
    for session in sessions:
        session.bind(image)
    return [session.run for session in sessions], {**sessions[0].settings, "streams": str(n)}


def _requests(
    path: str, options: dict[str, Any], image: np.ndarray, threads: int, n: int
) -> tuple[list[Callable[[], None]], dict[str, str]]:
    import openvino

    properties = {
        "INFERENCE_PRECISION_HINT": options.get("inference_precision", "f32"),
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": n,
    }
    compiled = openvino.Core().compile_model(path, "CPU", properties)
    requests = [compiled.create_infer_request() for _ in range(n)]
    for request in requests:
        request.set_input_tensor(openvino.Tensor(image, shared_memory=False))
    settings = {
        "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")),
        "streams": str(compiled.get_property("NUM_STREAMS")),
        "inference_precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string(),
    }
    return [request.infer for request in requests], settings
