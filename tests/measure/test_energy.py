"""Energy against counters and powers whose energy is known."""

import dataclasses

import pytest

from deploy_kit.measure import energy
from deploy_kit.records.readings import Board, MonitorSettings, Reading, Snapshot

BOARD = Board(model="", compatible=(), memory_gib=8.0, cores=2, gpu_max_mhz=0.0)
RANGE_UJ = 262_143_328_850.0


def watched(*unreadable: tuple[str, str]) -> MonitorSettings:
    gauges = ("ina", "nvml", "rapl")
    return MonitorSettings(settings=(), unreadable=unreadable, advice=(), board=BOARD, energy_gauges=gauges)


def counter(*points: tuple[float, float], wraps_at: float = RANGE_UJ) -> list[Snapshot]:
    """Snapshots of a counter: (seconds, µJ)."""
    return [
        Snapshot(
            at_s=at,
            readings=(Reading(gauge="rapl", what="package-0", kind="energy_uj", value=value, wraps_at=wraps_at),),
        )
        for at, value in points
    ]


def power(*points: tuple[float, float], rail: str = "VDD_IN") -> list[Snapshot]:
    """Snapshots of a rail: (seconds, mW)."""
    return [
        Snapshot(at_s=at, readings=(Reading(gauge="ina", what=rail, kind="power_mw", value=value),))
        for at, value in points
    ]


def steady(watts: float, seconds: int = 12) -> list[Snapshot]:
    return power(*((float(at), 1000 * watts) for at in range(seconds + 1)))


def test_a_counter_gives_its_difference() -> None:
    found = energy.integrate_rails(counter((100, 5_000_000), (101, 20_000_000), (110, 125_000_000)))

    assert found["rapl", "package-0"] == energy.RailEnergy(joules=120.0, seconds=10.0, readings=3)


def test_a_counter_that_wraps_twice_loses_nothing() -> None:
    # 15 W through two wraps of a counter of 100 J.
    points = [(float(at), 15e6 * at % 100e6) for at in range(15)]

    found = energy.integrate_rails(counter(*points, wraps_at=100e6))

    assert found["rapl", "package-0"].joules == pytest.approx(15 * 14)


def test_a_counter_wraps_at_its_own_range() -> None:
    found = energy.integrate_rails(counter((0, RANGE_UJ - 3_000_000), (1, 12_000_000)))

    assert found["rapl", "package-0"].joules == pytest.approx(15.0)


def test_a_counter_that_was_reset_gives_no_energy() -> None:
    assert energy.integrate_rails(counter((0, 5e9), (1, 0), wraps_at=0)) == {}


def test_power_is_integrated_by_trapezoids() -> None:
    # 5 W rising to 15 W within 4 s, at readings that are not evenly spaced: 40 J.
    found = energy.integrate_rails(power((0, 5000), (1, 7500), (4, 15000)))

    assert found["ina", "VDD_IN"].joules == pytest.approx(40.0)


def test_a_rail_read_once_gives_no_energy() -> None:
    assert energy.integrate_rails(power((0, 5000))) == {}


def test_idle_is_subtracted() -> None:
    found = energy.energy_of_engine(steady(5), steady(12), runs=700, batch=4, watched=watched())

    (rail,) = found.rails
    assert (rail.joules, rail.idle_w) == pytest.approx((144, 5))
    assert rail.net_joules == pytest.approx(84)
    assert rail.mj_per_inference == pytest.approx(84_000 / 2800)
    assert rail.inferences_per_joule == pytest.approx(2800 / 84)


def test_rail_and_rate_are_named() -> None:
    (rail,) = energy.energy_of_engine(steady(5), steady(12), runs=1, batch=1, watched=watched()).rails

    assert (rail.gauge, rail.name, rail.rate_hz, rail.seconds) == ("ina", "VDD_IN", 1.0, 12.0)


def test_a_rail_that_drew_no_more_than_idle_gives_no_inferences_per_joule() -> None:
    (rail,) = energy.energy_of_engine(steady(5), steady(4), runs=10, batch=1, watched=watched()).rails

    assert rail.inferences_per_joule is None
    assert rail.mj_per_inference < 0


@pytest.mark.parametrize(("idle_s", "busy_s"), [(9, 20), (20, 9)])
def test_less_than_ten_seconds_are_not_energy(idle_s: int, busy_s: int) -> None:
    found = energy.energy_of_engine(steady(5, idle_s), steady(12, busy_s), runs=1, batch=1, watched=watched())

    assert found.rails == ()
    assert found.why == "not measured: 9.0 s were read, energy takes 10 s idle and as many at work"


def test_what_cannot_be_read_is_not_measured_and_says_why() -> None:
    here = watched(("ina", "no INA3221"), ("rapl", "energy_uj: mode 0400, not for this user"), ("nvml", "no driver"))

    found = energy.energy_of_engine([], [], runs=1, batch=1, watched=here)

    assert found.rails == ()
    assert found.why == "not measured: energy_uj: mode 0400, not for this user; no driver; no INA3221"


def test_a_gauge_that_reads_other_things_only_is_not_energy_either() -> None:
    found = energy.energy_of_engine([], [], runs=1, batch=1, watched=watched(("rapl", "none")))

    assert found.why == "not measured: no gauge gave an energy or a power while it ran"


def test_a_third_partys_gauge_counts_among_those_that_read_energy() -> None:
    blind = watched(("rapl", "no RAPL"), ("nvml", "no driver"), ("ina", "no INA"))
    metered = dataclasses.replace(blind, energy_gauges=(*blind.energy_gauges, "wall_meter"))

    assert energy.why_no_energy(metered) == ""
    unplugged = dataclasses.replace(metered, unreadable=(*blind.unreadable, ("wall_meter", "no meter")))
    assert energy.why_no_energy(unplugged) == "not measured: no RAPL; no driver; no INA; no meter"
