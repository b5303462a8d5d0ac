"""Validity of numbers: the gauges' readings while an engine was timed, judged by fixed rules.

    clock      (highest - lowest) / highest over its own turns, of the fastest core or of the GPU    at most 5 %
    throttle   a flag that is set, or a counter that grew, within a turn                             none
    foreign    (all processes - own processes + steal) / (cores · wall time) over its turns          at most 5 %
    quota      time for which a CPU quota held the container back / wall time over its turns         at most 5 %

5 %: a latency moves by about the share of the clock or of the cores that is lost, and the warm-up calls an engine
steady within 5 %; less is within what a turn moves by itself. Clocks are compared within one engine's turns, because
instructions set the clock too: AVX-512 or a hot GPU kernel runs at another clock than what came before.

Turns of less than a second together are too short to tell a share of the cores' time: foreign load and quota are then
taken over the whole run, from the last warm-up to the last turn of all engines.
"""

from collections.abc import Callable, Iterable, Sequence

from deploy_kit.records.readings import Conditions, MonitorSettings, Processor, QuantityCourse, ReadingKind, Snapshot

MAX_CLOCK_DROP = 0.05
MAX_FOREIGN = 0.05
MAX_HELD_BACK = 0.05
# The kernel counts processor time in ticks of 10 ms for each process and core, which over one second is an error of a
# percent or two. A clock is read four times in a second.
MIN_TIMED_S = 1.0

TurnSnapshots = Sequence[Snapshot]
"""Snapshots of one turn: the first from just before it, the last from just after it, the others from within."""


def judge_validity(
    turns: Sequence[TurnSnapshots],
    processor: Processor,
    watched: MonitorSettings,
    own_cost: float,
    whole_run: TurnSnapshots = (),
) -> tuple[tuple[str, ...], Conditions]:
    """Judge the turns of one engine.

    Args:
        turns: Snapshots of each turn.
        processor: Processor that the engine runs on; its clock is the one that counts.
        watched: What the gauges of the machine can and cannot read.
        own_cost: Share of one core in 0..1 that reading the gauges took.
        whole_run: Snapshots from before the first turn of any engine to after the last one; empty where not kept.

    Returns:
        Reasons why the numbers must not be used (empty if they are valid), and the conditions.
    """
    timed_s = sum(turn[-1].at_s - turn[0].at_s for turn in turns)
    loaded = turns if timed_s >= MIN_TIMED_S or len(whole_run) < 2 else [whole_run]
    foreign_s = sum(turn[-1].at_s - turn[0].at_s for turn in loaded)
    foreign, steal = _foreign_share(loaded, watched.board.cores)
    held_back = _held_back(loaded)
    clocks = _values_within(turns, _clock_of(processor))
    short, brief = (
        f"timed for {seconds:.1f} s, a judgement takes {MIN_TIMED_S:g} s" if seconds < MIN_TIMED_S else ""
        for seconds in (timed_s, foreign_s)
    )
    unjudged = []
    if len(clocks) < 2 or short:
        gauges = ("tegra", "nvml") if processor == "gpu" else ("cpu_clocks",)
        unjudged.append(f"clock: {_why_unread(watched, gauges) if len(clocks) < 2 else short}")
    if not _has_reading(turns, ("throttle_flag", "throttle_count")):
        gauges = ("throttle", "nvml") if processor == "gpu" else ("throttle",)
        unjudged.append(f"throttle: {_why_unread(watched, gauges)}")
    if foreign is None or brief:
        unjudged.append(f"foreign load: {_why_unread(watched, ('load',)) if foreign is None else brief}")
    # Throttling is judged in a short time too: one event is an event, while a share of few ticks is noise.
    foreign, held_back = (None, None) if brief else (foreign, held_back)
    clocks = [] if short else clocks
    over = "the whole run" if loaded is not turns else "its turns"
    reasons = (
        *_clock_reason(clocks),
        *_throttle_reason(turns),
        *_foreign_reason(foreign, steal, over),
        *_quota_reason(held_back, over),
    )
    conditions = Conditions(
        settings=watched.settings,
        courses=_courses(turns),
        foreign=foreign,
        timed_s=timed_s,
        foreign_s=foreign_s,
        held_back=held_back,
        unjudged=tuple(unjudged),
        advice=watched.advice if reasons else (),
        own_cost=own_cost,
    )
    return reasons, conditions


def _values(snapshot: Snapshot, kind: ReadingKind) -> dict[str, float]:
    return {f"{r.gauge} {r.what}": r.value for r in snapshot.readings if r.kind == kind}


def _has_reading(turns: Sequence[TurnSnapshots], kinds: tuple[ReadingKind, ...]) -> bool:
    return any(reading.kind in kinds for turn in turns for reading in turn[-1].readings)


def _why_unread(watched: MonitorSettings, gauges: tuple[str, ...]) -> str:
    """Return why none of these gauges gave enough readings."""
    known = dict(watched.unreadable)
    return "; ".join(known[name] for name in gauges if name in known) or "too few readings"


def _clock_of(processor: Processor) -> Callable[[Snapshot], float | None]:
    def highest_clock(snapshot: Snapshot) -> float | None:
        # The fastest core is the one that works: idle cores clock down and say nothing about the engine.
        clocks = (r.value for r in snapshot.readings if r.kind == "clock_mhz" and r.processor == processor)
        return max(clocks, default=None)

    return highest_clock


