"""A Jetson's rails, clocks, heat, throttling and power mode, from what boards were recorded to say."""

import shutil
from pathlib import Path

import pytest
from trees import HERE, recorded, written

from deploy_kit.measure.gauges import GaugeScope, cpu_clocks, ina, tegra, thermal, throttle
from deploy_kit.measure.gauges._recorder import survey_gauges

NANO = recorded("orin-nano-super")


@pytest.fixture
def copy(tmp_path: Path) -> GaugeScope:
    """A tree of the Orin Nano that a test may change."""
    shutil.copytree(HERE / "orin-nano-super", tmp_path / "root")
    return GaugeScope(root=tmp_path / "root")


def change(place: GaugeScope, name: str, text: str) -> None:
    (place.root / name).write_text(text + "\n")


def test_each_rail_has_the_power_that_jtop_recorded_with_its_voltage_and_current() -> None:
    found = {reading.what: reading.value for reading in ina.read(NANO)}

    assert found == pytest.approx({"VDD_IN": 5133, "VDD_CPU_GPU_CV": 1064, "VDD_SOC": 1540}, abs=1)


def test_unused_channels_and_sums_are_no_rails() -> None:
    names = [reading.what for reading in ina.read(recorded("agx-orin"))]

    assert names == ["VDDQ_VDD2_1V8AO", "VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]


def test_ina238_of_thor_is_read_in_microwatts(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon4"
    place = written(tmp_path, {f"{chip}/name": "ina238", f"{chip}/power1_input": "41250000"})

    assert [(r.what, r.value) for r in ina.read(place)] == [("VIN", 41250.0)]


def test_iio_of_old_releases_is_read_in_milliwatts(tmp_path: Path) -> None:
    device = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files = {f"{device}/rail_name_0": "POM_5V_IN", f"{device}/in_power0_input": "2315"}

    assert [(r.what, r.value) for r in ina.read(written(tmp_path, files))] == [("POM_5V_IN", 2315.0)]


def test_a_zone_that_is_powered_down_gives_no_temperature() -> None:
    found = {reading.what: reading.value for reading in thermal.read(NANO)}

    assert found["tj-thermal"] == 50.531
    assert not {name for name in found if name.startswith("cv")}


def test_nothing_is_throttled_at_rest_and_the_fan_is_not_asked() -> None:
    found = {reading.what: reading.value for reading in throttle.read(NANO)}

    assert set(found.values()) == {0.0}
    assert "cpu-throttle-alert" in found
    assert "pwm-fan" not in found


def test_an_alert_is_a_flag_and_an_over_current_is_counted(copy: GaugeScope) -> None:
    change(copy, "sys/class/thermal/cooling_device4/cur_state", "1")
    change(copy, "sys/class/hwmon/hwmon3/oc3_event_cnt", "27390")

    found = {(reading.kind, reading.what): reading.value for reading in throttle.read(copy)}

    assert found["throttle_flag", "gpu-throttle-alert"] == 1
    assert found["throttle_count", "soctherm_oc oc3"] == 27390


def test_the_gpu_is_found_among_the_scaled_devices() -> None:
    assert [(r.what, r.value) for r in tegra.read(NANO)] == [("gpu", 306.0)]


def test_power_mode_and_limits_are_settings() -> None:
    assert tegra.settings(NANO) == (
        ("power mode", "25W (1)"),
        ("GPU clock limit", "918 MHz"),
        ("GPU clock locked", "no"),
    )


def test_the_fastest_mode_is_recommended_by_name_and_not_by_number() -> None:
    assert tegra.advice(NANO) == ("sudo nvpmodel -m 2", "sudo jetson_clocks")


def test_the_fastest_mode_with_locked_clocks_needs_no_advice(copy: GaugeScope) -> None:
    change(copy, "var/lib/nvpmodel/status", "pmode:0002")
    change(copy, "sys/class/devfreq/17000000.gpu/min_freq", "918000000")

    assert tegra.advice(copy) == ()


def test_jetson_clocks_take_the_place_of_the_governor() -> None:
    assert cpu_clocks.advice(NANO) == ()


def test_the_board_says_what_its_power_mode_leaves_on(copy: GaugeScope) -> None:
    board = survey_gauges(NANO).board
    change(copy, "sys/devices/platform/gpu.0/tpc_pg_mask", "-1")
    (copy.root / "sys/kernel/nvpmodel_clk_cap/emc").unlink()

    assert (board.gpu_tpc_mask, board.memory_max_mhz) == (240, 3199.0)
    assert (survey_gauges(copy).board.gpu_tpc_mask, survey_gauges(copy).board.memory_max_mhz) == (0, 0.0)


def test_masks_and_caps_are_found_where_older_kernels_have_them(tmp_path: Path) -> None:
    files = {"sys/devices/gpu.0/tpc_pg_mask": "252", "sys/kernel/nvpmodel_emc_cap/emc_iso_cap": "2133000000"}
    place = written(tmp_path, files)

    assert (tegra.gpu_tpc_mask(place), tegra.memory_max_mhz(place)) == (252, 2133.0)


def test_the_board_says_what_it_is() -> None:
    board = survey_gauges(NANO).board

    assert board.model == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert board.compatible[-1] == "nvidia,tegra234"
    assert (board.memory_gib, board.gpu_max_mhz) == (7.4, 918.0)


def test_what_a_jetson_lacks_is_named() -> None:
    unreadable = dict(survey_gauges(NANO).unreadable)

    assert unreadable["rapl"] == "no RAPL package here (/sys/class/powercap/intel-rapl:*)"
    assert unreadable["nvml"] == "a recorded tree has no driver"
    assert "ina" not in unreadable
