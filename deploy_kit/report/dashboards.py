"""A bench in the words of other tools, so that what reads theirs reads ours: trtexec, benchmark_app, Model Navigator.

docs/measuring.md lists the keys and where each comes from.
"""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from deploy_kit.measurements import Bench, Measurement, samples_for


def times(found: Bench) -> list[dict[str, Any]]:
    """Give every run as trtexec's ``--exportTimes`` does, with the engine and the batch beside it; all in ms."""
    return [
        {"engine": m.label, "batch": m.batch, **_remark(m), **item} for m in found.measurements for item in _items(m)
    ]


def summary(measured: Measurement) -> dict[str, Any]:
    """Give one measurement under the names of all three tools; a percentile that samples cannot carry is null."""
    samples = measured.samples_ms
    return {
        "engine": measured.label,
        **_remark(measured),
        # Model Navigator's ProfilingResults
        "batch_size": measured.batch,
        "request_count": len(samples),
        "avg_latency": statistics.fmean(samples),
        "std_latency": statistics.pstdev(samples),
        **{f"p{percent}_latency": measured.percentile_ms(percent) for percent in (50, 90, 95, 99)},
        "throughput": measured.images_per_s,
        # trtexec's performance summary
        "qps": measured.qps,
        "latencyMs": _spread(samples),
        "computeMs": _spread(measured.compute_ms),
        "h2dMs": _spread(measured.h2d_ms),
        "d2hMs": _spread(measured.d2h_ms),
        # benchmark_app's benchmark_report.csv
        "number of parallel infer requests": measured.streams,
        "total number of iterations": len(samples),
        "total execution time (ms)": 1e3 * sum(measured.round_s),
        "latency (ms)": statistics.median(samples),
        "avg latency": statistics.fmean(samples),
        "min latency": min(samples),
        "max latency": max(samples),
        # LoadGen's summary, word for word
        "loadgen": dict(measured.loadgen.summary) if measured.loadgen else None,
    }


def _remark(measured: Measurement) -> dict[str, str]:
    return {"remark": measured.emulated} if measured.emulated else {}


def _items(m: Measurement) -> Iterator[dict[str, float]]:
    empty = (0.0,) * len(m.samples_ms)
    starts = m.starts_ms or empty
    for start, whole, h2d, compute, d2h in zip(
        starts, m.samples_ms, m.h2d_ms or empty, m.compute_ms, m.d2h_ms or empty, strict=True
    ):
        computes, copies_out = start + h2d, start + h2d + compute
        yield {
            "startH2dMs": start,
            "endH2dMs": computes,
            "startComputeMs": computes,
            "endComputeMs": copies_out,
            "startD2hMs": copies_out,
            "endD2hMs": start + whole,
            "h2dMs": h2d,
            "computeMs": compute,
            "d2hMs": d2h,
            "latencyMs": whole,
        }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Give what trtexec prints of a distribution; nothing of one that was not measured."""
    if not values:
        return None
    ordered = sorted(values)
    carried = [percent for percent in (90, 95, 99) if len(ordered) >= samples_for(percent)]
    cuts = statistics.quantiles(ordered, n=100, method="inclusive") if carried else []
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": statistics.fmean(ordered),
        "median": statistics.median(ordered),
        **{f"percentile({percent}%)": cuts[percent - 1] for percent in carried},
    }
