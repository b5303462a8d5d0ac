"""Three words: what rejects, what leaves undecided, and what is never accepted."""

import dataclasses
import math
from typing import Any

import pytest
from report_records import made, measurement, parity, row

from deploy_kit.cli._verdict_codes import EXIT_CODES, report_code
from deploy_kit.records import engine_table
from deploy_kit.records.parity import Diagnosis, Drop
from deploy_kit.records.results import EngineRow, Limits, ParityReport
from deploy_kit.records.verdict import Verdict, decide

LABEL = "int8 · openvino"
PERMUTED = "labels look permuted"


def judged(**facts: Any) -> Verdict:
    return parity(LABEL, **({"limits": Limits()} | facts)).verdict


def drop(points: float, high: float) -> dict[str, Any]:
    found = Drop(what="top-1", points=points, low=points - (high - points), high=high, needed=500)
    return {"drop": found, "drop_pp": points, "drop_pp_interval": high - points}


def row_of(checked: ParityReport, **facts: Any) -> EngineRow:
    return row("int8", "openvino", parity=checked, **facts)


def test_an_accepted_engine_has_its_limits_beside_the_word() -> None:
    verdict = judged(limits=Limits(min_sqnr_db=15, max_drop=0.5, min_agreement=0.965), **drop(0.1, 0.3))

    assert verdict.text == "accepted (SQNR ≥ 15 dB, agreement ≥ 96.5 %, drop ≤ 0.5 points)"


def test_an_accepted_engine_without_limits_says_that_none_is_set() -> None:
    assert judged().text == "accepted (no limit is set)"


def test_too_few_images_leave_it_undecided() -> None:
    verdict = judged(limits=Limits(max_drop=1), **drop(0.1, 5.0))

    assert verdict.word == "undecided"
    assert verdict.reasons[0].startswith("too few images to tell")


def test_a_drop_over_the_limit_is_rejected_on_few_images_too() -> None:
    verdict = judged(limits=Limits(max_drop=1), **drop(1.7, 8.9))

    assert verdict.word == "rejected"
    assert verdict.reasons[0].endswith("at most 1 asked for; on these 100 images as little as -5.5 is not ruled out")


def test_a_limit_on_labels_without_labels_is_undecided() -> None:
    verdict = judged(limits=Limits(max_drop=1), drop_pp=None, drop=None, top1=None)

    assert (verdict.word, verdict.reasons) == (
        "undecided", ("top-1 drop cannot be measured: the check images have no labels",)
    )  # fmt: skip


@pytest.mark.parametrize("limits", [Limits(), Limits(min_sqnr_db=20), Limits(max_drop=5)])
def test_on_permuted_labels_nothing_is_accepted(limits: Limits) -> None:
    verdict = judged(limits=limits, doubts=(PERMUTED,), **drop(0.1, 0.2))

    assert (verdict.word, verdict.reasons) == ("undecided", (PERMUTED,))


def test_permuted_labels_break_no_limit_on_labels() -> None:
    verdict = judged(limits=Limits(min_top1=0.99, max_drop=0.3), doubts=(PERMUTED,), **drop(0.5, 1.2))

    assert verdict.word == "undecided"
    assert verdict.reasons[-1] == PERMUTED


def test_a_low_score_of_the_checkpoint_itself_is_the_first_doubt() -> None:
    first = (
        "the checkpoint itself is right on only 26.8 % of these images: its preprocessing or the labels are in doubt, "
        "unless --min-top1 says that no more is expected"
    )

    assert judged(top1_reference=0.268, doubts=(PERMUTED,)).reasons == (first, PERMUTED)
    assert judged(top1_reference=0.7, doubts=(PERMUTED,)).reasons == (PERMUTED,)


def test_a_broken_limit_is_the_first_reason_however_low_the_score() -> None:
    verdict = judged(top1_reference=0.268, limits=Limits(min_sqnr_db=60))

    assert verdict.word == "rejected"
    assert verdict.reasons == judged(limits=Limits(min_sqnr_db=60)).reasons


