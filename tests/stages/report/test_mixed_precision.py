"""The mix of precisions in words: numbers in their columns, estimates called so, and what was not tried a dash."""

import dataclasses

from mixes import KEPT, MIX, UNTRIED

from deploy_kit.stages.report import mixed_precision
from deploy_kit.stages.report.markdown import section


def test_a_decision_has_a_text_for_each_heading() -> None:
    assert dict(zip(mixed_precision.HEADINGS, mixed_precision.cells(KEPT), strict=True)) == {
        "group": "denseblock1.denselayer1",
        "precision": "fp32",
        "SQNR alone": "12.3 dB",
        "KL alone": "0.012",
        "saved by int8 (estimate)": "+0.046 ms",
        "MMACs": "1.2",
        "why": "the budget does not hold with it in int8",
    }
    assert mixed_precision.cells(UNTRIED) == ("stem", "int8", "–", "–", "–", "0.2", "–")


def test_a_mix_is_told_with_its_interval_and_its_estimate() -> None:
    assert MIX.kept == ("denseblock1.denselayer1",)
    assert mixed_precision.sentence(MIX) == (
        "Budget 0.3 points, kept. In float: denseblock1.denselayer1. On 2000 tuning images (tune.npz), computed in "
        "onnxruntime: top-1 drop +0.05 points, at most +0.21 (95 %); everything in int8 +1.50, at most +2.40. Each "
        "group alone in int8 on the first 256 of them. Latency, an estimate from a profiler: 0.669 ms, everything in "
        "int8 0.643 ms, in float 0.755 ms."
    )


def test_what_has_no_estimate_says_why() -> None:
    bare = dataclasses.replace(MIX, estimated_ms=None, times_from="engine 'x' does not time its layers")

    assert mixed_precision.latency(bare) == "not estimated: engine 'x' does not time its layers"
    assert mixed_precision.latency(dataclasses.replace(bare, times_from="")) == ""


def test_a_section_names_the_variant_and_has_a_line_for_each_group() -> None:
    (part,) = mixed_precision.sections([MIX], {"a" * 64: "int8-mixed"})
    lines = section(part)

    assert lines[0] == "## Precision by layer group: int8-mixed"
    assert sum(line.startswith("| denseblock1.denselayer1 ") for line in lines) == 1
    assert mixed_precision.sections([], {}) == []


def test_a_budget_that_held_at_once_has_no_table() -> None:
    (part,) = mixed_precision.sections([dataclasses.replace(MIX, n_sensitivity=0)], {"a" * 64: "int8"})

    assert not [line for line in section(part) if line.startswith("|")]
