"""MLPerf's own LoadGen on a loaded engine: it issues the queries, applies its rules and decides VALID or INVALID.

Every sample is the same image, because the time of a run does not depend on its pixels. That, durations of seconds and
the missing accuracy run make this no submission to MLPerf; it is the same generator with the same arithmetic.

Queries of ``server`` arrive by a schedule, and their latency counts from the scheduled time, as LoadGen's own does: a
query that waits because an earlier one holds the machine has waited. Counting from the call would leave that wait out
(coordinated omission). LoadGen's trace says when each query was scheduled and completed.
"""

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import RequestError, StageError
from deploy_kit.base.lazy import install_line, need
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.machine.environment import library_version
from deploy_kit.measure.scenarios import TurnLoad
from deploy_kit.measure.stopwatch import Steps, Turn
from deploy_kit.records.measurements import LoadGenResult

PACKAGE = "mlcommons-loadgen"
_PREFIX = "mlperf_log_"
_MOST_QUERIES = 2_000_000  # that LoadGen plans before a test begins; each takes some hundred bytes
_FEWEST_WAITING = 100
_SCHEDULED = re.compile(
    r'"name":"Sample","cat":"default","ph":"b",[^{]*"ts":([0-9.]+),"args":\{[^}]*"issue_start_ns":(\d+),"complete_ns":(\d+)'
)
_ENDED_EARLY = re.compile(r"Ending early: Too many outstanding queries\. issued (\d+) outstanding (\d+)")
Setter = Callable[[Any, TurnLoad], None]
"""Sets what only one scenario has: (LoadGen's settings, load)."""
Runs = list[tuple[int, int]]
"""(start, end) of each query or run in ns."""


def why_no_loadgen() -> str:
    """Return why LoadGen cannot be used on this machine; empty if it is installed."""
    if library_version(PACKAGE):
        return ""
    return f"MLPerf scenarios need '{PACKAGE}' on the machine that runs the engine ({install_line('mlperf_loadgen')})"


def run_loadgen(name: str, streams: Sequence[Steps], load: TurnLoad, configure: Setter) -> tuple[Turn, LoadGenResult]:
    """Run one test of LoadGen.

    Args:
        name: Name in LoadGen's ``TestScenario``.
        streams: Steps of one run for each stream; queries are shared among the streams.
        load: Load of the turn.
        configure: Sets what only this scenario has.

    Returns:
        Time of each query to its completion, from its scheduled time in ``server`` and else from its issue (offline: of
        each run), and LoadGen's result.

    Raises:
        MissingPackageError: LoadGen is not installed on this machine.
        RequestError: More queries are asked for than can be planned.
        StageError: A run failed, or LoadGen's files have no verdict or no schedule.
    """
    scheduled = name == "Server"
    if scheduled and load.target_qps * load.seconds > _MOST_QUERIES:
        raise RequestError(
            f"scenario 'server': {load.target_qps:,.0f} queries a second for {load.seconds:g} s are more than the "
            f"{_MOST_QUERIES:,} that can be planned",
            hint=f"--target-qps {_MOST_QUERIES / load.seconds:.0f} at most, or a shorter --duration",
        )
    loadgen = need("mlperf_loadgen", by=f"scenario '{name}'")
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, name)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, round(load.seconds * 1e3))
    settings.min_query_count = load.n
    configure(settings, load)
    for steps in streams:  # the first run after a pause is slower, which no query is to blame for
        _run_steps(steps)
    if scheduled:  # otherwise a queue that only grows is issued to its end, and every query of it is answered
        capacity = len(streams) * 1e3 / max(load.pace_ms, 1e-3)
        settings.server_max_async_queries = max(_FEWEST_WAITING, round(capacity * max(load.seconds, 1.0)))
    with temporary_folder() as folder:
        with _served(streams, load.batch, loadgen, queued=scheduled) as system:
            begun = time.perf_counter_ns()
            _start(loadgen, system, settings, folder, trace=scheduled)
            seconds = (time.perf_counter_ns() - begun) / 1e9
        if system.error is not None:
            raise StageError(f"scenario '{name}': a run failed: {system.error}") from system.error
        result = read_summary((folder / f"{_PREFIX}summary.txt").read_text(encoding="utf-8"))
        if not scheduled:
            # Offline is a single query of all images, so the runs are its samples.
            return _turn_of(system.runs if name == "Offline" else system.queries, seconds), result
        early = _ENDED_EARLY.search((folder / f"{_PREFIX}detail.txt").read_text(encoding="utf-8"))
        if early is not None:
            why = f"The engine cannot keep up: {early[2]} of {early[1]} queries were waiting, and no more were issued."
            result = replace(result, sentence=f"{why} {result.sentence}")
        with (folder / f"{_PREFIX}trace.json").open(encoding="utf-8") as trace:
            queries = read_schedule(trace, min(issued for issued, _ in system.queries))
    if len(queries) != len(system.queries):
        raise StageError(f"LoadGen's trace holds {len(queries)} queries, and {len(system.queries)} were answered")
    return _turn_of(queries, seconds), result


def read_schedule(trace: Iterable[str], first_ns: int) -> Runs:
    """Read when each query was scheduled and completed from LoadGen's trace.

    Args:
        trace: Lines of the trace: a query's has ``ts``, its scheduled time in µs, and when it was issued and completed
            in ns from there.
        first_ns: Time at which the first query was issued, on this process's clock.
    """
    found = [match for line in trace if (match := _SCHEDULED.search(line))]
    planned = [(round(1e3 * float(match[1])), int(match[2]), int(match[3])) for match in found]
    if not planned:
        return []
    zero = first_ns - min(scheduled + issued for scheduled, issued, _ in planned)
    return [(zero + scheduled, zero + scheduled + completed) for scheduled, _, completed in planned]


