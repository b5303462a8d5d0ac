"""The timing cache: a file of its own for each version, GPU and driver; begun, reused, begun anew where foreign."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy_kit.engines import _cuda
from deploy_kit.engines._nvidia.timing_cache import TimingCache, timing_folder


class FakeConfig:
    """A builder config that adds one measurement to its cache and takes only caches of its own kind."""

    def __init__(self) -> None:
        self.data = b""

    def create_timing_cache(self, data: bytes) -> SimpleNamespace:
        return SimpleNamespace(data=data)

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
        if ignore_mismatch or cache.data.startswith(b"foreign"):
            return False
        self.data = cache.data
        return True

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: self.data + b"+")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def gpu(monkeypatch: pytest.MonkeyPatch, capability: str = "8.7", driver: str = "540.4, CUDA 12.6") -> None:
    found = _cuda.Gpu(name="Orin (nvgpu)", capability=capability, driver=driver)
    monkeypatch.setattr(_cuda, "device_or_none", lambda: found)


def built(version: str = "10.3.0") -> tuple[Path, str]:
    """Go through one build; give the cache's file and what was said."""
    cache, config = TimingCache("tensorrt", version), FakeConfig()
    cache.hand_to(config)
    return cache.path, cache.keep(config)


def test_the_first_build_begins_it_and_the_next_reuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch)

    (path, first), (_, second) = built(), built()

    assert (first, second) == (f"{path.name}: begun, 0 → 1 bytes", f"{path.name}: reused, 1 → 2 bytes")
    assert (path.parent, path.read_bytes()) == (timing_folder(), b"++")


def test_its_name_says_version_gpu_and_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch)

    assert built()[0].name == "tensorrt-10.3.0-sm8.7-Orin_nvgpu_-driver540.4_CUDA_12.6.cache"


def test_whatever_differs_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch)
    paths = {built()[0], built("11.4.0")[0]}
    gpu(monkeypatch, capability="9.0")
    paths.add(built()[0])
    gpu(monkeypatch, driver="580.95, CUDA 13.0")
    paths.add(built()[0])

    assert len(paths) == 4


def test_one_that_tensorrt_refuses_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch)
    path, _ = built()
    path.write_bytes(b"foreign")

    assert built()[1] == f"{path.name}: begun, 0 → 1 bytes"
    assert path.read_bytes() == b"+"
