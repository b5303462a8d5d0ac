"""What a check found, in words."""

from typing import Any

import pytest
from report_records import everything, made, parity, row, tables

from deploy_kit.records import engine_table
from deploy_kit.records.parity import Attempt, ClassScore, Consistency, Diagnosis, Drop, Flip, Flips, Scores
from deploy_kit.records.results import Limits, ParityReport
from deploy_kit.stages import report
from deploy_kit.stages.report import accuracy

LABEL = "int8 · openvino"


def checked(**changes: Any) -> ParityReport:
    facts: dict[str, Any] = {
        "n": 1000,
        "limits": Limits(max_drop=0.3),
        "drop": Drop(what="top-1", points=0.5, low=-0.1, high=1.1, lost=8, won=3, p=0.227),
        "flips": Flips(
            n=12, close_margin=0.4, close=9, worst=(Flip(image=3, name="image 3", margin=1.5, reference=1, found=2),)
        ),
        "scores": Scores(
            outputs="logits",
            measure="recall",
            classes=(
                ClassScore(index=0, name="coat", n=100, reference=0.8, found=0.75),
                ClassScore(index=1, name="", n=100, reference=0.9, found=0.95),
            ),
            top5_reference=0.999,
            top5=0.998,
            ece_reference=0.01,
            ece=0.015,
            mean_reference=0.85,
            mean=0.85,
        ),
        "consistency": Consistency(n=10, batch=8, positions=0.0, batches=1e-6, again=0.0, allowed=2e-3),
        "remarks": ("a remark of the check",),
    }
    return parity(LABEL, **facts | changes)


def told(made: ParityReport) -> dict[str, str]:
    return dict(accuracy.lines(made))


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("top-1", "93.00 % → 92.50 % [90.70, 93.97]; top-5 99.90 % → 99.80 %"),
        ("top-1 drop", "+0.50 [-0.10, +1.10] points, at most 0.3: not kept"),
        ("McNemar", "p = 0.23 (8 lost, 3 won)"),
        (
            "flips",
            "12 of 1000, 9 of them close calls (margin up to 0.4, the checkpoint's closest 5 %); largest margins: "
            "image 3 (1.5)",
        ),
        ("calibration error", "1.00 % → 1.50 % (+0.50 points)"),
        ("worst class", "coat: recall 75.0 % (-5.0 points, 100 images)"),
        ("consistency", "within 1e-06 of the largest output (0.002 allowed): places, runs, batch 1 as 8 (10 images)"),
        ("remark", "a remark of the check"),
        (
            "accuracy",
            "rejected: top-1 drop 0.5 points, at most 0.3 asked for; on these 1,000 images as little as -0.1 is not "
            "ruled out",
        ),
    ],
)
def test_a_check_is_told_in_lines(what: str, value: str) -> None:
    assert told(checked())[what] == value


def test_equal_bits_are_called_so() -> None:
    equal = Consistency(n=10, batch=1, positions=0.0, batches=None, again=0.0, allowed=2e-3)

    assert told(checked(consistency=equal))["consistency"] == "equal bits: places, runs (10 images)"


def test_no_flip_is_a_short_line() -> None:
    assert told(checked(flips=Flips(n=0, close_margin=0.4, close=0, worst=())))["flips"] == "0 of 1000"


def test_several_labels_an_image_are_told_by_auroc() -> None:
    several = Scores(
        outputs="sigmoid", measure="AUROC", classes=(ClassScore(index=4, name="", n=9, reference=0.9, found=0.8),),
        top5_reference=None, top5=None, ece_reference=0.1, ece=0.1, mean_reference=0.9, mean=0.8,
    )  # fmt: skip
    drop = Drop(what="mean AUROC", points=10, low=8, high=12)

    lines = told(checked(scores=several, drop=drop, top1=None, top1_reference=None, flips=None, limits=Limits()))

    assert lines["mean AUROC"] == "0.9000 → 0.8000 over 1 classes"
    assert lines["mean AUROC drop"] == "+10.00 [+8.00, +12.00] points"
    assert lines["worst class"] == "4: AUROC 80.0 % (-10.0 points, 9 images)"
    assert not {"top-1", "McNemar", "flips"} & lines.keys()


def test_a_diagnosis_is_told_with_what_was_tried() -> None:
    tried = Attempt(name="BGR", cure="--color bgr", score=0.93, low=0.9, high=0.95, won=300, lost=1, p=1e-9)
    found = Diagnosis(
        graph="", images="some", n=512, score=0.31, attempts=(tried,), words=("BGR restores it",), found="BGR"
    )

    lines = told(checked(diagnosis=found))

    assert lines["diagnosis"] == "BGR restores it"
    assert lines["tried"] == "best of 1 on 512 images, top-1 31.0 % as now: 93.0 % [90.0, 95.0] BGR"


def test_the_report_has_a_table_of_tensors_and_one_of_labels() -> None:
    text = report.markdown(made(row("int8", "openvino", parity=checked())))

    assert "| engine | SQNR | cosine | largest logit error | consistency | limits | worst images |" in text
    assert "| engine | top-1 | drop | McNemar | flips | calibration error | worst class |" in text
    assert f"\n- {LABEL}: a remark of the check\n" in text
    assert " | 3, 1, 4 |\n" in text


def test_the_worst_images_are_named_by_their_files() -> None:
    text = report.markdown(made(row("int8", "openvino", parity=checked(worst_names=("3_dress/9.png", "a|b.png")))))

    assert r" | 3_dress/9.png, a\|b.png |" in text


def test_the_drop_in_the_table_of_engines_has_its_interval() -> None:
    cells = dict(zip(engine_table.HEADINGS, engine_table.cells(row("int8", "openvino", parity=checked())), strict=True))

    assert cells["drop"] == "+0.50 [-0.10, +1.10]"


def test_without_labels_there_is_no_table_of_them() -> None:
    assert "| engine | top-1 | drop |" not in report.markdown(everything())
    assert "Check" in tables(report.markdown(everything()))
