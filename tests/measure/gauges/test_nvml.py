"""NVML: what a driver answers, and what a Jetson's does not. The library itself is a stand-in."""

from collections.abc import Callable
from typing import Any

import pytest

from deploy_kit.measure.gauges import GaugeScope, nvml

ANSWERS = {
    "nvmlDeviceGetTotalEnergyConsumption": 123_456,
    "nvmlDeviceGetPowerUsage": 61_500,
    "nvmlDeviceGetClockInfo": 1410,
    "nvmlDeviceGetMaxClockInfo": 1980,
    "nvmlDeviceGetTemperature": 41,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0x20 | 0x01,  # thermal; and idle, which slows nothing down
}
Fake = Callable[..., None]


class Driver(nvml._Library):
    """Answers from a table; what is not in it is not supported."""

    def __init__(self, answers: dict[str, int], *, split: bool = False) -> None:
        self.gpus = [None]  # type: ignore[list-item]
        self.answers = answers
        self.split = split

    def query(self, function: str, gpu: Any, *arguments: int, kind: type[Any] = int) -> int | None:
        return self.answers.get(function)

    def is_split(self, gpu: Any) -> bool:
        return self.split


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Fake:
    def install(answers: dict[str, int], *, split: bool = False) -> None:
        monkeypatch.setattr(nvml, "_library", lambda: Driver(answers, split=split))

    return install


def test_the_energy_counter_comes_before_the_power(driver: Fake) -> None:
    driver(ANSWERS)

    found = {(r.kind, r.what): r.value for r in nvml.read(GaugeScope())}

    assert found["energy_uj", "gpu0"] == 123_456_000
    assert ("power_mw", "gpu0") not in found
    assert (found["clock_mhz", "gpu0"], found["temperature_c", "gpu0"]) == (1410, 41)


def test_only_what_slows_a_busy_gpu_down_is_throttling(driver: Fake) -> None:
    driver(ANSWERS)

    flags = {r.what for r in nvml.read(GaugeScope()) if r.kind == "throttle_flag" and r.value}

    assert flags == {"gpu0 software thermal slowdown"}


def test_a_gpu_without_a_counter_gives_power(driver: Fake) -> None:
    driver({name: value for name, value in ANSWERS.items() if "Energy" not in name})

    assert ("power_mw", 61_500) in {(r.kind, r.value) for r in nvml.read(GaugeScope())}


def test_it_counts_among_the_gauges_of_energy(driver: Fake) -> None:
    assert nvml.GAUGE.measures_energy


def test_a_jetson_whose_driver_answers_nothing_has_no_readings_and_no_zeros(driver: Fake) -> None:
    driver({})

    assert nvml.read(GaugeScope()) == ()
    assert nvml.why_unavailable(GaugeScope()) == (
        "NVML loads and answers nothing: not supported by this GPU (Jetson) or none is there"
    )


def test_a_split_gpu_is_said(driver: Fake) -> None:
    driver(ANSWERS, split=True)

    assert nvml.settings(GaugeScope()) == (("gpu0 MIG", "on: clock and energy are of the whole GPU"),)


def test_the_clock_is_recommended_to_be_locked(driver: Fake) -> None:
    driver(ANSWERS)

    assert nvml.advice(GaugeScope()) == ("sudo nvidia-smi -i 0 -lgc 1980",)


def test_without_a_driver_the_loader_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_LIBRARY", "libno-such-nvml.so.1")
    nvml._library.cache_clear()

    why = nvml.why_unavailable(GaugeScope())
    nvml._library.cache_clear()

    assert why.startswith("libno-such-nvml.so.1: cannot open shared object file")
