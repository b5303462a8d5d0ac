"""Validity: each rule finds what it is made for, and lets equal conditions pass."""

import pytest

from deploy_kit.measure import validity
from deploy_kit.records.readings import Board, Conditions, MonitorSettings, Reading, ReadingKind, Snapshot

pytestmark = pytest.mark.usefixtures("alone")
WATCHED = MonitorSettings(
    settings=(("governor", "powersave"),),
    unreadable=(),
    advice=("sudo cpupower frequency-set -g performance",),
    board=Board(model="", compatible=(), memory_gib=8.0, cores=2, gpu_max_mhz=0.0),
)


def snapshot(
    at_s: float,
    *,
    cpu: tuple[float, ...] = (3000.0, 2900.0),
    gpu: float | None = None,
    flag: float = 0,
    count: float = 0,
    busy: float = 0,
    own: float = 0,
    steal: float = 0,
    quota: float | None = None,
) -> Snapshot:
    readings = [
        Reading(gauge="cpu_clocks", what=f"cpu{i}", kind="clock_mhz", value=v, processor="cpu")
        for i, v in enumerate(cpu)
    ]
    if gpu is not None:
        readings.append(Reading(gauge="tegra", what="gpu", kind="clock_mhz", value=gpu, processor="gpu"))
    others: tuple[tuple[str, str, ReadingKind, float], ...] = (
        ("throttle", "cpu-throttle-alert", "throttle_flag", flag),
        ("throttle", "cpu0 core_throttle_count", "throttle_count", count),
        ("thermal", "tj-thermal", "temperature_c", 50 + at_s),
        ("load", "all processes", "busy_s", busy),
        ("load", "own processes", "own_s", own),
        ("load", "hypervisor", "steal_s", steal),
        ("load", "load average", "load", 1.5),
    )
    readings += [Reading(gauge=g, what=w, kind=k, value=v) for g, w, k, v in others]
    if quota is not None:
        readings.append(Reading(gauge="cpu_quota", what="control group", kind="quota_s", value=quota))
    return Snapshot(at_s=at_s, readings=tuple(readings))


def judged(*turns: list[Snapshot], processor: str = "cpu") -> tuple[tuple[str, ...], Conditions]:
    return validity.judge_validity(turns, processor, WATCHED, 0.004)  # type: ignore[arg-type]  # a literal


def quiet(begun: float = 0.0) -> list[Snapshot]:
    """A turn of two seconds on both cores, all of the load our own."""
    return [snapshot(begun + s, busy=2 * (begun + s), own=2 * (begun + s)) for s in (0.0, 0.5, 1.0, 1.5, 2.0)]


def test_equal_conditions_are_valid() -> None:
    reasons, conditions = judged(quiet(), quiet(10.0))

    assert reasons == ()
    assert (conditions.foreign, conditions.unjudged, conditions.advice) == (0.0, (), ())
    assert conditions.timed_s == 4.0


@pytest.mark.parametrize(("lowest", "valid"), [(2851.0, True), (2849.0, False)])
def test_a_clock_may_fall_by_five_percent(lowest: float, valid: bool) -> None:
    turn = quiet()
    turn[2] = snapshot(1.0, cpu=(lowest, 800.0), busy=2, own=2)

    assert (judged(turn)[0] == ()) is valid


def test_a_clock_that_fell_is_named_with_its_numbers() -> None:
    turn = quiet()
    turn[2] = snapshot(1.0, cpu=(1800.0, 1750.0), busy=2, own=2)

    reasons, conditions = judged(turn)

    assert reasons == ("the clock fell by 40.0 % while it was timed, from 3000 to 1800 MHz; at most 5 % is valid",)
    assert conditions.advice == ("sudo cpupower frequency-set -g performance",)


def test_a_clock_that_fell_between_two_turns_is_found() -> None:
    later = [snapshot(s.at_s + 10, cpu=(2400.0,), busy=2 * s.at_s, own=2 * s.at_s) for s in quiet()]

    assert "from 3000 to 2400 MHz" in judged(quiet(), later)[0][0]


