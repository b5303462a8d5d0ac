"""NVIDIA GPUs by the driver's own library NVML: energy, power, clock, temperature and what holds the clock back.

Loaded with ctypes, so that nothing needs to be installed. On Jetson the library loads and then answers "not supported"
to all of this (`ina` and `tegra` read what is there); what it does not answer is left out, never 0.
"""

import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy_kit.measure.gauges import Gauge, GaugeScope, Pairs
from deploy_kit.records.readings import Reading

_LIBRARY = "libnvidia-ml.so.1"
_GRAPHICS_CORE, _SM = 0, 1  # NVML_TEMPERATURE_GPU, NVML_CLOCK_SM
# nvmlClocksEventReasons: only what slows a busy GPU down; idleness and chosen clocks are not among them.
_REASONS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class _Library:
    """NVML, started, and a handle of each GPU."""

    def __init__(self) -> None:
        """Load and start it.

        Raises:
            OSError: There is no such library, or it finds no driver.
        """
        self._nvml = ctypes.CDLL(_LIBRARY)
        code = self._nvml.nvmlInit_v2()
        if code != 0:
            raise OSError(f"NVML does not start (code {code})")
        count = ctypes.c_uint()
        self._nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        self.gpus = [handle for index in range(count.value) if (handle := self._handle(index)) is not None]

    def _handle(self, index: int) -> ctypes.c_void_p | None:
        handle = ctypes.c_void_p()
        found = self._nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle))
        return handle if found == 0 else None

    def ask(self, function: str, gpu: ctypes.c_void_p, *arguments: int, kind: type[Any] = ctypes.c_uint) -> int | None:
        """Ask for one number; None where this GPU or driver does not say."""
        value = kind()
        asked = (ctypes.c_uint(argument) for argument in arguments)
        code = getattr(self._nvml, function)(gpu, *asked, ctypes.byref(value))
        return int(value.value) if code == 0 else None

    def mig(self, gpu: ctypes.c_void_p) -> bool:
        """Say whether the GPU is split into instances."""
        now, later = ctypes.c_uint(), ctypes.c_uint()
        return self._nvml.nvmlDeviceGetMigMode(gpu, ctypes.byref(now), ctypes.byref(later)) == 0 and now.value == 1


@functools.cache
def _library() -> _Library | str:
    try:
        return _Library()
    except OSError as error:
        return str(error)


def _opened(place: GaugeScope) -> _Library | None:
    """Give the library of this machine; a recorded tree has none."""
    library = _library() if place.root == Path("/") else ""
    return library if isinstance(library, _Library) else None


def _of(library: _Library, index: int, gpu: ctypes.c_void_p) -> Iterator[Reading]:
    name = f"gpu{index}"
    wide = ctypes.c_ulonglong
    energy_mj = library.ask("nvmlDeviceGetTotalEnergyConsumption", gpu, kind=wide)
    power_mw = library.ask("nvmlDeviceGetPowerUsage", gpu)
    clock_mhz = library.ask("nvmlDeviceGetClockInfo", gpu, _SM)
    temperature_c = library.ask("nvmlDeviceGetTemperature", gpu, _GRAPHICS_CORE)
    reasons = library.ask("nvmlDeviceGetCurrentClocksThrottleReasons", gpu, kind=wide)
    if energy_mj is not None:
        yield Reading(gauge="nvml", what=name, kind="energy_uj", value=1000.0 * energy_mj)
    elif power_mw is not None:  # no counter before Volta
        yield Reading(gauge="nvml", what=name, kind="power_mw", value=power_mw)
    if clock_mhz is not None:
        yield Reading(gauge="nvml", what=name, kind="clock_mhz", value=clock_mhz)
    if temperature_c is not None:
        yield Reading(gauge="nvml", what=name, kind="temperature_c", value=temperature_c)
    if reasons is not None:
        for bit, word in _REASONS.items():
            yield Reading(gauge="nvml", what=f"{name} {word}", kind="throttle_flag", value=bool(reasons & bit))


def read(place: GaugeScope) -> tuple[Reading, ...]:
    """Read every GPU."""
    library = _opened(place)
    if library is None:
        return ()
    return tuple(reading for index, gpu in enumerate(library.gpus) for reading in _of(library, index, gpu))


def why_unavailable(place: GaugeScope) -> str:
    """Say why it reads nothing."""
    library = _library() if place.root == Path("/") else "a recorded tree has no driver"
    if isinstance(library, str):
        return library
    return "" if read(place) else "NVML loads and answers nothing: not supported by this GPU (Jetson) or none is there"


def settings(place: GaugeScope) -> Pairs:
    """Say where a GPU is split: clocks and energy are then those of the whole GPU."""
    library = _opened(place)
    split = [index for index, gpu in enumerate(library.gpus) if library.mig(gpu)] if library else []
    return tuple((f"gpu{index} MIG", "on: clock and energy are of the whole GPU") for index in split)


def advice(place: GaugeScope) -> tuple[str, ...]:
    """Recommend to lock the clocks."""
    library = _opened(place)
    if library is None:
        return ()
    most = [library.ask("nvmlDeviceGetMaxClockInfo", gpu, _SM) for gpu in library.gpus]
    return tuple(f"sudo nvidia-smi -i {index} -lgc {mhz}" for index, mhz in enumerate(most) if mhz)


GAUGE = Gauge(read=read, why_unavailable=why_unavailable, settings=settings, advice=advice)
