"""Jetson: clock of the GPU, power mode, and whether clocks are locked. Reads plain files, without root or `nvpmodel`.

The power mode in force is in ``/var/lib/nvpmodel/status`` (``pmode:0002``), the modes are in ``/etc/nvpmodel.conf``.
The fastest is called MAXN…, whatever its number: 0 on AGX Orin, 2 on Orin Nano Super. Beside clocks, a mode sets a mask
of the GPU's clusters that are switched off and a limit of the memory clock, in files that depend on the kernel (L4T 35
or later). On L4T 35 the GPU's clock limits may read the same whether its clock is locked or not.
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


def _gpu(scope: GaugeScope) -> Path | None:
    devices = sorted((scope.root / "sys/class/devfreq").glob("*"))
    return next((device for device in devices if _GPU.search(device.name)), None)


def gpu_max_mhz(scope: GaugeScope) -> float:
    """Return the highest GPU clock in MHz that the power mode in force allows; 0 where it is not known."""
    device = _gpu(scope)
    hertz = read_number(device / "max_freq") if device else None
    return hertz / 1e6 if hertz else 0.0


def gpu_tpc_mask(scope: GaugeScope) -> int:
    """Return a bit for each cluster of the GPU that the power mode switches off; 0 where it is not known."""
    return int(_first_number(scope, _TPC_MASKS))


def memory_max_mhz(scope: GaugeScope) -> float:
    """Return the highest memory clock in MHz that the power mode in force allows; 0 where it is not known."""
    return _first_number(scope, _MEMORY_CAPS) / 1e6


def _first_number(scope: GaugeScope, names: tuple[str, ...]) -> float:
    """Return the first number in these files that is above 0; 0 where none is."""
    return next((number for name in names if (number := read_number(scope.root / name) or 0) > 0), 0)


def _modes(scope: GaugeScope) -> dict[int, str]:
    return {int(number): name for number, name in _MODE.findall(read_text(scope.root / "etc/nvpmodel.conf"))}


def _mode(scope: GaugeScope) -> int | None:
    status = re.search(r"pmode:(\d+)", read_text(scope.root / "var/lib/nvpmodel/status"))
    return int(status.group(1)) if status else None


def _locked(scope: GaugeScope) -> bool | None:
    """Return whether the GPU's clock is locked, as `jetson_clocks` locks it; None where it is not known."""
    device = _gpu(scope)
    least, most = (read_number(device / name) for name in ("min_freq", "max_freq")) if device else (None, None)
    return None if least is None or most is None else least == most


def read(scope: GaugeScope) -> tuple[Reading, ...]:
    """Read the momentary clock of the GPU."""
    device = _gpu(scope)
    hertz = read_number(device / "cur_freq") if device else None
    if hertz is None:
        return ()
    return (Reading(gauge="tegra", what="gpu", kind="clock_mhz", value=hertz / 1e6, processor="gpu"),)


def why_unavailable(scope: GaugeScope) -> str:
    """Return why it reads nothing."""
    return "" if read(scope) or _mode(scope) is not None else "no Jetson"


def settings(scope: GaugeScope) -> Pairs:
    """Return the power mode, the GPU's clock limit and whether its clock is locked."""
    mode, most, locked = _mode(scope), gpu_max_mhz(scope), _locked(scope)
    pairs = []
    if mode is not None:
        pairs.append(("power mode", f"{_modes(scope).get(mode, 'unknown')} ({mode})"))
    if most:
        pairs.append(("GPU clock limit", f"{most:.0f} MHz"))
    if locked is not None:
        pairs.append(("GPU clock locked", "yes" if locked else "no"))
    return tuple(pairs)


def advice(scope: GaugeScope) -> tuple[str, ...]:
    """Recommend the fastest power mode and locked clocks."""
    mode, commands = _mode(scope), []
    fastest = next((n for n, name in _modes(scope).items() if name.startswith("MAXN")), 0)
    if mode is not None and mode != fastest:
        commands.append(f"sudo nvpmodel -m {fastest}")
    if _locked(scope) is False:
        commands.append("sudo jetson_clocks")
    return tuple(commands)


GAUGE = Gauge(read=read, why_unavailable=why_unavailable, settings=settings, advice=advice)