def _highest_temperature(snapshot: Snapshot) -> float | None:
    return max(_values(snapshot, "temperature_c").values(), default=None)


def _load_average(snapshot: Snapshot) -> float | None:
    return max(_values(snapshot, "load").values(), default=None)


def _values_within(turns: Sequence[TurnSnapshots], value_of: Callable[[Snapshot], float | None]) -> list[float]:
    """Return a quantity within the turns; at their ends too, where they were too short for two readings within.

    The snapshot before a turn is left out, because the engine did not run yet.
    """
    inside = [value for turn in turns for snapshot in turn[1:-1] if (value := value_of(snapshot)) is not None]
    ends = [value for turn in turns if (value := value_of(turn[-1])) is not None]
    return inside if len(inside) >= 2 else inside + ends


def _clock_reason(clocks: list[float]) -> Iterable[str]:
    if len(clocks) >= 2 and max(clocks) > 0:
        drop = 1 - min(clocks) / max(clocks)
        if drop > MAX_CLOCK_DROP:
            yield (
                f"the clock fell by {100 * drop:.1f} % while it was timed, from {max(clocks):.0f} to "
                f"{min(clocks):.0f} MHz; at most {100 * MAX_CLOCK_DROP:g} % is valid"
            )


def _throttle_reason(turns: Sequence[TurnSnapshots]) -> Iterable[str]:
    flags = {name for turn in turns for s in turn for name, value in _values(s, "throttle_flag").items() if value}
    grown: dict[str, float] = {}
    for turn in turns:
        begun = _values(turn[0], "throttle_count")
        for name, value in _values(turn[-1], "throttle_count").items():
            grown[name] = grown.get(name, 0.0) + value - begun.get(name, value)
    events = [f"{name} (+{n:.0f})" for name, n in grown.items() if n > 0]
    sources = [name.removeprefix("throttle ").removeprefix("nvml ") for name in (*sorted(flags), *events)]
    if sources:
        more = f" and {len(sources) - 3} more" if len(sources) > 3 else ""
        yield f"throttled while it was timed: {', '.join(sources[:3])}{more}"


def _foreign_share(turns: Sequence[TurnSnapshots], cores: int) -> tuple[float | None, float]:
    """Return the share of the cores' time that was foreign, and the hypervisor's part of it; None where not known."""
    taken = stolen = wall = 0.0
    for turn in turns:
        begun, ended = turn[0], turn[-1]
        spent: dict[ReadingKind, float] = {}
        for kind in ("busy_s", "own_s", "steal_s"):
            before, after = _values(begun, kind), _values(ended, kind)
            if not before or not after:
                return None, 0.0
            spent[kind] = sum(after.values()) - sum(before.values())
        # Busy and own time are counted in ticks independently, so their difference may be slightly below 0.
        taken += max(spent["busy_s"] - spent["own_s"], 0.0) + spent["steal_s"]
        stolen += spent["steal_s"]
        wall += ended.at_s - begun.at_s
    capacity = wall * cores
    return (taken / capacity, stolen / capacity) if capacity > 0 else (None, 0.0)


def _foreign_reason(foreign: float | None, steal: float, over: str) -> Iterable[str]:
    if foreign is not None and foreign > MAX_FOREIGN:
        part = f" ({100 * steal:.1f} % by the hypervisor)" if steal >= 0.001 else ""
        share = f"{100 * foreign:.1f} % of the cores' time{part}" + (f" in {over}" if over != "its turns" else "")
        yield f"foreign load took {share}; at most {100 * MAX_FOREIGN:g} % is valid"


def _held_back(turns: Sequence[TurnSnapshots]) -> float | None:
    """Return the time that a CPU quota took, summed over the cores, as a share of the wall time."""
    held = wall = 0.0
    for turn in turns:
        before, after = (sum(_values(snapshot, "quota_s").values()) for snapshot in (turn[0], turn[-1]))
        held, wall = held + after - before, wall + turn[-1].at_s - turn[0].at_s
    known = _has_reading(turns, ("quota_s",)) and wall > 0
    return held / wall if known else None


def _quota_reason(held_back: float | None, over: str) -> Iterable[str]:
    if held_back is not None and held_back > MAX_HELD_BACK:
        share = f"{100 * held_back:.0f} % of {over}, summed over the cores"
        yield f"the container's CPU quota held it back for {share}; at most {100 * MAX_HELD_BACK:g} % is valid"


def _courses(turns: Sequence[TurnSnapshots]) -> tuple[QuantityCourse, ...]:
    quantities: tuple[tuple[str, str, Callable[[Snapshot], float | None]], ...] = (
        ("clock of the fastest core", "MHz", _clock_of("cpu")),
        ("clock of the GPU", "MHz", _clock_of("gpu")),
        ("hottest sensor", "°C", _highest_temperature),
        ("load average", "", _load_average),
    )
    courses = []
    for name, unit, value_of in quantities:
        before, after, within = value_of(turns[0][0]), value_of(turns[-1][-1]), _values_within(turns, value_of)
        if before is not None and after is not None and within:
            courses.append(
                QuantityCourse(what=name, unit=unit, before=before, low=min(within), high=max(within), after=after)
            )
    return tuple(courses)