def test_what_the_clock_was_before_a_turn_does_not_count() -> None:
    turn = quiet()
    turn[0] = snapshot(0.0, cpu=(800.0, 800.0))

    assert judged(turn)[0] == ()


def test_a_turn_too_short_to_be_read_within_is_judged_by_its_end() -> None:
    turns = [[snapshot(at), snapshot(at + 0.6, cpu=(clock,))] for at, clock in ((0.0, 3000.0), (5.0, 2000.0))]

    assert "from 3000 to 2000 MHz" in judged(*turns)[0][0]


def test_the_clock_of_the_gpu_counts_for_what_runs_there() -> None:
    turn = [snapshot(s, gpu=mhz, busy=s, own=s) for s, mhz in ((0.0, 306), (0.5, 918), (1.0, 612), (2.0, 918))]

    assert "from 918 to 612 MHz" in judged(turn, processor="gpu")[0][0]
    assert judged(turn, processor="cpu")[0] == ()


def test_a_flag_that_is_set_is_throttling() -> None:
    turn = quiet()
    turn[1] = snapshot(0.5, flag=1, busy=1, own=1)

    assert judged(turn)[0] == ("throttled while it was timed: cpu-throttle-alert",)


def test_a_counter_that_grew_within_turns_is_throttling() -> None:
    turn = [*quiet()[:-1], snapshot(2.0, count=7, busy=4, own=4)]

    assert judged(turn)[0] == ("throttled while it was timed: cpu0 core_throttle_count (+7)",)


def test_a_counter_that_grew_between_turns_is_not() -> None:
    later = [snapshot(s.at_s + 10, count=7, busy=2 * s.at_s, own=2 * s.at_s) for s in quiet()]

    assert judged(quiet(), later)[0] == ()


@pytest.mark.parametrize(("foreign_s", "valid"), [(0.19, True), (0.21, False)])
def test_others_may_take_five_percent_of_the_cores(foreign_s: float, valid: bool) -> None:
    # Two cores for two seconds: 0.2 s are 5 %.
    turn = [snapshot(0.0), snapshot(2.0, busy=3 + foreign_s, own=3)]

    assert (judged(turn)[0] == ()) is valid


def test_foreign_load_is_named_with_its_share() -> None:
    turn = [snapshot(0.0), snapshot(2.0, busy=4, own=2.8)]

    reasons, conditions = judged(turn)

    assert conditions.foreign == pytest.approx(0.3)
    assert reasons == ("foreign load took 30.0 % of the cores' time; at most 5 % is valid",)


def test_what_a_hypervisor_took_is_foreign() -> None:
    turn = [snapshot(0.0), snapshot(2.0, busy=3, own=3, steal=0.4)]

    assert judged(turn)[0] == (
        "foreign load took 10.0 % of the cores' time (10.0 % by the hypervisor); at most 5 % is valid",
    )


def test_load_between_turns_is_nobodys_fault() -> None:
    later = [snapshot(s.at_s + 10, busy=90 + 2 * s.at_s, own=2 * s.at_s) for s in quiet()]

    assert judged(quiet(), later)[1].foreign == 0.0


def test_turns_too_short_for_ticks_are_not_judged() -> None:
    turn = [snapshot(0.0), snapshot(0.4, busy=0.8, own=0.1)]

    reasons, conditions = judged(turn)

    assert reasons == ()
    assert conditions.foreign is None
    assert conditions.unjudged == (
        "clock: too few readings",
        "foreign load: timed for 0.4 s, a judgement takes 1 s",
    )


def test_a_clock_is_not_judged_by_turns_too_short_either() -> None:
    turns = [[snapshot(at), snapshot(at + 0.3, cpu=(clock,))] for at, clock in ((0.0, 3000.0), (5.0, 2000.0))]

    reasons, conditions = judged(*turns)

    assert reasons == ()
    assert "clock: timed for 0.6 s, a judgement takes 1 s" in conditions.unjudged


