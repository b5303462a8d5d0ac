"""Tests of records.py: what records derive from their facts, against worked examples."""

import dataclasses
import math

import numpy as np
import pytest

from deploy_kit.base.errors import RecipeError
from deploy_kit.records.artifacts import Artifact, BareInput, CheckpointFacts, Preprocess, Proof  # fmt: skip
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Head, HeadLayer, StemConv
from deploy_kit.records.measurements import Environment, Measurement, NotRun, SpeedUp
from deploy_kit.records.results import EngineRow, Limits, ParityReport, Report

MACHINE = Environment(
    host="Linux", cpu="a processor", isa=(), cores=2, memory_gib=4.0, governor="", clock_mhz=0.0, load=0.0, gpu="",
    virtual=False, versions=(),
)  # fmt: skip


SPEC = DenseNetSpec(
    in_channels=3,
    stem=(StemConv(channels=24, kernel=(3, 3), stride=(1, 1)),),
    blocks=(DenseBlock(layers=16, growth=12, bottleneck=48),) * 3,
    transitions=(108, 150),
    heads=(Head(name="logits", layers=(HeadLayer(kind="linear", channels=10),)),),
)


def parity(**facts):
    kept = {
        "artifact": "ab", "label": "int8 · openvino", "n": 1000, "images": "check.npz", "sqnr_db": 20.0,
        "cosine": 0.999, "max_error": 0.5, "agreement": 0.99, "top1_reference": 0.93, "top1": 0.929, "drop_pp": 0.1,
        "drop_pp_interval": 0.2, "worst_images": (), "limits": Limits(),
    }  # fmt: skip
    return ParityReport(**(kept | facts))


def measurement(samples, rounds=(0,)):
    return Measurement(
        artifact="ab", label="a", batch=1, span="compute", samples_ms=tuple(samples), rounds=tuple(rounds),
        warmup_runs=0, steady=True, settings=(), environment=MACHINE, when="2025-01-01T00:00:00+00:00",
    )  # fmt: skip


def artifact(**facts):
    kept = {
        "kind": "engine", "name": "int8", "path": "p", "sha256": "ab", "size_bytes": 1, "precision": "int8",
        "inputs": (), "outputs": (), "stage": "build", "parent": "cd",
        "preprocess": Preprocess(height=1, width=1, color="gray", mean=(0.0,), std=(1.0,)),
    }  # fmt: skip
    return Artifact(**(kept | facts))


def test_an_input_that_is_no_image_is_named_by_its_shape():
    assert BareInput(shape=(3, 8)).words == "an input of 3×8; how it is prepared is not known"


def test_a_record_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().min_cosine = 0.5


@pytest.mark.parametrize(("color", "channels"), [("gray", 1), ("rgb", 3), ("bgr", 3)])
def test_channels_follow_from_the_color(color, channels):
    preprocess = Preprocess(height=1, width=1, color=color, mean=(0.0,) * channels, std=(1.0,) * channels)

    assert preprocess.channels == channels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "expected a size of at least 1×1 px, found 0×6"),
        ({"width": -1}, "expected a size of at least 1×1 px, found 4×-1"),
        ({"mean": (0.1, 0.2, 0.3)}, "'gray' needs 1 values of mean and of std, found 3 and 1"),
        ({"std": ()}, "'gray' needs 1 values of mean and of std, found 1 and 0"),
        ({"color": "rgb"}, "'rgb' needs 3 values of mean and of std, found 1 and 1"),
        ({"mean": (math.nan,)}, "expected finite means and positive stds, found (nan,), (1.0,)"),
        ({"std": (0.0,)}, "expected finite means and positive stds, found (0.0,), (0.0,)"),
        ({"std": (1e-300,)}, "expected finite means and positive stds, found (0.0,), (1e-300,)"),
        ({"std": (-1.0,)}, "expected finite means and positive stds, found (0.0,), (-1.0,)"),
        ({"std": (math.inf,)}, "expected finite means and positive stds, found (0.0,), (inf,)"),
        ({"resize": 0}, "expected a resize to at least 1 px, found 0"),
    ],
)
def test_preprocessing_that_cannot_be_carried_out_is_refused(change, message):
    facts = {"height": 4, "width": 6, "color": "gray", "mean": (0.0,), "std": (1.0,)}

    with pytest.raises(RecipeError) as caught:
        Preprocess(**(facts | change))

    assert str(caught.value) == f"preprocess: {message}"


