"""A PC's clocks, counters and load, and a Raspberry Pi's flags: written trees, and this machine."""

import os
from pathlib import Path

import pytest
from trees import written

from deploy_kit.measure.gauges import GaugeScope, cpu_clocks, load, nvml, rapl, thermal, throttle
from deploy_kit.measure.gauges._files import why_unreadable

CPU = "sys/devices/system/cpu"
PACKAGE = "sys/class/powercap/intel-rapl:0"
RAPL = {
    f"{PACKAGE}/name": "package-0",
    f"{PACKAGE}/energy_uj": "262143000000",
    f"{PACKAGE}/max_energy_range_uj": "262143328850",
    f"{PACKAGE}:0/name": "core",
    f"{PACKAGE}:0/energy_uj": "7",
    "sys/class/powercap/intel-rapl-mmio:0/name": "package-0",
}


def clocks(*khz: int, governor: str = "powersave") -> dict[str, str]:
    files = {f"{CPU}/intel_pstate/no_turbo": "0"}
    for core, value in enumerate(khz):
        policy = f"{CPU}/cpu{core}/cpufreq"
        files |= {f"{policy}/scaling_cur_freq": str(value), f"{policy}/scaling_governor": governor}
        files |= {f"{policy}/scaling_min_freq": "400000", f"{policy}/scaling_max_freq": "4600000"}
    return files


def test_each_core_has_its_clock(tmp_path: Path) -> None:
    found = cpu_clocks.read(written(tmp_path, clocks(1800000, 3400123)))

    assert [(r.what, r.value) for r in found] == [("cpu0", 1800.0), ("cpu1", 3400.123)]


def test_only_the_cores_in_use_count(tmp_path: Path) -> None:
    written(tmp_path, clocks(1, 2, 3))

    assert [r.what for r in cpu_clocks.read(GaugeScope(root=tmp_path, cores=(1,)))] == ["cpu1"]


def test_governor_limits_and_turbo_are_settings(tmp_path: Path) -> None:
    assert cpu_clocks.settings(written(tmp_path, clocks(1800000))) == (
        ("governor", "powersave"),
        ("clock limits", "400 to 4600 MHz"),
        ("turbo", "on"),
    )


@pytest.mark.parametrize(
    ("governor", "advice"), [("powersave", ("sudo cpupower frequency-set -g performance",)), ("performance", ())]
)
def test_the_governor_is_recommended_and_not_set(tmp_path: Path, governor: str, advice: tuple[str, ...]) -> None:
    place = written(tmp_path, clocks(1800000, governor=governor))

    assert cpu_clocks.advice(place) == advice
    assert (tmp_path / f"{CPU}/cpu0/cpufreq/scaling_governor").read_text() == f"{governor}\n"


def test_a_virtual_machine_without_clocks_is_told_from_one_that_has_none(tmp_path: Path) -> None:
    place = written(tmp_path, {"proc/cpuinfo": "flags\t\t: fpu hypervisor avx2"})

    assert cpu_clocks.why_unavailable(place) == "no cpufreq here: the clock of a virtual machine is its host's"


def test_rapl_reads_packages_and_not_their_parts(tmp_path: Path) -> None:
    found = rapl.read(written(tmp_path, RAPL))

    assert [(r.what, r.value, r.wraps_at) for r in found] == [("package-0", 262143000000.0, 262143328850.0)]


def test_rapl_that_is_closed_says_its_mode_and_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = written(tmp_path, RAPL)
    (tmp_path / f"{PACKAGE}/energy_uj").chmod(0o400)
    real = Path.read_bytes

    def closed(path: Path) -> bytes:  # who runs the tests may be root, for whom no file is closed
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", closed)

    assert rapl.why_unavailable(place) == f"{tmp_path}/{PACKAGE}/energy_uj: mode 0400, not for this user"
    assert rapl.advice(place) == ("sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj",)


def test_a_file_that_fails_says_how(tmp_path: Path) -> None:
    assert why_unreadable(tmp_path) == f"{tmp_path}: Is a directory"


def test_sensors_of_the_processor_are_read_and_others_not(tmp_path: Path) -> None:
    files = {"name": "k10temp", "temp1_label": "Tctl", "temp1_input": "61125"}
    place = written(tmp_path, {f"sys/class/hwmon/hwmon1/{name}": text for name, text in files.items()})
    written(tmp_path, {"sys/class/hwmon/hwmon2/name": "nvme", "sys/class/hwmon/hwmon2/temp1_input": "90000"})

    assert [(r.what, r.value) for r in thermal.read(place)] == [("Tctl", 61.125)]


def test_thermal_events_of_cores_are_counted(tmp_path: Path) -> None:
    place = written(tmp_path, {f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "12"})

    assert [(r.what, r.kind, r.value) for r in throttle.read(place)] == [
        ("cpu0 core_throttle_count", "throttle_count", 12.0)
    ]


def test_the_raspberry_pis_live_bits_are_flags_and_its_history_is_not(tmp_path: Path) -> None:
    # 0x50005: under-voltage and throttled, now and before.
    place = written(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005"})

    assert {r.what: r.value for r in throttle.read(place)} == {
        "under-voltage": 1,
        "clock capped": 0,
        "throttled": 1,
        "soft temperature limit": 0,
    }


STAT = """cpu  400 40 200 9000 50 10 20 60 30 0
cpu0 300 30 100 4000 20 5 15 40 30 0
cpu1 100 10 100 5000 30 5 5 20 0 0
intr 1"""


def test_load_is_busy_own_and_stolen_time(tmp_path: Path) -> None:
    own = "7 (a name ) of (three)) S 1 7 7 0 -1 4194560 100 0 0 0 70 30 0 0 20 0 9 0 55"
    written(tmp_path, {"proc/stat": STAT, "proc/7/stat": own, "proc/loadavg": "1.25 0.5 0.2 1/94 14193"})
    second = os.sysconf("SC_CLK_TCK")

    found = {r.kind: r.value for r in load.read(GaugeScope(root=tmp_path, own=(7, 8)))}

    assert found == {"busy_s": 670 / second, "own_s": 100 / second, "steal_s": 60 / second, "load": 1.25}


def test_only_the_load_of_the_cores_in_use_counts(tmp_path: Path) -> None:
    written(tmp_path, {"proc/stat": STAT})

    busy = next(r.value for r in load.read(GaugeScope(root=tmp_path, cores=(1,))) if r.kind == "busy_s")

    assert busy == 220 / os.sysconf("SC_CLK_TCK")


def test_this_machines_own_time_is_that_of_the_process() -> None:
    spent = sum(os.times()[:2])

    own = next(r.value for r in load.read(GaugeScope(own=(os.getpid(),))) if r.kind == "own_s")

    assert own == pytest.approx(spent, abs=0.1)


@pytest.mark.gpu
def test_an_nvidia_gpu_gives_energy_clock_and_heat() -> None:
    if nvml.why_unavailable(GaugeScope()):
        pytest.skip(nvml.why_unavailable(GaugeScope()))
    kinds = {reading.kind for reading in nvml.read(GaugeScope())}

    assert {"clock_mhz", "temperature_c", "throttle_flag"} <= kinds
    assert kinds & {"energy_uj", "power_mw"}