def test_a_low_score_of_the_checkpoint_accepts_nothing_unless_no_more_is_expected() -> None:
    low = {"top1_reference": 0.268, "top1": 0.265}

    assert judged(**low).word == "undecided"
    assert judged(**low, limits=Limits(min_top1=0.25)).word == "accepted"
    assert judged(**low, limits=Limits(min_top1=0.9)).word == "rejected"


def test_a_broken_limit_on_logits_rejects_whatever_the_labels_are() -> None:
    assert judged(limits=Limits(min_sqnr_db=60), doubts=(PERMUTED,)).word == "rejected"


def test_a_preprocessing_that_scores_better_leaves_it_undecided() -> None:
    found = Diagnosis(graph="a", images="b", n=1, score=0.3, attempts=(), words=(), found="channels as BGR")

    assert judged(diagnosis=found).reasons == ("the images look wrongly preprocessed: channels as BGR scores better",)
    assert judged(diagnosis=dataclasses.replace(found, found="")).word == "accepted"


def test_a_logit_that_is_no_number_is_rejected() -> None:
    assert judged(max_error=math.nan, doubts=(PERMUTED,)).word == "rejected"


def test_an_invalid_latency_leaves_an_accurate_engine_undecided() -> None:
    timed = dataclasses.replace(measurement(LABEL, (1.5,) * 1000), invalid=("the clock fell",))
    found = row_of(parity(LABEL), measurement=timed, misses=("p99 9 ms, at most 8 ms asked for",))

    assert found.verdict == "undecided: latency INVALID: the clock fell"


def test_a_missed_budget_rejects_an_accurate_engine() -> None:
    found = row_of(parity(LABEL), measurement=measurement(LABEL, (1.5,) * 1000), misses=("p99 9 ms",))

    assert found.verdict == "rejected: p99 9 ms"


def test_a_doubt_does_not_hide_a_rejection() -> None:
    verdict = decide(broken=("SQNR 10 dB",), doubts=(), limits=())

    assert verdict.with_doubts(("the clock fell",)) == verdict


REJECTED, DOUBTFUL = parity(LABEL, limits=Limits(min_sqnr_db=60)), parity(LABEL, doubts=(PERMUTED,))
INVALID = {"measurement": dataclasses.replace(measurement(LABEL, (1.5,) * 1000), invalid=("the clock fell",))}


@pytest.mark.parametrize(
    ("rows", "code", "allowed"),
    [
        ((row_of(parity(LABEL)),), 0, 0),
        ((row_of(parity(LABEL)), row_of(DOUBTFUL)), 6, 6),
        ((row_of(REJECTED), row_of(DOUBTFUL)), 1, 1),
        ((row_of(parity(LABEL), **INVALID),), 6, 0),
        ((row_of(DOUBTFUL, **INVALID),), 6, 6),
        ((row_of(REJECTED, **INVALID),), 1, 1),
        ((row_of(REJECTED), row_of(parity(LABEL), failed="it crashed")), 5, 5),
        ((row_of(parity(LABEL), left_out="no GPU"),), 6, 6),
    ],
)
def test_the_verdict_gives_the_exit_code(rows: tuple[EngineRow, ...], code: int, allowed: int) -> None:
    report = made(*rows)

    assert (report_code(report, allow_invalid=False), report_code(report, allow_invalid=True)) == (code, allowed)


def test_a_report_of_engines_none_of_which_ran_says_so() -> None:
    report = made(row_of(parity(LABEL), left_out="package 'onnxruntime' is not installed on 'board'"))

    assert report.verdict == "undecided"
    assert engine_table.summary(report).startswith("No engine was checked. Made ")


def test_every_word_has_its_code() -> None:
    assert EXIT_CODES == {"accepted": 0, "rejected": 1, "undecided": 6}
