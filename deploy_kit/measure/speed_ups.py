"""How much faster one measurement is than another of the same run."""

import statistics

from deploy_kit.measure import latency
from deploy_kit.records.measurements import Measurement, SpeedUp


def speed_up(baseline: Measurement, candidate: Measurement) -> SpeedUp | None:
    """Compare two measurements of one run: round by round, or, of a single round, each by itself.

    Returns:
        None where one of the machines is emulated: its times measure the emulator.
    """
    if baseline.emulated or candidate.emulated:
        return None
    if len(baseline.rounds) == len(candidate.rounds) > 1:
        medians = ([statistics.median(turn) for turn in m.by_round] for m in (baseline, candidate))
        ratio, low, high = latency.ratio_in_turns(*medians)
        return SpeedUp(ratio=ratio, low=low, high=high, baseline=baseline.label)
    ratio, low, high = latency.ratio_apart(baseline.samples_ms, candidate.samples_ms)
    return SpeedUp(ratio=ratio, low=low, high=high, baseline=baseline.label, interleaved=False)
