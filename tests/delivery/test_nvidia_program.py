"""`engine.py` of a TensorRT bundle against a driver and a TensorRT that compute nothing: order, types, refusals."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_tensorrt import FakeEngine, fake_tensorrt

from deploy_kit.delivery.runtimes import CATALOGUE, FILES
from deploy_kit.records.artifacts import Artifact, BareInput, BuiltFor

if TYPE_CHECKING:
    from fake_driver import Driver

pytest_plugins = ["fake_driver"]

MANIFEST = {
    "engine": {"package": "tensorrt", "options": {}, "rebuild": "deploykit build graph/model.onnx --engine tensorrt"},
    "inputs": [{"name": "input"}],
    "outputs": [{"name": "logits"}],
}


def opened(engine: FakeEngine | None, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "model.plan").write_bytes(b"plan")
    module = fake_tensorrt(engine)
    module.__name__, module.Logger = "tensorrt", lambda level: SimpleNamespace(log=lambda *words: None)
    module.Logger.ERROR = "error"
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    program = runpy.run_path(str(FILES / "nvidia" / "engine.py"))
    program["_call"].__globals__["LIBRARY"] = str(compiled)
    return program["open_engine"](tmp_path / "model.plan", MANIFEST, {})


@pytest.mark.parametrize("dtypes", [("FLOAT", "FLOAT"), ("HALF", "FLOAT"), ("FLOAT", "HALF"), ("UINT8", "FLOAT")])
def test_what_goes_in_is_computed_and_memory_is_given_back(
    dtypes: tuple[str, str], driver: "Driver", compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(FakeEngine(dtypes), compiled, tmp_path, monkeypatch)
    image = np.arange(6, dtype=np.float32).reshape(2, 3)

    for _ in range(2):
        np.testing.assert_array_equal(run(image), image * 2)

    calls = [line.split()[0] for line in driver.calls]
    assert calls.count("cuMemAlloc_v2") == calls.count("cuMemFree_v2") == 4
    assert calls.index("cuStreamSynchronize") > calls.index("cuMemcpyDtoHAsync_v2")


def test_a_failed_call_is_named_and_leaves_no_memory(
    driver: "Driver", compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(FakeEngine(), compiled, tmp_path, monkeypatch)
    _ = driver.calls
    driver.fail("cuMemcpyHtoDAsync_v2", 700)

    with pytest.raises(RuntimeError, match="cuMemcpyHtoDAsync_v2: CUDA error 700"):
        run(np.zeros((2, 3), np.float32))

    assert [line.split()[0] for line in driver.calls].count("cuMemFree_v2") == 2


def test_a_plan_of_another_version_says_how_to_rebuild_it(
    driver: "Driver", compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r"cannot load it; rebuild it: deploykit build graph/model\.onnx"):
        opened(None, compiled, tmp_path, monkeypatch)


@pytest.mark.parametrize(("compatible", "exact"), [((), True), (("version",), False)])
def test_a_plan_needs_the_version_that_built_it(compatible: tuple[str, ...], exact: bool, tmp_path: Path) -> None:
    built = BuiltFor(
        package="tensorrt", version="10.3.0", capabilities=("8.7",), compatible=compatible, gpu="", driver="", host="",
        onnx_sha256="", engine_sha256="", options="{}",
    )  # fmt: skip
    engine = Artifact(
        kind="engine", name="int8", path="", sha256="", size_bytes=0, precision="int8", inputs=(), outputs=(),
        preprocess=BareInput(shape=(1,)), stage="build", parent="", engine="tensorrt", built=built,
    )  # fmt: skip

    need = CATALOGUE.get("tensorrt").needs(engine, tmp_path, "10.3.0")

    assert (need.minimum, need.exact) == ("10.3.0", exact)
