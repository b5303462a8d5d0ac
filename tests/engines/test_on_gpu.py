"""Plans on a real GPU: what they compute, how often the same, and what the session says of it.

`scripts/gpu_check` runs these and a bench; without a GPU they are skipped with the reason.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from deploy_kit import engines
from deploy_kit.accuracy import metrics
from deploy_kit.base.lazy import install_line, present
from deploy_kit.engines import _cuda
from deploy_kit.engines._nvidia.options import TensorRtOptions

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(_cuda.why_no_cuda()), reason=_cuda.why_no_cuda() or "there is a GPU"),
]

both_flavours = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(name, marks=pytest.mark.skipif(not present(name), reason=install_line(name)))
        for name in ("tensorrt", "tensorrt_rtx")
    ],
)
# SQNR over the checkpoint's logits: float32 may round to TF32 on Ampere and later, which keeps 10 bits.
LEAST_DB = {"fp32": 50, "fp16": 45, "int8-symmetric": 20}


def opened(line: "Line", name: str, engine: str, *, cuda_graph: bool = True, **options: Any) -> Any:
    entry = engines.CATALOGUE.get(engine)
    built = line.built(name, engine, **options)
    return entry.open_session(line.store.path(built), entry.options(cuda_graph=cuda_graph, **options))


def logits(session: Any, images: np.ndarray) -> np.ndarray:
    rows = []
    step = session.batch or len(images)
    for start in range(0, len(images), step):
        session.bind(images[start : start + step])
        session.run()
        rows.append(session.fetch())
    return np.concatenate(rows)


@both_flavours
@pytest.mark.parametrize("name", LEAST_DB)
def test_logits_are_those_of_torch(name: str, engine: str, line: "Line") -> None:
    found = logits(opened(line, name, engine), line.inputs())

    assert metrics.sqnr_db(line.logits(), found) > LEAST_DB[name]


@both_flavours
def test_without_tf32_float_logits_agree_closely(engine: str, line: "Line") -> None:
    found = logits(opened(line, "fp32", engine, no_tf32=True), line.inputs())

    assert metrics.relative_difference(line.logits(), found) < 1e-4


@both_flavours
@pytest.mark.parametrize("name", LEAST_DB)
def test_the_same_input_gives_the_same_bits_again(name: str, engine: str, line: "Line") -> None:
    session = opened(line, name, engine)

    np.testing.assert_array_equal(logits(session, line.inputs()), logits(session, line.inputs()))


@both_flavours
@pytest.mark.parametrize("name", LEAST_DB)
def test_a_captured_graph_computes_what_single_launches_do(name: str, engine: str, line: "Line") -> None:
    captured = logits(opened(line, name, engine, cuda_graph=True), line.inputs())

    single = logits(opened(line, name, engine, cuda_graph=False), line.inputs())

    np.testing.assert_array_equal(captured, single)


@both_flavours
def test_the_inspector_proves_the_precision(engine: str, line: "Line") -> None:
    proof = line.built("int8-symmetric", engine).proof

    assert proof is not None
    assert any((kind, dtype) == ("Conv", "int8") for kind, dtype, _ in proof.counts)


@both_flavours
def test_spans_of_the_device_are_timed(engine: str, line: "Line") -> None:
    session = opened(line, "fp32", engine)
    logits(session, line.inputs()[: session.batch])

    assert all(span > 0 for span in session.device_ms.values())


@both_flavours
def test_the_passport_names_this_gpu(engine: str, line: "Line") -> None:
    built, here = line.built("fp32", engine).built, _cuda.device_or_none()

    assert built is not None
    assert here is not None
    assert (built.gpu, built.driver, here.capability in built.capabilities) == (here.name, here.driver, True)


@pytest.mark.skipif(not present("tensorrt"), reason=install_line("tensorrt"))
def test_a_second_build_reuses_the_timing_cache(line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy_kit.engines import tensorrt

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = line.store.path(line.lean)
    said = [tensorrt.build(source, tmp_path, TensorRtOptions()).timing_cache for _ in range(2)]

    assert ["begun" in said[0], "reused" in said[1]] == [True, True]


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="this onnxruntime is built for processors alone",
)
def test_onnx_runtimes_logits_on_the_gpu_are_those_of_torch(line: "Line") -> None:
    built = line.built("fp32", "onnxruntime", device="cuda:0")
    entry = engines.CATALOGUE.get("onnxruntime")
    session = entry.open_session(line.store.path(built), entry.options(device="cuda:0"))

    assert session.settings["provider"] == "CUDAExecutionProvider"
    assert metrics.sqnr_db(line.logits(), logits(session, line.inputs())) > LEAST_DB["fp32"]
