"""Whether numbers may be used: what the gauges saw while an engine was timed, held against fixed rules.

    clock      (highest - lowest) / highest over its own turns, of the fastest core or of the GPU    at most 5 %
    throttle   a flag that is set, or a counter that grew, within a turn                             none
    foreign    (all processes - own processes + steal) / (cores · wall time) over its turns          at most 5 %

5 %: a latency moves by about the share of the clock or of the cores that is lost, and the warm-up calls an engine
steady within 5 %; less is within what a turn moves by itself. Clocks are compared within one engine's turns, because
instructions set the clock too: AVX-512 or a hot GPU kernel runs at another clock than what came before.
"""

from collections.abc import Callable, Iterable, Sequence

from deploy_kit.records.readings import Conditions, Course, Processor, ReadingKind, Snapshot, Watched

MAX_CLOCK_DROP = 0.05
MAX_FOREIGN = 0.05
# The kernel counts processor time in ticks of 10 ms, by process and core: over a second that is a percent or two. A
# clock is read four times in it.
MIN_TIMED_S = 1.0

TurnSnapshots = Sequence[Snapshot]  # the first from just before, the last from just after, the others from within


def judge_validity(
    turns: Sequence[TurnSnapshots], processor: Processor, watched: Watched, own_cost: float
) -> tuple[tuple[str, ...], Conditions]:
    """Judge the turns of one engine.

    Args:
        turns: Snapshots of each turn.
        processor: What the engine computes on: its clock is the one that counts.
        watched: What the gauges can read there.
        own_cost: Share of one core that reading took.

    Returns:
        Why the numbers must not be used (empty if they may), and the conditions.
    """
    timed_s = sum(turn[-1].at_s - turn[0].at_s for turn in turns)
    foreign, steal = _foreign(turns, watched.board.cores)
    clocks = _within(turns, _clock(processor))
    short = f"timed for {timed_s:.1f} s, a judgement takes {MIN_TIMED_S:g} s" if timed_s < MIN_TIMED_S else ""
    unjudged = []
    if len(clocks) < 2 or short:
        gauges = ("tegra", "nvml") if processor == "gpu" else ("cpu_clocks",)
        unjudged.append(f"clock: {_why(watched, gauges) if len(clocks) < 2 else short}")
    if not _any(turns, ("throttle_flag", "throttle_count")):
        unjudged.append(f"throttle: {_why(watched, ('throttle', 'nvml') if processor == 'gpu' else ('throttle',))}")
    if foreign is None or short:
        unjudged.append(f"foreign load: {_why(watched, ('load',)) if foreign is None else short}")
    judged = None if short else foreign
    clocks = [] if short else clocks
    reasons = (*_clock_reason(clocks), *_throttle_reason(turns), *_foreign_reason(judged, steal))
    conditions = Conditions(
        settings=watched.settings,
        courses=_courses(turns),
        foreign=judged,
        timed_s=timed_s,
        unjudged=tuple(unjudged),
        advice=watched.advice if reasons else (),
        own_cost=own_cost,
    )
    return reasons, conditions


def _values(snapshot: Snapshot, kind: ReadingKind) -> dict[str, float]:
    return {f"{r.gauge} {r.what}": r.value for r in snapshot.readings if r.kind == kind}


def _any(turns: Sequence[TurnSnapshots], kinds: tuple[ReadingKind, ...]) -> bool:
    return any(reading.kind in kinds for turn in turns for reading in turn[-1].readings)


def _why(watched: Watched, gauges: tuple[str, ...]) -> str:
    """Say why none of these gauges read enough."""
    known = dict(watched.unreadable)
    return "; ".join(known[name] for name in gauges if name in known) or "too few readings"


def _clock(processor: Processor) -> Callable[[Snapshot], float | None]:
    def of(snapshot: Snapshot) -> float | None:
        clocks = _values(snapshot, "clock_mhz")
        found = [mhz for name, mhz in clocks.items() if (processor == "cpu") == name.startswith("cpu_clocks ")]
        return max(found, default=None)

    return of


def _hottest(snapshot: Snapshot) -> float | None:
    return max(_values(snapshot, "temperature_c").values(), default=None)


def _load(snapshot: Snapshot) -> float | None:
    return max(_values(snapshot, "load").values(), default=None)


def _within(turns: Sequence[TurnSnapshots], of: Callable[[Snapshot], float | None]) -> list[float]:
    """Give a quantity from within the turns; from their ends too, where they were too short to be read twice."""
    inside = [value for turn in turns for snapshot in turn[1:-1] if (value := of(snapshot)) is not None]
    ends = [value for turn in turns if (value := of(turn[-1])) is not None]
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
    found = [name.removeprefix("throttle ").removeprefix("nvml ") for name in (*sorted(flags), *events)]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield f"throttled while it was timed: {', '.join(found[:3])}{more}"


def _foreign(turns: Sequence[TurnSnapshots], cores: int) -> tuple[float | None, float]:
    """Give the foreign share of the cores' time, and the hypervisor's part of it."""
    taken = stolen = wall = 0.0
    for turn in turns:
        begun, ended = turn[0], turn[-1]
        gone: dict[ReadingKind, float] = {}
        for kind in ("busy_s", "own_s", "steal_s"):
            before, after = _values(begun, kind), _values(ended, kind)
            if not before or not after:
                return None, 0.0
            gone[kind] = sum(after.values()) - sum(before.values())
        taken += max(gone["busy_s"] - gone["own_s"], 0.0) + gone["steal_s"]
        stolen += gone["steal_s"]
        wall += ended.at_s - begun.at_s
    capacity = wall * cores
    return (taken / capacity, stolen / capacity) if capacity > 0 else (None, 0.0)


def _foreign_reason(foreign: float | None, steal: float) -> Iterable[str]:
    if foreign is not None and foreign > MAX_FOREIGN:
        part = f" ({100 * steal:.1f} % by the hypervisor)" if steal >= 0.001 else ""
        share = f"{100 * foreign:.1f} % of the cores' time{part}"
        yield f"foreign load took {share}; at most {100 * MAX_FOREIGN:g} % is valid"


def _courses(turns: Sequence[TurnSnapshots]) -> tuple[Course, ...]:
    quantities: tuple[tuple[str, str, Callable[[Snapshot], float | None]], ...] = (
        ("clock of the fastest core", "MHz", _clock("cpu")),
        ("clock of the GPU", "MHz", _clock("gpu")),
        ("hottest sensor", "°C", _hottest),
        ("load average", "", _load),
    )
    found = []
    for what, unit, of in quantities:
        before, after, within = of(turns[0][0]), of(turns[-1][-1]), _within(turns, of)
        if before is not None and after is not None and within:
            found.append(Course(what=what, unit=unit, before=before, low=min(within), high=max(within), after=after))
    return tuple(found)
