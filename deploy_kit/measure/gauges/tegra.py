"""Jetson: clock of the GPU, power mode, and whether the clocks are locked. Plain files: no root, no `nvpmodel` call.

The power mode in force is in ``/var/lib/nvpmodel/status`` (``pmode:0002``), the modes are in ``/etc/nvpmodel.conf``.
The fastest is called MAXN…, whatever its number: 0 on AGX Orin, 2 on Orin Nano Super. Beside clocks a mode sets a mask
of the GPU's clusters that are off and a cap on the memory's clock; where each is depends on the kernel (L4T 35 or
later). On L4T 35 the GPU's clock limits may read the same whether its clock is locked or not.
"""

import re
from pathlib import Path

from deploy_kit.measure.gauges import Gauge, GaugeScope, Pairs
from deploy_kit.measure.gauges._files import read_number, read_text
from deploy_kit.records.readings import Reading

_MODE = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", re.MULTILINE)
_TPC_MASKS = ("sys/devices/platform/gpu.0/tpc_pg_mask", "sys/devices/gpu.0/tpc_pg_mask")
_MEMORY_CAPS = ("sys/kernel/nvpmodel_clk_cap/emc", "sys/kernel/nvpmodel_emc_cap/emc_iso_cap")
_GPU = re.compile(r"\.gpu$|^gpu-gpc-0$|\.(gv11b|ga10b)$")


def _gpu(place: GaugeScope) -> Path | None:
    devices = sorted((place.root / "sys/class/devfreq").glob("*"))
    return next((device for device in devices if _GPU.search(device.name)), None)


def gpu_max_mhz(place: GaugeScope) -> float:
    """Give the clock that the power mode in force allows the GPU; 0 where it is not said."""
    device = _gpu(place)
    hertz = read_number(device / "max_freq") if device else None
    return hertz / 1e6 if hertz else 0.0


def gpu_tpc_mask(place: GaugeScope) -> int:
    """Give a bit for each cluster of the GPU that the power mode switches off; 0 where it is not said."""
    return int(_first(place, _TPC_MASKS))


def memory_max_mhz(place: GaugeScope) -> float:
    """Give the clock that the power mode allows the memory; 0 where it is not said."""
    return _first(place, _MEMORY_CAPS) / 1e6


def _first(place: GaugeScope, names: tuple[str, ...]) -> float:
    """Give the first of these files' numbers that is above 0; 0 where none is."""
    return next((found for name in names if (found := read_number(place.root / name) or 0) > 0), 0)


def _modes(place: GaugeScope) -> dict[int, str]:
    return {int(number_): name for number_, name in _MODE.findall(read_text(place.root / "etc/nvpmodel.conf"))}


def _mode(place: GaugeScope) -> int | None:
    found = re.search(r"pmode:(\d+)", read_text(place.root / "var/lib/nvpmodel/status"))
    return int(found.group(1)) if found else None


def _locked(place: GaugeScope) -> bool | None:
    """Say whether the GPU's clock is locked, as `jetson_clocks` does it; None where it is not said."""
    device = _gpu(place)
    least, most = (read_number(device / name) for name in ("min_freq", "max_freq")) if device else (None, None)
    return None if least is None or most is None else least == most


def read(place: GaugeScope) -> tuple[Reading, ...]:
    """Read the present clock of the GPU."""
    device = _gpu(place)
    hertz = read_number(device / "cur_freq") if device else None
    return () if hertz is None else (Reading(gauge="tegra", what="gpu", kind="clock_mhz", value=hertz / 1e6),)


def why_unavailable(place: GaugeScope) -> str:
    """Say why it reads nothing."""
    return "" if read(place) or _mode(place) is not None else "no Jetson"


def settings(place: GaugeScope) -> Pairs:
    """Give the power mode, the GPU's clock limit and whether clocks are locked."""
    mode, most, locked = _mode(place), gpu_max_mhz(place), _locked(place)
    pairs = []
    if mode is not None:
        pairs.append(("power mode", f"{_modes(place).get(mode, 'unknown')} ({mode})"))
    if most:
        pairs.append(("GPU clock limit", f"{most:.0f} MHz"))
    if locked is not None:
        pairs.append(("GPU clock locked", "yes" if locked else "no"))
    return tuple(pairs)


def advice(place: GaugeScope) -> tuple[str, ...]:
    """Recommend the fastest power mode and locked clocks."""
    mode, commands = _mode(place), []
    fastest = next((n for n, name in _modes(place).items() if name.startswith("MAXN")), 0)
    if mode is not None and mode != fastest:
        commands.append(f"sudo nvpmodel -m {fastest}")
    if _locked(place) is False:
        commands.append("sudo jetson_clocks")
    return tuple(commands)


GAUGE = Gauge(read=read, why_unavailable=why_unavailable, settings=settings, advice=advice)
