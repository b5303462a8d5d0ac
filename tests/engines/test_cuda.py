"""The CUDA driver through ctypes, against a driver compiled from C: argument types, order of calls, errors by name.

Nothing here has seen a GPU.
"""

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy_kit.base.errors import DeviceError
from deploy_kit.engines import _cuda

if TYPE_CHECKING:
    from fake_driver import Driver

pytest_plugins = ["fake_driver"]


def test_each_call_of_the_table_exists_in_the_driver(driver: "Driver", compiled: Path) -> None:
    library = ctypes.CDLL(str(compiled))
    source = Path(__file__).parents[1].joinpath("support/fake_cuda.c").read_text()

    assert [name for name in _cuda._SIGNATURES if not hasattr(library, name)] == []
    assert all(f"CUresult {name}(" in source for name in _cuda._SIGNATURES)


def test_the_gpu_is_described_by_the_driver(driver: "Driver") -> None:
    found = _cuda.device_or_none()

    assert found is not None
    assert (found.name, found.capability, found.driver.endswith("CUDA 12.6")) == ("Fake GPU", "8.7", True)


def test_a_context_is_current_before_its_stream_is_made(driver: "Driver") -> None:
    _cuda.CudaContext()

    names = [line.split()[0] for line in driver.calls]
    assert names == ["cuInit", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuStreamCreate"]


def test_what_is_copied_in_comes_out_again(driver: "Driver") -> None:
    context = _cuda.CudaContext()
    device, host = context.allocate(1 << 20), context.allocate_host(1 << 20)
    ctypes.memset(host, 7, 1 << 20)
    context.copy_in(device, host, 1 << 20)
    ctypes.memset(host, 0, 1 << 20)

    context.copy_out(host, device, 1 << 20)

    assert ctypes.string_at(host, 1 << 20) == bytes([7]) * (1 << 20)
    assert driver.calls[-1] == f"cuMemcpyDtoHAsync_v2 {1 << 20} s"


def test_a_span_lies_between_its_two_events(driver: "Driver") -> None:
    context = _cuda.CudaContext()
    span = _cuda.EventPair(context)
    assert span.ms == 0.0
    with span.around():
        context.wait()

    assert span.ms == 0.25
    assert driver.calls[-4:] == [
        "cuEventRecord e s", "cuStreamSynchronize s", "cuEventRecord e s", "cuEventElapsedTime e e",
    ]  # fmt: skip


def test_a_graph_is_captured_instantiated_and_launched(driver: "Driver") -> None:
    context = _cuda.CudaContext()
    graph = _cuda.CudaGraph(context)
    assert not graph.captured
    _ = driver.calls
    with graph.capture():
        pass
    graph.launch()
    graph.drop()

    assert driver.calls == [
        "cuStreamBeginCapture_v2 s 1", "cuStreamEndCapture s", "cuGraphInstantiateWithFlags g 0", "cuGraphDestroy g",
        "cuGraphLaunch x s", "cuGraphExecDestroy x",
    ]  # fmt: skip
    assert not graph.captured


def test_a_capture_that_fails_is_ended_all_the_same(driver: "Driver") -> None:
    graph = _cuda.CudaGraph(_cuda.CudaContext())
    with pytest.raises(RuntimeError), graph.capture():
        raise RuntimeError

    assert driver.calls[-1] == "cuStreamEndCapture s"
    assert not graph.captured


@pytest.mark.parametrize(("code", "words"), [(2, "CUDA_ERROR_OUT_OF_MEMORY (2)"), (999, "error 999")])
def test_an_error_is_told_by_its_name(code: int, words: str, driver: "Driver") -> None:
    context = _cuda.CudaContext()
    driver.fail("cuMemAlloc_v2", code)

    with pytest.raises(DeviceError) as caught:
        context.allocate(1 << 40)

    assert str(caught.value) == f"CUDA: cuMemAlloc_v2 answered with {words}"


def test_a_driver_that_does_not_start_is_a_reason_in_words(driver: "Driver") -> None:
    driver.fail("cuInit", 700)

    assert _cuda.why_no_cuda() == "CUDA: cuInit answered with CUDA_ERROR_ILLEGAL_ADDRESS (700)"
    assert _cuda.device_or_none() is None


def test_an_old_driver_is_told_what_it_lacks(tmp_path: Path, driver: "Driver", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "LIBRARY", "libm.so.6")

    with pytest.raises(DeviceError, match="this driver has no 'cuInit'") as caught:
        _cuda.call_driver("cuInit", 0)

    assert caught.value.hint == "install a driver for CUDA 12 or later"


def test_no_driver_is_no_gpu(driver: "Driver", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "LIBRARY", "libnone.so.1")

    assert _cuda.why_no_cuda() == "no NVIDIA GPU on this machine"