def read_summary(text: str) -> LoadGenResult:
    """Parse LoadGen's summary: its verdict, its sentences and its numbers.

    Raises:
        StageError: The summary has no verdict.
    """
    verdict = re.search(r"^Result is : (VALID|INVALID)$", text, re.MULTILINE)
    if verdict is None:
        raise StageError(f"LoadGen's summary holds no verdict: {text[:200]!r}")
    pairs = (line.partition(" : ") for line in text.split("Test Parameters Used")[0].splitlines())
    return LoadGenResult(
        valid=verdict[1] == "VALID",
        sentence=_sentence(text),
        version=library_version(PACKAGE),
        summary=tuple((key.strip(), value.strip()) for key, sign, value in map(_colon, pairs) if sign and value),
    )


def _colon(parts: tuple[str, str, str]) -> tuple[str, str, str]:
    """Split lines such as ``Samples per second: 12``, which LoadGen writes without a space before the colon."""
    return parts if parts[1] else parts[0].partition(": ")


def _sentence(text: str) -> str:
    """Join the lines under ``Recommendations:`` and ``Early Stopping Result:`` to one text, verbatim."""
    lines, in_section = list[str](), False
    for line in text.splitlines():
        if line.startswith(("Recommendations:", "Early Stopping Result:")):
            in_section = True
        elif not line.startswith(" "):
            in_section = False
        elif in_section:
            lines.append(line.strip())
    return " ".join(lines).removeprefix("* ").replace(". * ", ". ").replace(" * ", "; ")


class _Query:
    """One query of LoadGen, split into batches; it is complete when all of them have ended."""

    def __init__(self, samples: list[Any], batch: int) -> None:
        self.issued = time.perf_counter_ns()
        self.parts = [samples[start : start + batch] for start in range(0, len(samples), batch)]
        self._left, self._lock = len(self.parts), threading.Lock()

    def end_batch(self) -> bool:
        """Count one batch as ended, and return whether it was the last."""
        with self._lock:
            self._left -= 1
            return self._left == 0


class _System:
    """The system under test, in LoadGen's terms.

    With one stream and queries that wait for each other, runs happen in the thread in which LoadGen calls: handing a
    query to another thread would cost tens of µs. Otherwise every stream has a thread, and all take from one queue.
    """

    def __init__(self, streams: Sequence[Steps], batch: int, loadgen: Any, *, queued: bool) -> None:
        self.queries, self.runs = Runs(), Runs()
        self.error: Exception | None = None
        self._batch, self._loadgen = batch, loadgen
        self._alone = None if queued or len(streams) > 1 else streams[0]
        self._waiting: queue.SimpleQueue[tuple[_Query, list[Any]] | None] = queue.SimpleQueue()
        served = streams if self._alone is None else ()
        self._threads = [threading.Thread(target=self._serve, args=(steps,), daemon=True) for steps in served]
        for thread in self._threads:
            thread.start()

    def issue(self, samples: list[Any]) -> None:
        """Accept one query of LoadGen."""
        query = _Query(samples, self._batch)
        for part in query.parts:
            if self._alone is None:
                self._waiting.put((query, part))
            else:
                self._complete(query, part, self._alone)

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, steps: Steps) -> None:
        while (job := self._waiting.get()) is not None:
            self._complete(*job, steps)

    def _complete(self, query: _Query, part: list[Any], steps: Steps) -> None:
        begun = time.perf_counter_ns()
        try:
            if self.error is None:
                _run_steps(steps)
        except Exception as error:  # noqa: BLE001  # LoadGen waits for every response; raised once it has them
            self.error = error
        ended = time.perf_counter_ns()
        self.runs.append((begun, ended))
        if query.end_batch():
            self.queries.append((query.issued, ended))
        response = self._loadgen.QuerySampleResponse
        self._loadgen.QuerySamplesComplete([response(sample.id, 0, 0) for sample in part])


@contextmanager
def _served(streams: Sequence[Steps], batch: int, loadgen: Any, *, queued: bool) -> Iterator[_System]:
    system = _System(streams, batch, loadgen, queued=queued)
    try:
        yield system
    finally:
        system.close()


def _start(loadgen: Any, system: _System, settings: Any, folder: Path, *, trace: bool) -> None:
    out, log = loadgen.LogOutputSettings(), loadgen.LogSettings()
    out.outdir, out.prefix, out.copy_summary_to_stdout = str(folder), _PREFIX, False
    log.log_output, log.enable_trace = out, trace
    sut = loadgen.ConstructSUT(system.issue, lambda: None)
    library = loadgen.ConstructQSL(1, 1, lambda _: None, lambda _: None)
    try:
        loadgen.StartTestWithLogSettings(sut, library, settings, log, str(folder / "audit.config"))
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)


def _run_steps(steps: Steps) -> None:
    for step in steps:
        step()


def _turn_of(runs: Runs, seconds: float) -> Turn:
    ordered = sorted(runs, key=lambda one: one[1])
    return Turn(
        samples_ms=tuple((ended - begun) / 1e6 for begun, ended in ordered),
        starts_ns=tuple(begun for begun, _ in ordered),
        h2d_ms=(),
        d2h_ms=(),
        seconds=seconds,
    )
