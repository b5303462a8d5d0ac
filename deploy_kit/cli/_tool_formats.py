"""A bench in the formats of trtexec, benchmark_app and Model Navigator, for what reads theirs.

trtexec's times are the device's own (CUDA events), so its keys hold those where the device times itself; ``clock`` says
whose they are. All other keys are host time. docs/measuring.md lists the keys and where each comes from.
"""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from deploy_kit.records.layer_times import LayerProfile
from deploy_kit.records.measurements import Bench, Measurement, samples_for


def times(measured: Bench) -> list[dict[str, Any]]:
    """Return every run as trtexec's ``--exportTimes`` does, with its engine and batch; all times in ms."""
    return [
        {"engine": m.label, "batch": m.batch, "clock": _clock(m), **_remark(m), **item}
        for m in measured.measurements
        for item in _items(m)
    ]


def layers(profile: LayerProfile) -> list[dict[str, Any]]:
    """Return a profile as trtexec's ``--exportProfile`` does: the count, then a table for each layer; times in ms."""
    total = sum(layer.total_ms for layer in profile.layers)
    rows = [
        {
            "name": layer.name,
            "timeMs": layer.total_ms,
            "averageMs": layer.mean_ms,
            "medianMs": layer.median_ms,
            "percentage": 100 * layer.total_ms / total if total else 0.0,
        }
        for layer in profile.layers
    ]
    return [{"count": profile.runs}, *rows]


def summary(measured: Measurement) -> dict[str, Any]:
    """Return one measurement under the keys of all three tools; a percentile the samples cannot carry is null."""
    samples, parts = measured.samples_ms, _parts(measured)
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
        "clock": _clock(measured),
        "latencyMs": _spread(_sums(parts)),
        **{f"{name}Ms": _spread(times) for name, times in parts.items()},
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


def _clock(measured: Measurement) -> str:
    return "device" if measured.device is not None else "host"


def _parts(measured: Measurement) -> dict[str, tuple[float, ...]]:
    """Return the times of each part of a run, by the device's clock where it has one; empty for a copy not made."""
    source = measured.device or measured
    return {"h2d": source.h2d_ms, "compute": source.compute_ms, "d2h": source.d2h_ms}


def _sums(parts: dict[str, tuple[float, ...]]) -> tuple[float, ...]:
    """Add the parts of each run: what trtexec calls latency."""
    return tuple(map(sum, zip(*filter(None, parts.values()), strict=True)))


def _items(m: Measurement) -> Iterator[dict[str, float]]:
    empty, parts = (0.0,) * len(m.samples_ms), _parts(m)
    columns = (parts["h2d"] or empty, parts["compute"], parts["d2h"] or empty)
    for start, h2d, compute, d2h in zip(m.starts_ms or empty, *columns, strict=True):
        computes, copies_out = start + h2d, start + h2d + compute
        yield {
            "startH2dMs": start,
            "endH2dMs": computes,
            "startComputeMs": computes,
            "endComputeMs": copies_out,
            "startD2hMs": copies_out,
            "endD2hMs": copies_out + d2h,
            "h2dMs": h2d,
            "computeMs": compute,
            "d2hMs": d2h,
            "latencyMs": h2d + compute + d2h,
        }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Return what trtexec prints of a distribution; None of one that was not measured."""
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
