"""What is said of latencies beside each other."""

import dataclasses

from report_records import measurement, row

from deploy_kit.analysis import latency_rows
from deploy_kit.records.measurements import SpeedUp


def test_a_speed_up_over_a_baseline_of_other_threads_is_said_to_be_one() -> None:
    base = measurement("fp32 · onnxruntime", (2.0,) * 100)
    one = dataclasses.replace(measurement("int8 · onnxruntime", (1.0,) * 100), settings=(("threads", "1"),))
    faster = SpeedUp(ratio=2.0, low=1.9, high=2.1, baseline="fp32 · onnxruntime")
    baseline = row("fp32", "onnxruntime", measurement=base)

    assert latency_rows.unlike_remarks([baseline, row("int8", "onnxruntime", measurement=one, speed_up=faster)]) == [
        "int8 · onnxruntime ran with threads 1, and its baseline fp32 · onnxruntime with 2"
    ]
    alike = dataclasses.replace(one, settings=(("device", "CPU"), ("threads", "2")))
    rows = [baseline, row("int8", "onnxruntime", measurement=alike, speed_up=faster)]
    assert latency_rows.unlike_remarks(rows) == []
