"""What the bench loop itself costs: a session that does nothing, timed as every engine is."""

import statistics
from dataclasses import dataclass

import numpy as np

from benchmarks import page
from deploy_kit.measure import scenarios
from deploy_kit.measure.scenarios import TurnLoad
from deploy_kit.measure.stopwatch import Steps

LIMIT_US = 20.0
_RUNS, _TURNS = 20_000, 5
_QUERIES_S = 1.0


class Nothing:
    """A session that computes nothing."""

    def bind(self, image: np.ndarray) -> None:
        """Copy nothing in."""

    def run(self) -> None:
        """Compute nothing."""

    def fetch(self) -> None:
        """Copy nothing out."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One way to time.

    Attributes:
        name: The scenario and the span.
        iteration_us: Wall time of a turn over its runs: median of the turns.
        sample_us: What the clock shows for the run that does nothing: median.
        n: Runs of a turn.
        ours: Whether the loop is deploykit's; LoadGen's includes drawing and logging its queries.
        why: Why there are no numbers; empty where there are.
    """

    name: str
    iteration_us: float = 0.0
    sample_us: float = 0.0
    n: int = 0
    ours: bool = True
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The ways to time."""

    rows: tuple[Cost, ...]


def measure() -> Loop:
    """Time a session that does nothing."""
    session, image = Nothing(), np.zeros((1, 3, 224, 224), np.float32)
    compute: Steps = (session.run,)
    whole: Steps = (lambda: session.bind(image), session.run, session.fetch)
    return Loop(
        rows=(
            _cost("closed-loop, compute", "closed-loop", (compute,)),
            _cost("closed-loop, whole", "closed-loop", (whole,)),
            _cost("closed-loop, compute, 2 streams", "closed-loop", (compute, compute)),
            _cost("single-stream (LoadGen), compute", "single-stream", (compute,)),
        )
    )


def render(found: Loop) -> str:
    """Show microseconds of each way to time, and whether the limit is kept."""
    rows = [
        (row.name, page.NONE, page.NONE, page.NONE, row.why)
        if row.why
        else (row.name, str(row.n), f"{row.iteration_us:.2f}", f"{row.sample_us:.2f}", _verdict(row))
        for row in found.rows
    ]
    text = (
        "A session that does nothing, timed as every engine is. An iteration is the wall time of a turn over its runs "
        f"and may cost {LIMIT_US:g} µs; what the clock shows for the run itself is what the loop adds to each sample."
    )
    return f"{text}\n\n{page.table(('loop', 'runs', 'iteration, µs', 'in a sample, µs', ''), rows)}"


def _verdict(row: Cost) -> str:
    if not row.ours:
        return "LoadGen's own: no limit"
    return "kept" if row.iteration_us <= LIMIT_US else f"NOT kept: {LIMIT_US:g} µs"


def _cost(name: str, scenario: str, streams: tuple[Steps, ...]) -> Cost:
    entry = scenarios.get_scenario(scenario)
    why = entry.why_unavailable()
    if why:
        return Cost(name=name, why=why)
    by_queries = entry.seconds > 0
    load = TurnLoad(n=_RUNS, seconds=_QUERIES_S if by_queries else 0.0, batch=1, pace_ms=0.01)
    turns = [entry.run(streams, load)[0] for _ in range(1 if by_queries else _TURNS)]
    return Cost(
        name=name,
        iteration_us=statistics.median(1e6 * turn.seconds / len(turn.samples_ms) for turn in turns),
        sample_us=1e3 * statistics.median(sample for turn in turns for sample in turn.samples_ms),
        n=len(turns[0].samples_ms),
        ours=not by_queries,
    )
