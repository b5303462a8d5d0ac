"""deploykit's latency against that of the runtimes' own tools: same file, same settings, in turns.

ONNX Runtime: the loop of ``onnxruntime.tools.onnxruntime_test`` (`run_model`, its code unchanged) over a session with
deploykit's options. OpenVINO: ``benchmark_app`` as a command, synchronous, with every setting that its defaults would
choose otherwise.
"""

import contextlib
import io
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import child, page
from benchmarks.candidates import Stock, Unavailable
from benchmarks.runners import open_session
from benchmarks.subjects import CALIBRATION, Subject
from benchmarks.workshop import Workshop
from deploy_kit import images
from deploy_kit.base.errors import StageError
from deploy_kit.measure import latency, stopwatch

LIMIT_PERCENT = 5.0
_WARM_RUNS = 10


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One file timed by both.

    Attributes:
        subject: The net.
        tool: Whose loop.
        settings: (setting, value) that both ran with.
        ours_ms: By round: deploykit's.
        theirs_ms: By round: the tool's.
        statistic: What of a turn is compared: what the tool gives.
        runs: Number of runs in a turn.
        why: Why there are no numbers; empty where there are.
    """

    subject: str
    tool: str
    settings: tuple[tuple[str, str], ...] = ()
    ours_ms: tuple[float, ...] = ()
    theirs_ms: tuple[float, ...] = ()
    statistic: str = ""
    runs: int = 0
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The pairs of the section."""

    pairs: tuple[Pair, ...]


@dataclass(frozen=True, kw_only=True)
class Net:
    """A net, and how long it is timed.

    Attributes:
        subject: The net.
        runs: Number of runs in a turn of ``benchmark_app``, whose start takes seconds; it gives their median.
        rounds: Number of its rounds.
        short_rounds: Number of rounds of ``onnxruntime_test``. It gives the mean of a turn, so its turns are two runs
            and many: few of them meet a busy moment of the machine.
    """

    subject: Subject
    runs: int
    rounds: int
    short_rounds: int


def measure(nets: tuple[Net, ...], workshop: Workshop, threads: int) -> Agreement:
    """Time the stock export of every net with both loops, in turns."""
    pairs = []
    for net in nets:
        subject = net.subject
        image = workshop.folder / f"agreement-{subject.preprocess.channels}x{subject.preprocess.height}.npy"
        used = images.open_set(CALIBRATION, subject.preprocess).first(1)
        np.save(image, next(used.batches(subject.preprocess, 1)))
        common = {"path": str(workshop.file(Stock(recipe="raw"), subject, 0)), "image": str(image), "threads": threads}
        for tool, function, runs, rounds in (
            ("onnxruntime_test", "onnxruntime", 2, net.short_rounds),
            ("benchmark_app", "openvino", net.runs, net.rounds),
        ):
            sys.stderr.write(f"agreement: {subject.name}, {tool}\n")
            ended = child.call(f"agreement:{function}", rounds=rounds, runs=runs, **common)
            pairs.append(_pair(subject, tool, runs, ended))
    return Agreement(pairs=tuple(pairs))


def onnxruntime(path: str, image: str, runs: int, rounds: int, threads: int) -> dict[str, Any]:
    """Take turns with ONNX Runtime's own loop: what a child process does."""
    import onnxruntime as runtime
    from onnxruntime.tools import onnxruntime_test as tool

    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    pixels, ours = np.load(image), open_session("onnxruntime", path, {}, threads)
    feeds = {session.get_inputs()[0].name: pixels}
    # The tool loads the file itself, with default options; here it is given a session with ours, and times as it does.
    tool.onnxrt = SimpleNamespace(InferenceSession=lambda *_, **__: session, get_available_providers=list)

    def theirs() -> float:
        session.run([], feeds)  # the first of a turn is discarded on both sides
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            tool.run_model(path, runs, feeds=feeds)
        return float(re.findall(r"avg latency: ([0-9.e+-]+) ms", said.getvalue())[0])

    ours.bind(pixels)
    stopwatch.sample_ms(ours.run, _WARM_RUNS)
    theirs()
    turns = [(statistics.fmean(stopwatch.take_turn(((ours.run,),), runs).samples_ms), theirs()) for _ in range(rounds)]
    return {"turns": turns, "settings": dict(ours.settings), "statistic": "mean"}