def test_a_resize_to_just_the_size_that_is_cut_out_is_taken():
    assert Preprocess(height=4, width=6, color="gray", mean=(0.0,), std=(1.0,), resize=6).resize == 6


PROOF = Proof(source="engine", counts=(("Conv", "int8", 30), ("Conv", "fp32", 10), ("MatMul", "fp32", 10)))


def test_share_counts_one_operation():
    assert PROOF.share("int8", of="Conv") == 0.75


def test_share_counts_all_operations():
    assert PROOF.share("int8") == 0.6


def test_share_of_an_operation_that_does_not_occur_is_none_of_it():
    assert PROOF.share("int8", of="Gemm") == 0.0


def test_an_engine_is_labelled_with_what_it_is_for():
    assert artifact(engine="openvino").label == "int8 · openvino"


def test_a_graph_is_labelled_with_its_name():
    assert artifact(engine=None).label == "int8"


def test_a_checkpoint_is_titled_by_its_architecture():
    facts = CheckpointFacts(
        name="a", sha256="b", size_bytes=1, container="safetensors", spec=SPEC, parameters=1,
        remarks=(),
    )  # fmt: skip

    assert facts.title == "DenseNet-BC-100 (k = 12)"


def test_an_onnx_file_is_titled_as_one():
    facts = CheckpointFacts(
        name="a", sha256="b", size_bytes=1, container="onnx", spec=None, parameters=1, remarks=()
    )  # fmt: skip

    assert facts.title == "ONNX graph"


@pytest.mark.parametrize("percent", [0, 1, 25, 50, 90, 95, 99])
def test_a_percentile_is_numpys_linear_one(percent):
    samples = np.random.default_rng(0).gamma(2.0, size=1003).tolist()

    found = measurement(samples).percentile_ms(percent)

    assert found == pytest.approx(float(np.percentile(samples, percent)), rel=1e-12)


def test_a_percentile_of_equal_samples_is_that_sample():
    assert measurement([0.25] * 1000).percentile_ms(99) == 0.25


@pytest.mark.parametrize(("percent", "needed"), [(50, 20), (90, 100), (95, 200), (99, 1000), (99.9, 10000)])
def test_a_percentile_is_given_from_enough_samples(percent, needed):
    assert measurement([1.0] * needed).percentile_ms(percent) == 1.0


@pytest.mark.parametrize(("percent", "needed"), [(50, 20), (90, 100), (95, 200), (99, 1000), (99.9, 10000)])
def test_a_percentile_is_not_given_from_one_sample_less(percent, needed):
    assert measurement([1.0] * (needed - 1)).percentile_ms(percent) is None


def test_samples_are_parted_where_rounds_begin():
    assert measurement([1, 2, 3, 4, 5], rounds=(0, 2, 4)).by_round == ((1, 2), (3, 4), (5,))


@pytest.mark.parametrize(("low", "high", "noise"), [(0.9, 1.1, True), (1.0, 1.2, True), (1.01, 1.2, False)])
def test_a_speed_up_is_noise_where_its_interval_holds_one(low, high, noise):
    assert SpeedUp(ratio=1.05, low=low, high=high, baseline="a").noise is noise


def test_a_slow_down_that_was_shown_is_no_noise():
    assert not SpeedUp(ratio=0.8, low=0.7, high=0.9, baseline="a").noise


