"""NVIDIA GPUs by the driver's library NVML: energy, power, clock, temperature and reasons for throttling.

The library is loaded with ctypes, so that no package is needed. On Jetson it loads and then answers "not supported" to
all of this (`ina` and `tegra` read what is there); a value that it does not give is left out, never 0.
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
# nvmlClocksEventReasons, those that slow a busy GPU down; idleness and clocks set by a user are not among them.
_REASONS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class _Library:
    """NVML, initialized, with a handle for each GPU."""

    def __init__(self) -> None:
        """Load and initialize the library.

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
        code = self._nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle))
        return handle if code == 0 else None

    def query(
        self, function: str, gpu: ctypes.c_void_p, *arguments: int, kind: type[Any] = ctypes.c_uint
    ) -> int | None:
        """Return the number that a function of NVML gives; None where this GPU or driver does not support it."""
        value = kind()
        code = getattr(self._nvml, function)(gpu, *map(ctypes.c_uint, arguments), ctypes.byref(value))
        return int(value.value) if code == 0 else None

    def is_split(self, gpu: ctypes.c_void_p) -> bool:
        """Return whether the GPU is split into instances (MIG)."""
        now, later = ctypes.c_uint(), ctypes.c_uint()
        return self._nvml.nvmlDeviceGetMigMode(gpu, ctypes.byref(now), ctypes.byref(later)) == 0 and now.value == 1


@functools.cache
def _library() -> _Library | str:
    try:
        return _Library()
    except OSError as error:
        return str(error)


def _opened(scope: GaugeScope) -> _Library | None:
    """Return the library of this machine; None where it does not load, or for a recorded tree, which has none."""
    library = _library() if scope.root == Path("/") else ""
    return library if isinstance(library, _Library) else None


def _readings_of(library: _Library, index: int, gpu: ctypes.c_void_p) -> Iterator[Reading]:
    name = f"gpu{index}"
    wide = ctypes.c_ulonglong
    energy_mj = library.query("nvmlDeviceGetTotalEnergyConsumption", gpu, kind=wide)
    power_mw = library.query("nvmlDeviceGetPowerUsage", gpu)
    clock_mhz = library.query("nvmlDeviceGetClockInfo", gpu, _SM)
    temperature_c = library.query("nvmlDeviceGetTemperature", gpu, _GRAPHICS_CORE)
    reasons = library.query("nvmlDeviceGetCurrentClocksThrottleReasons", gpu, kind=wide)
    if energy_mj is not None:
        yield Reading(gauge="nvml", what=name, kind="energy_uj", value=1000.0 * energy_mj)
    elif power_mw is not None:  # GPUs before Volta have no energy counter
        yield Reading(gauge="nvml", what=name, kind="power_mw", value=power_mw)
    if clock_mhz is not None:
        yield Reading(gauge="nvml", what=name, kind="clock_mhz", value=clock_mhz, processor="gpu")
    if temperature_c is not None:
        yield Reading(gauge="nvml", what=name, kind="temperature_c", value=temperature_c)
    if reasons is not None:
        for bit, word in _REASONS.items():
            yield Reading(gauge="nvml", what=f"{name} {word}", kind="throttle_flag", value=bool(reasons & bit))


def read(scope: GaugeScope) -> tuple[Reading, ...]:
    """Read every GPU."""
    library = _opened(scope)
    if library is None:
        return ()
    return tuple(reading for index, gpu in enumerate(library.gpus) for reading in _readings_of(library, index, gpu))


def why_unavailable(scope: GaugeScope) -> str:
    """Return why it reads nothing."""
    library = _library() if scope.root == Path("/") else "a recorded tree has no driver"
    if isinstance(library, str):
        return library
    return "" if read(scope) else "NVML loads and answers nothing: not supported by this GPU (Jetson) or none is there"


def settings(scope: GaugeScope) -> Pairs:
    """Return which GPUs are split (MIG); their clock and energy are those of the whole GPU."""
    library = _opened(scope)
    split = [index for index, gpu in enumerate(library.gpus) if library.is_split(gpu)] if library else []
    return tuple((f"gpu{index} MIG", "on: clock and energy are of the whole GPU") for index in split)


def advice(scope: GaugeScope) -> tuple[str, ...]:
    """Recommend locking the clock of each GPU at its highest."""
    library = _opened(scope)
    if library is None:
        return ()
    highest = [library.query("nvmlDeviceGetMaxClockInfo", gpu, _SM) for gpu in library.gpus]
    return tuple(f"sudo nvidia-smi -i {index} -lgc {mhz}" for index, mhz in enumerate(highest) if mhz)


GAUGE = Gauge(read=read, why_unavailable=why_unavailable, settings=settings, advice=advice, measures_energy=True)
