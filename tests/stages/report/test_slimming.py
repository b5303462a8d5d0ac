"""A search within a budget in the report: every trial with its interval, the choice, and what became of each layer."""

from dataclasses import replace

from page_elements import Page
from report_records import artifact, made

from deploy_kit.records.measurements import SpeedUp
from deploy_kit.records.slimming import Slimmed, SlimmedLayer, SlimSearch, SlimTrial
from deploy_kit.stages.report import page, slimming
from deploy_kit.stages.report.markdown import section

TRIAL = SlimTrial(
    asked=0.6, share=0.61, images="tune.npz", n=2000, kl=0.0012, lost=9, gained=7, labelled=True, drop_pp=0.1,
    upper_pp=0.51, lower_pp=-0.3, precision="int8",
)  # fmt: skip
WHOLE = replace(TRIAL, asked=1.0, share=1.0, precision="fp32", drop_pp=0.0, lower_pp=-0.1, upper_pp=0.1)
TIMED = replace(
    TRIAL,
    engine="onnxruntime",
    ms=(2.5, 2.4, 2.75),
    faster=SpeedUp(ratio=2.0, low=1.9, high=2.1, baseline="fp32, whole · onnxruntime"),
)
SEARCH = SlimSearch(
    max_drop_pp=0.6,
    tried=(replace(TRIAL, asked=0.4, share=0.4, upper_pp=1.9), TRIAL),
    chosen=TIMED,
    judged=replace(TRIAL, images="check.npz", drop_pp=0.2),
    artifact="a" * 64,
    compared=(replace(WHOLE, engine="onnxruntime", ms=(5.0, 4.9, 5.1)), TIMED),
)
LAYER = SlimmedLayer(
    name="denseblock1.denselayer1",
    channels=128,
    kept=64,
    macs_before=2000,
    macs_after=1000,
    predicted=1e-4,
    seen=3e-4,
)
SMALL = Slimmed(onnx=artifact("fp32"), macs_before=4000, macs_after=3000, layers=(LAYER,), n_images=768, seconds=12.3)


def test_a_trial_that_was_timed_stands_in_place_of_the_same_one_that_was_not() -> None:
    shown = slimming.trials(SEARCH)

    assert [(trial.share, trial.ms is not None) for trial in shown[:-1]] == [(1.0, True), (0.61, True), (0.4, False)]
    assert shown[-1] is SEARCH.judged


def test_a_line_has_the_drop_with_its_interval_and_the_gain() -> None:
    assert dict(zip(slimming.HEADINGS, slimming.cells(TIMED), strict=True)) == {
        "tried": "int8, 0.61 of the MACs",
        "MACs": "0.61",
        "drop in points": "+0.10 [-0.30, +0.51]",
        "KL": "0.0012",
        "latency": "2.500 ms, onnxruntime",
        "against the whole in float": "2.00× [1.90, 2.10]",
        "images": "2000 of tune.npz",
    }


def test_sections_say_what_was_chosen_and_list_every_layer() -> None:
    search, layers = slimming.sections([SEARCH], [SMALL])

    assert search.title == "Slimming within 0.6 points"
    assert (
        "as int8, 2.00× [1.90, 2.10] the whole network in float on onnxruntime: drop +0.20 points" in section(search)[2]
    )
    assert "| denseblock1.denselayer1 | 128 → 64 | 2,000 → 1,000 | 0.0001 | 0.0003 |" in section(layers)
    assert slimming.sections([], []) == []


def test_the_picture_is_of_the_images_that_chose_and_fills_the_choice() -> None:
    drawn = Page(page.page(made(slim_searches=(SEARCH,), slimmed=(SMALL,))))

    assert "slimming" in [a["id"] for tag, a in drawn.found if tag == "figure"]
    marks = [a for tag, a in drawn.found if tag == "path" and "data-share" in a]
    assert [(a["data-label"], a["data-ms"], "data-chosen" in a, "hollow" in str(a["class"])) for a in marks] == [
        ("fp32, whole", "5.0", False, True),
        ("int8, 0.61 of the MACs", "2.5", True, False),
    ]


def test_what_was_not_timed_is_drawn_against_the_multiply_accumulates() -> None:
    drawn = Page(page.page(made(slim_searches=(replace(SEARCH, compared=(), chosen=TRIAL),))))

    marks = [a for tag, a in drawn.found if tag == "path" and "data-share" in a]
    assert [(a["data-share"], "data-ms" in a, "data-chosen" in a) for a in marks] == [
        ("0.61", False, True),
        ("0.4", False, False),
    ]