def openvino(path: str, image: str, runs: int, rounds: int, threads: int) -> dict[str, Any]:
    """Take turns with ``benchmark_app``: what a child process does."""
    program = shutil.which("benchmark_app", path=str(Path(sys.executable).parent)) or shutil.which("benchmark_app")
    if program is None:
        raise Unavailable("benchmark_app is not installed")
    one = {"-api": "sync", "-hint": "none", "-nstreams": "1"}  # it takes -nthreads only without a hint
    settings = {**one, "-nthreads": str(threads), "-infer_precision": "f32"}
    words = [word for pair in settings.items() for word in pair]
    command = (program, "-m", path, "-d", "CPU", "-niter", str(runs), *words)
    ours = open_session("openvino", path, {}, threads)
    ours.bind(np.load(image))
    stopwatch.sample_ms(ours.run, _WARM_RUNS)
    turns = []
    for _ in range(rounds):
        mine = statistics.median(stopwatch.take_turn(((ours.run,),), runs).samples_ms)
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        turns.append((mine, read_median_ms(ended.stdout + ended.stderr)))
    return {"turns": turns, "settings": {**ours.settings, **settings}, "statistic": "median"}


def read_median_ms(said: str) -> float:
    """Read the median out of what ``benchmark_app`` prints, which is µs below a millisecond.

    Raises:
        StageError: There is none.
    """
    found = re.search(r"Median:\s+([0-9.]+) (ms|us)", said)
    if found is None:
        raise StageError(f"benchmark_app gave no median: {said.strip()[-300:]}")
    return float(found[1]) * (1e-3 if found[2] == "us" else 1.0)


def render(found: Agreement) -> str:
    """Show the ratio of the two, and whether they agree within the limit."""
    text = (
        "The stock export of each net, timed by deploykit's loop and by the runtime's own tool in turns, with the same "
        "settings. The difference is the median over rounds of deploykit / tool, with its 95 % interval; "
        f"{LIMIT_PERCENT:g} % are allowed."
    )
    headings = ("net", "tool", "deploykit", "tool's own", "difference", "", "rounds × runs", "settings of both")
    return f"{text}\n\n{page.table(headings, [_row(pair) for pair in found.pairs])}"


def difference(pair: Pair) -> tuple[float, float, float]:
    """Return how much more deploykit shows than the tool, in percent, and its 95 % interval."""
    ratio, low, high = latency.ratio_in_turns(pair.ours_ms, pair.theirs_ms)
    return 100 * (ratio - 1), 100 * (low - 1), 100 * (high - 1)


def _row(pair: Pair) -> tuple[str, ...]:
    if pair.why:
        return (pair.subject, pair.tool, page.NONE, page.NONE, page.NONE, pair.why, page.NONE, page.NONE)
    percent, low, high = difference(pair)
    return (
        pair.subject,
        pair.tool,
        f"{pair.statistic} {statistics.median(pair.ours_ms):.3f} ms",
        f"{statistics.median(pair.theirs_ms):.3f} ms",
        f"{percent:+.1f} % [{low:+.1f}, {high:+.1f}]",
        _verdict(percent, low, high),
        f"{len(pair.ours_ms)} × {pair.runs}",
        ", ".join(f"{name} {value}" for name, value in pair.settings),
    )


def _verdict(percent: float, low: float, high: float) -> str:
    """Answer yes only where the whole interval is within the limit, and no only where none of it is."""
    if low >= -LIMIT_PERCENT and high <= LIMIT_PERCENT:
        return "agree"
    if high < -LIMIT_PERCENT or low > LIMIT_PERCENT:
        return "do NOT agree"
    return "within the limit, not its interval" if abs(percent) <= LIMIT_PERCENT else "beyond the limit, not shown"


def _pair(subject: Subject, tool: str, runs: int, ended: child.Outcome) -> Pair:
    if ended.why:
        return Pair(subject=subject.name, tool=tool, why=ended.why)
    ours, theirs = zip(*ended.value["turns"], strict=True)
    return Pair(
        subject=subject.name,
        tool=tool,
        settings=tuple(ended.value["settings"].items()),
        ours_ms=ours,
        theirs_ms=theirs,
        statistic=ended.value["statistic"],
        runs=runs,
    )
