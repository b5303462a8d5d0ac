"""What several tests of bench share."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stand_ins import PretendLink

from deploy_kit.machine import environment
from deploy_kit.recipe import BenchTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import Measurement

if TYPE_CHECKING:
    from tiny_line import Line

PART = BenchTable(rounds=4, runs=5, warmup_s=0.05)


HERE = environment.describe_machine()


COST = {"load_ms": 7.5, "first_ms": 3.5, "memory_before_mib": 40, "peak_memory_mib": 90}


WARM = {"runs": 60, "steady": True, "cost": COST}


def as_json() -> dict[str, Any]:
    return {"environment": codec.to_json(HERE)}


def turn(samples_ms: list[float]) -> dict[str, Any]:
    """Give the answer of a worker whose runs took this long, one after the other."""
    starts = itertools.accumulate((round(1e6 * sample) for sample in samples_ms[:-1]), initial=1_000)
    taken = {"samples_ms": samples_ms, "starts_ns": list(starts)[: len(samples_ms)], "h2d_ms": [], "d2h_ms": []}
    return {"turn": taken | {"seconds": sum(samples_ms) / 1e3}, "loadgen": None}


def timing(folder: Path, samples_ms: Any = None, **answers: Any) -> PretendLink:
    """Give a link whose engines count up 1 ms, 2 ms, … with every run, each for itself."""
    clock = itertools.count(1)

    def time(arguments: dict[str, Any]) -> dict[str, Any]:
        return turn([float(next(clock)) for _ in range(arguments["n"])])

    table = {
        "why_unavailable": {"why": ""},
        "open": {"batch": 1, "settings": {"threads": "2"}},
        "warm_up": WARM,
        "time": time if samples_ms is None else turn(samples_ms),
        "environment": as_json(),
    }
    return PretendLink(folder, table | answers)


def measurement(label: str, *rounds: list[float]) -> Measurement:
    """Give a measurement whose rounds hold these samples."""
    starts = itertools.accumulate((len(turn) for turn in rounds[:-1]), initial=0)
    return Measurement(
        artifact="0" * 64,
        label=label,
        batch=1,
        span="compute",
        samples_ms=tuple(itertools.chain(*rounds)),
        rounds=tuple(starts),
        warmup_runs=60,
        steady=True,
        settings=(),
        environment=HERE,
        when="2026-01-01T00:00:00+00:00",
    )


def pair(line: "Line") -> tuple[Artifact, Artifact]:
    """Give two engines that are built."""
    return line.built("fp32", "onnxruntime"), line.built("int8", "onnxruntime")
