"""The session of both NVIDIA engines against a driver and a TensorRT that compute nothing: order, types, refusals.

Nothing here has seen a GPU; tests marked `gpu` do.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fake_tensorrt import FakeEngine, fake_tensorrt

from deploy_kit.base import lazy
from deploy_kit.base.errors import BuildError, DeviceError, InputError
from deploy_kit.engines import tensorrt
from deploy_kit.engines._nvidia.options import TensorRtOptions
from deploy_kit.engines._nvidia.session import NvidiaSession

if TYPE_CHECKING:
    from fake_driver import Driver

pytest_plugins = ["fake_driver"]

IMAGE = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "model.plan"
    path.write_bytes(b"plan")
    return path


@pytest.fixture
def opened(plan: Path, driver: "Driver", monkeypatch: pytest.MonkeyPatch) -> object:
    """Open a session on a fake engine."""

    def open_it(engine: FakeEngine | None, **options: object) -> NvidiaSession:
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(engine))
        monkeypatch.setattr(lazy, "present", lambda package: True)
        return NvidiaSession(tensorrt._FLAVOUR, plan, TensorRtOptions(**options))

    return open_it


def whole(session: NvidiaSession, image: np.ndarray) -> np.ndarray:
    session.bind(image)
    session.run()
    return session.fetch()


def names(driver: "Driver") -> list[str]:
    return [line.split()[0] for line in driver.calls]


@pytest.mark.parametrize("dtypes", [("FLOAT", "FLOAT"), ("HALF", "FLOAT"), ("FLOAT", "HALF"), ("HALF", "HALF")])
def test_what_goes_in_is_computed_and_comes_out_as_float32(dtypes: tuple[str, str], opened: object) -> None:
    found = whole(opened(FakeEngine(dtypes), cuda_graph=False), IMAGE)

    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, IMAGE * 2)


def test_logits_fetched_once_stay_as_they_are(opened: object) -> None:
    session = opened(FakeEngine(), cuda_graph=False)
    first = whole(session, IMAGE)

    whole(session, IMAGE + 1)

    np.testing.assert_array_equal(first, IMAGE * 2)


def test_each_step_waits_for_the_stream_and_has_its_own_events(opened: object, driver: "Driver") -> None:
    session = opened(FakeEngine(), cuda_graph=False)
    _ = driver.calls
    steps = {}
    for name, step in {"bind": lambda: session.bind(IMAGE), "run": session.run, "fetch": session.fetch}.items():
        step()
        steps[name] = names(driver)

    around = ["cuEventRecord", "{}", "cuEventRecord", "cuStreamSynchronize"]
    assert steps == {
        "bind": [name.format("cuMemcpyHtoDAsync_v2") for name in around],
        "run": ["cuEventRecord", "cuEventRecord", "cuStreamSynchronize"],
        "fetch": [name.format("cuMemcpyDtoHAsync_v2") for name in around],
    }


def test_copies_and_computation_are_told_apart(opened: object) -> None:
    session = opened(FakeEngine(), cuda_graph=False)
    assert dict(session.device_ms) == {"h2d": 0.0, "compute": 0.0, "d2h": 0.0}

    whole(session, IMAGE)

    assert dict(session.device_ms) == {"h2d": 0.25, "compute": 0.25, "d2h": 0.25}  # the fake driver's clock ticks


def test_a_graph_is_captured_after_a_first_run_and_launched_from_then_on(opened: object, driver: "Driver") -> None:
    engine = FakeEngine()
    session = opened(engine, cuda_graph=True)
    session.bind(IMAGE)
    _ = driver.calls

    session.run()
    first = names(driver)
    session.run()

    assert first[:2] == ["cuStreamSynchronize", "cuStreamBeginCapture_v2"]
    assert first[-3:] == ["cuGraphLaunch", "cuEventRecord", "cuStreamSynchronize"]
    assert names(driver) == ["cuEventRecord", "cuGraphLaunch", "cuEventRecord", "cuStreamSynchronize"]
    assert len(engine.enqueued) == 2


def test_everything_runs_on_the_sessions_own_stream(opened: object) -> None:
    engine = FakeEngine()
    session = opened(engine, cuda_graph=False)

    whole(session, IMAGE)

    assert engine.enqueued == [session._cuda.stream_handle]
    assert engine.enqueued[0] != 0


def test_settings_say_what_ran_and_how(opened: object) -> None:
    settings = opened(FakeEngine(), cuda_graph=False).settings

    assert (settings["tensorrt"], settings["gpu"], settings["cuda_graph"]) == ("10.3.0", "Fake GPU (sm_87)", "off")
    assert opened(FakeEngine()).settings["cuda_graph"] == "on"


def test_a_fixed_batch_is_told_and_held(opened: object) -> None:
    session = opened(FakeEngine())

    assert session.batch == 2
    with pytest.raises(InputError, match="input 'input': expected shape 2x3, found 3x3"):
        session.bind(np.zeros((3, 3), np.float32))


@pytest.mark.parametrize("n", [1, 2, 4])
def test_an_open_batch_takes_what_its_profile_takes(n: int, opened: object) -> None:
    session = opened(FakeEngine(dynamic=True), cuda_graph=False)
    image = np.ones((n, 3), np.float32)

    assert session.batch == 0
    np.testing.assert_array_equal(whole(session, image), image * 2)


def test_an_open_batch_beyond_its_profile_is_refused_with_its_range(opened: object) -> None:
    with pytest.raises(InputError, match="input 'input': expected shape 1x3 to 4x3, found 5x3"):
        opened(FakeEngine(dynamic=True)).bind(np.ones((5, 3), np.float32))


def test_another_shape_is_captured_anew(opened: object, driver: "Driver") -> None:
    session = opened(FakeEngine(dynamic=True), cuda_graph=True)
    for n in (4, 1):
        session.bind(np.ones((n, 3), np.float32))
        session.run()

    calls = names(driver)
    assert calls.count("cuStreamBeginCapture_v2") == calls.count("cuGraphInstantiateWithFlags") == 2
    assert calls.count("cuGraphExecDestroy") == 1


def test_buffers_are_as_large_as_the_largest_shape(opened: object, driver: "Driver") -> None:
    opened(FakeEngine(("HALF", "FLOAT"), dynamic=True))

    sizes = [line for line in driver.calls if line.startswith("cuMemAlloc_v2")]
    assert sizes == [f"cuMemAlloc_v2 {4 * 3 * 2}", f"cuMemAlloc_v2 {4 * 3 * 4}"]


def test_a_refused_plan_says_so_in_the_librarys_words(opened: object, plan: Path) -> None:
    with pytest.raises(BuildError) as caught:
        opened(None)

    assert str(caught.value) == (
        f"{plan}: tensorrt 10.3.0 cannot load this plan: Version tag does not match. Current 213, Serialized 232"
    )
    assert caught.value.hint.endswith("build it again: deploykit build --engine tensorrt")


def test_a_run_that_fails_is_an_error(opened: object) -> None:
    session = opened(FakeEngine(works=False), cuda_graph=False)

    with pytest.raises(DeviceError, match="TensorRT could not run the plan"):
        session.run()


def test_a_type_that_numpy_lacks_is_named(opened: object) -> None:
    with pytest.raises(BuildError, match="tensor 'input' is of type fp8, which numpy has not") as caught:
        opened(FakeEngine(("FP8", "FLOAT")))

    assert caught.value.hint == "keep I/O in float32"
