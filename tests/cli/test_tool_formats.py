"""A bench in the words of trtexec, Model Navigator, benchmark_app and LoadGen."""

import json
from dataclasses import replace

import numpy as np
import pytest
from bench_records import measurement

from deploy_kit.cli import _tool_formats
from deploy_kit.records.layer_times import LayerProfile, ProfiledLayer
from deploy_kit.records.measurements import Bench, DeviceTimes, Measurement

# Keys of trtexec's --exportTimes (TensorRT 11, sampleReporting.cpp).
TRTEXEC = {
    "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs", "endD2hMs",
    "h2dMs", "computeMs", "d2hMs", "latencyMs",
}  # fmt: skip


def whole() -> Measurement:
    return replace(
        measurement("one", [5.0, 7.0]), span="whole", starts_ms=(0.0, 6.0), h2d_ms=(1.0, 2.0), d2h_ms=(0.5, 1.0),
        round_s=(0.012,),
    )  # fmt: skip


def test_every_run_has_trtexec_s_keys_and_its_engine() -> None:
    items = _tool_formats.times(Bench(measurements=(whole(),)))

    assert [set(item) - TRTEXEC for item in items] == [{"engine", "batch", "clock"}] * 2
    assert all(set(item) > TRTEXEC for item in items)


def test_latency_is_the_sum_of_its_parts_as_trtexec_defines_it() -> None:
    for item in _tool_formats.times(Bench(measurements=(whole(),))):
        assert item["latencyMs"] == pytest.approx(item["h2dMs"] + item["computeMs"] + item["d2hMs"])
        assert item["endD2hMs"] - item["startH2dMs"] == pytest.approx(item["latencyMs"])
        assert item["endH2dMs"] == item["startComputeMs"] == item["startH2dMs"] + item["h2dMs"]


def test_where_the_device_times_itself_trtexec_s_keys_are_its_times_and_the_others_the_host_s() -> None:
    device = DeviceTimes(compute_ms=(3.0, 3.5), h2d_ms=(0.5, 0.75), d2h_ms=(0.25, 0.5))
    measured = replace(whole(), device=device)

    items, found = _tool_formats.times(Bench(measurements=(measured,))), _tool_formats.summary(measured)

    assert [(item["clock"], item["computeMs"], item["latencyMs"]) for item in items] == [
        ("device", 3.0, 3.75),
        ("device", 3.5, 4.75),
    ]
    assert items[1]["endD2hMs"] - items[1]["startH2dMs"] == pytest.approx(4.75)
    medians = [found[f"{name}Ms"]["median"] for name in ("latency", "h2d", "compute", "d2h")]
    assert medians == pytest.approx([4.25, 0.625, 3.25, 0.375])
    assert (found["clock"], found["latency (ms)"], found["avg_latency"]) == ("device", 6.0, 6.0)


def test_a_device_s_times_of_a_span_without_copies_are_all_compute() -> None:
    measured = replace(measurement("one", [5.0]), device=DeviceTimes(compute_ms=(4.0,)))

    found = _tool_formats.summary(measured)

    assert (found["latencyMs"]["median"], found["computeMs"]["median"], found["h2dMs"]) == (4.0, 4.0, None)


def test_a_span_without_copies_is_all_compute() -> None:
    item = _tool_formats.times(Bench(measurements=(measurement("one", [5.0]),)))[0]

    assert (item["h2dMs"], item["computeMs"], item["d2hMs"], item["latencyMs"]) == (0, 5, 0, 5)


def test_the_summary_holds_the_percentiles_that_samples_carry() -> None:
    samples = np.random.default_rng(0).gamma(2, 3, 250)

    found = _tool_formats.summary(measurement("one", samples.tolist()))

    assert found["p50_latency"] == found["latency (ms)"] == pytest.approx(np.percentile(samples, 50))
    assert found["p95_latency"] == pytest.approx(np.percentile(samples, 95))
    assert found["latencyMs"]["percentile(95%)"] == pytest.approx(np.percentile(samples, 95))
    assert (found["p99_latency"], "percentile(99%)" in found["latencyMs"]) == (None, False)
    assert found["std_latency"] == pytest.approx(samples.std())


def test_the_summary_counts_images_and_runs() -> None:
    found = _tool_formats.summary(replace(whole(), batch=4))

    assert (found["throughput"], found["qps"]) == (pytest.approx(4 * 2 / 0.012), pytest.approx(2 / 0.012))
    assert (found["batch_size"], found["request_count"], found["total execution time (ms)"]) == (4, 2, 12)


def test_copies_that_were_not_measured_are_not_zero() -> None:
    found = _tool_formats.summary(measurement("one", [5.0]))

    assert (found["h2dMs"], found["d2hMs"]) == (None, None)


def profiled(*layers: tuple[str, float]) -> LayerProfile:
    return LayerProfile(
        source="",
        runs=3,
        run_ms=9.0,
        layers=tuple(
            ProfiledLayer(name=name, op="", kind="conv", region="stem", total_ms=ms, mean_ms=ms / 3, median_ms=ms / 4)
            for name, ms in layers
        ),
    )


def test_a_profile_has_the_keys_of_trtexec() -> None:
    written = _tool_formats.layers(profiled(("a", 9), ("b", 3)))

    assert written == [
        {"count": 3},
        {"name": "a", "timeMs": 9, "averageMs": 3, "medianMs": 2.25, "percentage": 75},
        {"name": "b", "timeMs": 3, "averageMs": 1, "medianMs": 0.75, "percentage": 25},
    ]
    json.dumps(written)


def test_a_layer_of_a_profile_that_took_no_time_has_no_share() -> None:
    assert _tool_formats.layers(profiled(("a", 0)))[1]["percentage"] == 0