def test_without_limits_everything_passes():
    assert parity(sqnr_db=-10.0, agreement=0.0).passed


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(min_sqnr_db=21), "SQNR 20 dB, at least 21 asked for"),
        (Limits(min_cosine=0.9999), "cosine 0.999, at least 0.9999 asked for"),
        (Limits(max_error=0.4), "largest logit error 0.5, at most 0.4 asked for"),
        (Limits(min_agreement=1.0), "top-1 agreement 0.99, at least 1 asked for"),
        (Limits(max_drop=0.05), "top-1 drop 0.1 points, at most 0.05 asked for"),
    ],
)
def test_each_limit_that_is_not_kept_is_told_in_words(limits, message):
    assert parity(limits=limits).failures == (message,)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(min_sqnr_db=20),
        Limits(min_cosine=0.999),
        Limits(max_error=0.5),
        Limits(min_agreement=0.99),
        Limits(max_drop=0.1),
    ],
)
def test_a_limit_met_exactly_is_kept(limits):
    assert parity(limits=limits).passed


@pytest.mark.parametrize(
    ("fact", "limits"),
    [
        ("sqnr_db", Limits(min_sqnr_db=-100)),
        ("cosine", Limits(min_cosine=-1)),
        ("max_error", Limits(max_error=1e9)),
        ("agreement", Limits(min_agreement=0)),
        ("drop_pp", Limits(max_drop=100)),
    ],
)
def test_nan_keeps_no_limit(fact, limits):
    assert not parity(**{fact: math.nan}, limits=limits).passed


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_a_logit_that_is_no_number_fails_even_without_limits(error):
    assert parity(max_error=error).failures == ("a logit is no finite number",)


def test_equal_logits_keep_any_sqnr():
    assert parity(sqnr_db=math.inf, limits=Limits(min_sqnr_db=90)).passed


def test_a_gain_of_accuracy_keeps_the_limit_of_the_drop():
    assert parity(drop_pp=-0.5, limits=Limits(max_drop=0)).passed


def test_a_drop_limit_without_labels_fails_and_says_why():
    report = parity(drop_pp=None, limits=Limits(max_drop=1))

    assert report.failures == ("top-1 drop cannot be measured: the check images have no labels",)


def test_all_failures_are_told():
    report = parity(limits=Limits(min_sqnr_db=21, min_agreement=1.0))

    assert len(report.failures) == 2


def test_a_limit_missed_by_a_hair_is_told_with_different_numbers():
    report = parity(sqnr_db=14.9996, limits=Limits(min_sqnr_db=15))

    assert report.failures != ("SQNR 15 dB, at least 15 asked for",)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (EngineRow(label="a", artifact=None), "not checked"),
        (EngineRow(label="a", artifact=None, parity=parity()), "accepted (no limit is set)"),
        (
            EngineRow(label="a", artifact=None, parity=parity(limits=Limits(min_sqnr_db=21, min_agreement=1.0))),
            "rejected: SQNR 20 dB, at least 21 asked for; top-1 agreement 0.99, at least 1 asked for",
        ),
        (EngineRow(label="a", artifact=None, parity=NotRun(artifact="ab", label="a", why="no GPU")), "not run: no GPU"),
        (EngineRow(label="a", artifact=None, failed="the builder gave up"), "failed: the builder gave up"),
        (EngineRow(label="a", artifact=None, parity=parity(), failed="it crashed"), "failed: it crashed"),
        (EngineRow(label="a", artifact=None, left_out="nncf is not installed"), "left out: nncf is not installed"),
    ],
)
def test_a_verdict_says_what_became_of_an_engine(row, verdict):
    assert row.verdict == verdict


@pytest.mark.parametrize(
    ("rows", "passed"),
    [
        ((parity(),), True),
        ((parity(), parity(limits=Limits(min_sqnr_db=21))), False),
        ((parity(), NotRun(artifact="ab", label="a", why="no GPU")), True),
        ((), False),
        ((NotRun(artifact="ab", label="a", why="no GPU"),), False),
    ],
)
def test_a_report_passes_where_every_engine_that_ran_kept_its_limits(rows, passed):
    report = Report(
        recipe="demo", checkpoint=None, answers=None, difference=0.0, lineage=(), passes=(),
        rows=tuple(EngineRow(label="a", artifact=None, parity=row) for row in rows), environment=MACHINE, times=(),
        when="", version="",
    )  # fmt: skip

    assert report.passed is passed
    broken = EngineRow(label="b", artifact=None, failed="it crashed")
    assert not dataclasses.replace(report, rows=(*report.rows, broken)).passed
