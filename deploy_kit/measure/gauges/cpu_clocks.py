"""Clocks of the cores, from cpufreq. A virtual machine has none: its clock is the host's."""

from pathlib import Path

from deploy_kit.measure.gauges import Gauge, GaugeScope, Pairs
from deploy_kit.measure.gauges._files import read_number, read_text
from deploy_kit.records.readings import Reading

_CORES = "sys/devices/system/cpu"
_TURBO = {
    "intel_pstate/no_turbo": {"0": "on", "1": "off"},
    "cpufreq/boost": {"0": "off", "1": "on"},
}


def _policies(scope: GaugeScope) -> list[tuple[str, Path]]:
    found = ((core.parent.name, core) for core in (scope.root / _CORES).glob("cpu[0-9]*/cpufreq"))
    return sorted(pair for pair in found if not scope.cores or int(pair[0][3:]) in scope.cores)


def read(scope: GaugeScope) -> tuple[Reading, ...]:
    """Read the momentary clock of each core."""
    found = ((name, read_number(policy / "scaling_cur_freq")) for name, policy in _policies(scope))
    return tuple(
        Reading(gauge="cpu_clocks", what=name, kind="clock_mhz", value=khz / 1000, processor="cpu")
        for name, khz in found
        if khz is not None
    )


def why_unavailable(scope: GaugeScope) -> str:
    """Return why there are no clocks."""
    if read(scope):
        return ""
    virtual = "hypervisor" in read_text(scope.root / "proc/cpuinfo").split()
    return "no cpufreq here: the clock of a virtual machine is its host's" if virtual else "no cpufreq here"


def settings(scope: GaugeScope) -> Pairs:
    """Return governor, clock limits and turbo."""
    policies = [policy for _, policy in _policies(scope)]
    governors = sorted({read_text(policy / "scaling_governor") for policy in policies} - {""})
    least = [khz for policy in policies if (khz := read_number(policy / "scaling_min_freq")) is not None]
    most = [khz for policy in policies if (khz := read_number(policy / "scaling_max_freq")) is not None]
    turbo = [words.get(read_text(scope.root / _CORES / name), "") for name, words in _TURBO.items()]
    pairs = (
        ("governor", ", ".join(governors)),
        ("clock limits", f"{min(least) / 1000:.0f} to {max(most) / 1000:.0f} MHz" if least and most else ""),
        ("turbo", "".join(turbo)),
    )
    return tuple((name, value) for name, value in pairs if value)


def advice(scope: GaugeScope) -> tuple[str, ...]:
    """Recommend the governor that keeps the clock at its highest."""
    governor = dict(settings(scope)).get("governor", "performance")
    tegra = (scope.root / "etc/nv_tegra_release").exists()  # there jetson_clocks sets the governor
    return () if governor == "performance" or tegra else ("sudo cpupower frequency-set -g performance",)


GAUGE = Gauge(read=read, why_unavailable=why_unavailable, settings=settings, advice=advice)
