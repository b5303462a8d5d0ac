"""What several tests of emulated_times share."""

import dataclasses

from deploy_kit.machine import environment
from deploy_kit.records.measurements import Measurement

MARK = "emulated: not a measurement"


HERE = environment.describe_machine()


PLAYED = dataclasses.replace(HERE, host="Linux 6.1 aarch64", emulated="qemu-aarch64-static")


def measurement(label: str, ms: float, machine: environment.Environment = PLAYED) -> Measurement:
    return Measurement(
        artifact="a" * 64, label=label, batch=1, span="compute", samples_ms=(ms,) * 24, rounds=(0, 4, 8, 12, 16, 20),
        warmup_runs=60, steady=True, settings=(), environment=machine, when="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