def test_what_no_gauge_reads_is_not_judged_and_says_why() -> None:
    blind = MonitorSettings(
        settings=(),
        unreadable=(("cpu_clocks", "no cpufreq here"), ("throttle", "no flag"), ("load", "no /proc/stat here")),
        advice=(),
        board=WATCHED.board,
    )
    turn = [Snapshot(at_s=0.0, readings=()), Snapshot(at_s=2.0, readings=())]

    reasons, conditions = validity.judge_validity([turn], "cpu", blind, 0.0)

    assert reasons == ()
    assert conditions.unjudged == (
        "clock: no cpufreq here",
        "throttle: no flag",
        "foreign load: no /proc/stat here",
    )


def test_courses_tell_before_within_and_after() -> None:
    courses = {course.what: course for course in judged(quiet())[1].courses}

    heat = courses["hottest sensor"]
    assert (heat.before, heat.low, heat.high, heat.after, heat.unit) == (50, 50.5, 51.5, 52, "°C")
    assert courses["clock of the fastest core"].high == 3000
    assert "clock of the GPU" not in courses


@pytest.mark.parametrize(("held_s", "valid"), [(0.09, True), (0.11, False)])
def test_a_quota_may_hold_back_for_five_percent(held_s: float, valid: bool) -> None:
    turn = [snapshot(0.0, quota=7.0), snapshot(2.0, busy=3, own=3, quota=7.0 + held_s)]

    assert (judged(turn)[0] == ()) is valid


def test_a_quota_is_named_with_its_share() -> None:
    turn = [snapshot(0.0, quota=0.0), snapshot(2.0, busy=3, own=3, quota=1.0)]

    reasons, conditions = judged(turn)

    assert conditions.held_back == 0.5
    assert reasons == (
        "the container's CPU quota held it back for 50 % of its turns, summed over the cores; at most 5 % is valid",
    )


def test_without_a_quota_nothing_is_known_of_it() -> None:
    assert judged(quiet())[1].held_back is None


def in_a_run(turn: list[Snapshot], whole_run: list[Snapshot]) -> tuple[tuple[str, ...], Conditions]:
    return validity.judge_validity([turn], "cpu", WATCHED, 0.004, whole_run)


def test_short_turns_are_judged_for_load_by_the_whole_run() -> None:
    turn = [snapshot(2.0, busy=4, own=2), snapshot(2.2, busy=4.4, own=2.2)]

    reasons, conditions = in_a_run(turn, [snapshot(0.0), snapshot(3.0, busy=6, own=3)])

    assert (conditions.foreign, conditions.foreign_s) == (0.5, 3.0)
    assert conditions.timed_s == pytest.approx(0.2)
    assert reasons == ("foreign load took 50.0 % of the cores' time in the whole run; at most 5 % is valid",)
    assert [reason for reason in conditions.unjudged if reason.startswith("foreign load")] == []


def test_turns_that_are_long_enough_are_judged_by_themselves() -> None:
    reasons, conditions = in_a_run(quiet(), [snapshot(-9.0), snapshot(9.0, busy=30)])

    assert (reasons, conditions.foreign, conditions.foreign_s) == ((), 0.0, 2.0)


def test_a_run_too_short_is_not_judged_and_says_so() -> None:
    turn = [snapshot(0.0), snapshot(0.2, busy=0.4)]

    reasons, conditions = in_a_run(turn, [snapshot(0.0), snapshot(0.9, busy=1.8)])

    assert (reasons, conditions.foreign) == ((), None)
    assert "foreign load: timed for 0.9 s, a judgement takes 1 s" in conditions.unjudged


def test_a_clock_of_no_processor_judges_nothing() -> None:
    def with_fan(s: Snapshot, mhz: float) -> Snapshot:
        fan = Reading(gauge="third_party", what="memory", kind="clock_mhz", value=mhz)
        return Snapshot(at_s=s.at_s, readings=(*s.readings, fan))

    turn = [with_fan(s, 3000.0 - 700 * n) for n, s in enumerate(quiet())]

    assert judged(turn)[0] == judged(turn, processor="gpu")[0] == ()
