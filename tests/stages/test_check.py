"""Checking: numbers against hand-worked ones, limits of the recipe, and that no wrong engine passes."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from stage_inputs import images_of
from stand_ins import PretendLink, hand_made, scaled
from tiny_densenet import save_images

from deploy_kit.accuracy import sampling
from deploy_kit.base.errors import CheckError, InputError
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.images import open_set
from deploy_kit.recipe import BuildEntry, CheckTable, LimitsTable
from deploy_kit.records.artifacts import Artifact, ReferenceLogits
from deploy_kit.records.measurements import NotRun
from deploy_kit.records.results import Limits, ParityReport
from deploy_kit.stages import build, check, reference
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

ANSWERS = ReferenceLogits(path="", sha256="", images="three", n=3, labelled=True, top1=None)
WANTED = np.array([[3, 1], [0, 2], [1, 4]], np.float32)
LABELS = np.array([0, 1, 0])


def part(line: "Line", **limits: Any) -> CheckTable:
    """Give the recipe's check table with these limits for int8 and fp32."""
    table = LimitsTable(**limits)
    return CheckTable(images=line.recipe.check.images, limits={"int8": table, "fp32": table})


def judged(engine: Artifact, found: np.ndarray, labels: np.ndarray | None = None, **limits: Any) -> ParityReport:
    return check.judge(engine, ANSWERS, WANTED, found, labels, Limits(**limits))


def answering(line: "Line", folder: Path, logits: np.ndarray) -> PretendLink:
    """Give a link whose engine answers the line's check images with these logits."""
    known = {image.tobytes(): answer for image, answer in zip(line.inputs(), logits, strict=True)}

    def infer(arguments: dict[str, Any]) -> dict[str, int]:
        found = [known[image.tobytes()] for image in np.load(arguments["inputs"])]
        np.save(arguments["outputs"], np.stack(found))
        return {"n": len(found)}

    answers = {"why_unavailable": {"why": ""}, "open": {"batch": 0, "settings": {}}, "infer": infer}
    return PretendLink(folder, answers)


def checked(
    line: "Line", store: Store, engine: Artifact, table: CheckTable, connection: Connection | PretendLink | None = None
) -> ParityReport:
    """Check an engine, by default in a real worker."""
    report, _ = check.run(
        engine,
        table,
        Context(store=store, connection=connection or line.connection),
        reference=line.answers,
        images=line.check_images,
    )
    assert isinstance(report, ParityReport)
    return report


@pytest.fixture(scope="module")
def engine(line: "Line") -> Artifact:
    return line.built("int8", "onnxruntime")


def test_sqnr_is_as_worked_by_hand(engine: Artifact) -> None:
    # Σ r² = 31 and Σ (r - c)² = 6 · 0.1²
    report = judged(engine, WANTED + np.float32(0.1))

    assert report.sqnr_db == pytest.approx(10 * math.log10(31 / 0.06), abs=1e-4)


def test_cosine_is_that_of_all_logits_as_one_vector(engine: Artifact) -> None:
    found = WANTED * np.array([[1], [2], [-1]], np.float32)

    report = judged(engine, found)

    a, b = WANTED.ravel(), found.ravel()
    assert report.cosine == pytest.approx(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_the_largest_error_and_its_image_are_named(engine: Artifact) -> None:
    found = WANTED.copy()
    found[1, 0] += 5
    found[2, 1] -= 1

    report = judged(engine, found)

    assert (report.max_error, report.worst_images) == (5, (1, 2, 0))
    assert report.worst_names == ("image 1", "image 2", "image 0")


def test_agreement_and_accuracy_count_images(engine: Artifact) -> None:
    found = WANTED[:, ::-1].copy()
    found[0] = WANTED[0]

    report = judged(engine, found, LABELS)

    assert (report.agreement, report.top1_reference, report.top1) == pytest.approx((1 / 3, 2 / 3, 2 / 3))


def test_the_drop_is_paired(engine: Artifact) -> None:
    # Image 1 is lost and image 2 is won: no drop, but an interval.
    found = WANTED[:, ::-1].copy()
    found[0] = WANTED[0]

    report = judged(engine, found, LABELS)

    assert report.drop is not None
    assert (report.drop.points, report.drop.lost, report.drop.won, report.drop.p) == (0, 1, 1, 1)
    assert report.drop_pp_interval == pytest.approx(report.drop.high) == pytest.approx(-report.drop.low)


def test_without_labels_a_limit_on_the_drop_is_not_kept(engine: Artifact) -> None:
    report = judged(engine, WANTED, None, max_drop=1.0)

    assert report.failures == ("top-1 drop cannot be measured: the check images have no labels",)


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        ({"min_sqnr_db": 60}, "SQNR"),
        ({"min_cosine": 0.99999}, "cosine"),
        ({"max_error": 0.01}, "largest logit error"),
        ({"min_agreement": 1.0}, "top-1 agreement"),
        ({"max_drop": 1.0}, "top-1 drop"),
        ({"min_top1": 0.5}, "top-1 0.3333"),
        ({"max_ece_shift": 1.0}, "shift of the calibration error"),
    ],
)
def test_each_limit_can_fail(engine: Artifact, limits: dict[str, float], word: str) -> None:
    found = WANTED.copy()
    found[0] = found[0, ::-1]

    report = judged(engine, found, LABELS, **limits)

    assert [failure.startswith(word) for failure in report.failures] == [True]


def test_equal_logits_keep_every_limit(engine: Artifact) -> None:
    limits = {
        "min_sqnr_db": 200, "min_cosine": 1 - 1e-9, "max_error": 0, "min_agreement": 1, "max_drop": 70,
        "min_top1": 2 / 3, "max_ece_shift": 0,
    }  # fmt: skip

    report = judged(engine, WANTED.copy(), LABELS, **limits)

    assert report.failures == ()


def test_a_drop_within_the_limit_on_too_few_images_is_no_yes(engine: Artifact) -> None:
    report = judged(engine, WANTED.copy(), LABELS, max_drop=1.0)

    assert report.drop_answer == "too few images to tell"
    assert report.failures == (
        "too few images to tell: top-1 drop 0 points on these 3, up to 56.1 not ruled out, at most 1 asked for; "
        "about 381 such images would (with a chance of 80 %)",
    )


def test_where_the_drop_seen_is_the_limit_no_number_of_images_would_tell(engine: Artifact) -> None:
    report = judged(engine, WANTED.copy(), LABELS, max_drop=0)

    assert report.failures[0].endswith("at most 0 asked for; no number of images would")


def test_the_checkpoints_margin_says_how_bad_a_flip_is(engine: Artifact) -> None:
    found = WANTED.copy()
    found[[0, 2]] = found[[0, 2], ::-1]

    flips = judged(engine, found).flips

    assert flips is not None
    assert [(flip.name, flip.margin, flip.reference, flip.found) for flip in flips.worst] == [
        ("image 2", 3, 1, 0),
        ("image 0", 2, 0, 1),
    ]


def test_exchanged_labels_are_named(engine: Artifact) -> None:
    labels = np.repeat(np.arange(4), 12)
    logits = np.eye(4, dtype=np.float32)[labels] * 5
    logits[::7] += np.float32(0.1)
    order = np.array([0, 3, 2, 1])
    answers = ReferenceLogits(**vars(ANSWERS) | {"n": 48})

    report = check.judge(engine, answers, logits, logits.copy(), order[labels], Limits())

    assert len(report.remarks) == 1
    assert report.remarks[0].startswith(
        "labels look permuted (label → class that most of its images are taken for: 1 → 3, 3 → 1): class folders are "
        "sorted by name"
    )
    assert report.remarks[0].endswith("in classes.txt")


def test_labels_in_order_get_no_remark(engine: Artifact) -> None:
    labels = np.repeat(np.arange(4), 12)
    logits = np.eye(4, dtype=np.float32)[labels] * 5

    report = check.judge(engine, ReferenceLogits(**vars(ANSWERS) | {"n": 48}), logits, logits.copy(), labels, Limits())

    assert report.remarks == ()


def test_images_with_several_labels_are_scored_by_auroc(engine: Artifact) -> None:
    labels = np.array([[1, 0], [0, 1], [1, 1]], np.uint8)
    found = np.array([[0, 1], [3, 2], [1, 4]], np.float32)

    report = judged(engine, found, labels, min_top1=0.5, max_drop=1.0)

    assert report.drop is not None
    assert report.scores is not None
    assert (report.drop.what, report.scores.measure, report.flips) == ("mean AUROC", "AUROC", None)
    # class 0 of the checkpoint: 3 and 1 above 0; of the engine: 0 and 1 below 3
    assert [(entry.reference, entry.found) for entry in report.scores.classes] == [(1, 0), (1, 1)]
    assert report.failures == (
        "mean AUROC drop 50 points, at most 1 asked for; on these 3 images as little as 0 is not ruled out",
        "top-1 cannot be measured: the check images have several labels each",
    )


def test_probabilities_are_not_softmaxed_again_and_that_is_said(engine: Artifact) -> None:
    wanted = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], np.float32)

    report = check.judge(engine, ANSWERS, wanted, wanted, LABELS, Limits())

    assert report.remarks == ("the outputs are probabilities already (softmax): confidences are taken as they are",)
    assert report.scores is not None
    # bins hold 0.9, 0.8 and 0.7 alone: (|1 - 0.9| + |1 - 0.8| + |0 - 0.7|) / 3
    assert report.scores.ece == pytest.approx((0.1 + 0.2 + 0.7) / 3, abs=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "limits",
    [{"min_sqnr_db": 1}, {"min_cosine": 0}, {"max_error": 1e9}, {"min_agreement": 1.0}, {}],
    ids=["min_sqnr_db", "min_cosine", "max_error", "min_agreement", "no limit"],
)
def test_a_logit_that_is_no_number_never_passes(engine: Artifact, limits: dict[str, float], value: float) -> None:
    found = WANTED.copy()
    found[1, 1] = value

    report = judged(engine, found, LABELS, **limits)

    assert not report.passed
    assert report.failures[-1] == "a logit is no finite number: image 1"


@pytest.fixture
def near(line: "Line", tmp_path: Path) -> PretendLink:
    """A link whose engine answers almost as torch does."""
    noise = np.random.default_rng(0).standard_normal((24, 4), np.float32)
    return answering(line, tmp_path, line.logits() + np.float32(1e-3) * noise)


def test_limits_are_those_of_the_engines_precision(
    line: "Line", kept: Store, engine: Artifact, near: PretendLink
) -> None:
    limits = {"int8": LimitsTable(min_sqnr_db=3), "fp32": LimitsTable(min_sqnr_db=90)}
    table = CheckTable(images=line.recipe.check.images, limits=limits)

    assert checked(line, kept, engine, table, near).limits == Limits(min_sqnr_db=3)


@pytest.mark.slow
def test_an_engine_that_keeps_its_limits_is_not_marked(line: "Line", kept: Store, engine: Artifact) -> None:
    checked(line, kept, engine, part(line, min_sqnr_db=5))

    assert not kept.rejected(engine)


@pytest.mark.slow
def test_an_engine_that_breaks_a_limit_is_marked_rejected(line: "Line", kept: Store, engine: Artifact) -> None:
    checked(line, kept, engine, part(line, min_sqnr_db=500))

    assert kept.rejected(engine)


def test_a_passed_check_takes_the_mark_away(line: "Line", kept: Store, engine: Artifact, near: PretendLink) -> None:
    checked(line, kept, engine, part(line, min_sqnr_db=500), near)

    checked(line, kept, engine, part(line, min_sqnr_db=5), near)

    assert not kept.rejected(engine)


def test_a_failed_check_out_of_the_store_marks_again(
    line: "Line", kept: Store, engine: Artifact, near: PretendLink
) -> None:
    checked(line, kept, engine, part(line, min_sqnr_db=500), near)
    checked(line, kept, engine, part(line, min_sqnr_db=5), near)

    checked(line, kept, engine, part(line, min_sqnr_db=500), near)

    assert kept.rejected(engine)


def test_a_second_check_is_taken_from_the_store(line: "Line", kept: Store, engine: Artifact, near: PretendLink) -> None:
    first = checked(line, kept, engine, part(line, min_sqnr_db=5), near)
    idle = PretendLink(kept.root, {"why_unavailable": {"why": ""}})

    second, reused = check.run(
        engine,
        part(line, min_sqnr_db=5),
        Context(store=kept, connection=idle),
        reference=line.answers,
        images=line.check_images,
    )

    assert (second, reused) == (first, True)


def test_other_limits_run_nothing_again(line: "Line", kept: Store, engine: Artifact, near: PretendLink) -> None:
    first = checked(line, kept, engine, part(line, min_sqnr_db=5), near)
    idle = PretendLink(kept.root, {})

    second = checked(line, kept, engine, part(line, min_sqnr_db=500), idle)

    assert (first.passed, second.passed) == (True, False)
    assert dataclasses.replace(second, limits=first.limits) == first
    assert idle.workers == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_one_weight_changed_by_a_thousandth_is_noticed(name: str, line: "Line", kept: Store) -> None:
    model = scaled(onnx.load(line.store.path(line.lean)), "features.transition1.conv.weight", 1.001)
    entry = BuildEntry(engine=name, variants=("fp32",))
    wrong, _ = build.run(
        hand_made(kept, model, line.lean, "wrong"), entry, Context(store=kept, connection=line.connection)
    )

    assert not checked(line, kept, wrong, part(line, min_sqnr_db=120)).passed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_weights_as_they_are_keep_the_same_limit(name: str, line: "Line") -> None:
    right = line.built("fp32", name)

    assert checked(line, line.store, right, part(line, min_sqnr_db=120)).passed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_one_engine_is_not_given_the_check_of_another(name: str, line: "Line", kept: Store) -> None:
    entry, table = BuildEntry(engine=name, variants=("fp32",)), part(line, min_sqnr_db=120)
    model = scaled(onnx.load(line.store.path(line.lean)), "features.transition1.conv.weight", 2)
    right, _ = build.run(line.lean, entry, Context(store=kept, connection=line.connection))
    wrong, _ = build.run(
        hand_made(kept, model, line.lean, "fp32"), entry, Context(store=kept, connection=line.connection)
    )
    checked(line, kept, right, table)

    report = checked(line, kept, wrong, table)

    assert not report.passed


def test_an_engine_that_cannot_run_here_gets_no_number(line: "Line", kept: Store, engine: Artifact) -> None:
    connection = PretendLink(kept.root, {"why_unavailable": {"why": "no NVIDIA GPU on this machine"}})
    gpu = Artifact(**vars(engine) | {"engine": "tensorrt_rtx"})

    report, _ = check.run(
        gpu,
        part(line, min_sqnr_db=5),
        Context(store=kept, connection=connection),
        reference=line.answers,
        images=line.check_images,
    )

    assert report == NotRun(artifact=gpu.sha256, label="int8 · tensorrt_rtx", why="no NVIDIA GPU on this machine")


def test_an_engine_that_was_not_run_is_not_kept_as_checked(line: "Line", kept: Store, engine: Artifact) -> None:
    connection = PretendLink(kept.root, {"why_unavailable": {"why": "no NVIDIA GPU on this machine"}})
    gpu = Artifact(**vars(engine) | {"engine": "tensorrt_rtx"})

    check.run(
        gpu,
        part(line, min_sqnr_db=5),
        Context(store=kept, connection=connection),
        reference=line.answers,
        images=line.check_images,
    )

    assert kept.all(ParityReport, "check") == []


def test_logits_of_another_shape_are_an_error(line: "Line", kept: Store, engine: Artifact, tmp_path: Path) -> None:
    connection = answering(line, tmp_path, np.zeros((24, 5), np.float32))

    with pytest.raises(CheckError, match=r"int8 · onnxruntime: expected logits \(24, 4\), found \(24, 5\)"):
        check.run(
            engine,
            part(line, min_sqnr_db=5),
            Context(store=kept, connection=connection),
            reference=line.answers,
            images=line.check_images,
        )


def test_an_error_is_not_kept(line: "Line", kept: Store, engine: Artifact, tmp_path: Path) -> None:
    before = set(kept.root.rglob("*"))

    with pytest.raises(CheckError):
        connection = answering(line, tmp_path, np.zeros((24, 5), np.float32))
        check.run(
            engine,
            part(line, min_sqnr_db=5),
            Context(store=kept, connection=connection),
            reference=line.answers,
            images=line.check_images,
        )

    assert set(kept.root.rglob("*")) == before


def test_an_engine_that_answers_nan_is_rejected(line: "Line", kept: Store, engine: Artifact, tmp_path: Path) -> None:
    connection = answering(line, tmp_path, np.full((24, 4), math.nan, np.float32))

    check.run(
        engine,
        part(line, min_sqnr_db=5),
        Context(store=kept, connection=connection),
        reference=line.answers,
        images=line.check_images,
    )

    assert kept.rejected(engine)


def test_images_that_changed_in_number_are_an_error(line: "Line", kept: Store, engine: Artifact) -> None:
    answers = ReferenceLogits(**vars(line.answers) | {"n": 23})

    with pytest.raises(CheckError, match="24 images, the reference logits are of 23"):
        check.run(
            engine,
            part(line, min_sqnr_db=5),
            Context(store=kept, connection=line.connection),
            reference=answers,
            images=images_of(answers.images, skip_bad=answers.skipped > 0),
        )


def test_a_check_set_that_calibrated_is_refused(line: "Line", engine: Artifact) -> None:
    table = CheckTable(images=line.recipe.check.images, limits={})

    with pytest.raises(InputError, match="24 images are both in the calibration set") as caught:
        check.overlap(line.check_images, images_of(table.images), engine.preprocess)

    assert caught.value.hint == "check on images that calibration has not seen"


def test_one_shared_image_is_enough(line: "Line", engine: Artifact, tmp_path: Path) -> None:
    with np.load(line.recipe.check.images) as data:
        shared = data["images"][3:4]
    fresh = np.random.default_rng(99).integers(0, 256, (5, 16, 16), np.uint8)
    np.savez(tmp_path / "calibration.npz", images=np.concatenate([fresh, shared]))

    with pytest.raises(InputError, match="1 images are both in"):
        check.overlap(images_of(tmp_path / "calibration.npz"), line.check_images, engine.preprocess)


def test_sets_with_no_image_in_common_pass(line: "Line", engine: Artifact, tmp_path: Path) -> None:
    other = save_images(tmp_path / "other.npz", 12, seed=99)

    check.overlap(images_of(other), line.check_images, engine.preprocess)


@pytest.mark.parametrize("calibration", [None, "no-such-file.npz"])
def test_noise_overlaps_with_nothing(engine: Artifact, calibration: str | None) -> None:
    check.overlap(images_of(calibration), images_of("synthetic"), engine.preprocess)


def test_an_engine_that_keeps_its_limits_but_contradicts_itself_is_rejected(
    line: "Line", kept: Store, engine: Artifact, tmp_path: Path
) -> None:
    connection = answering(line, tmp_path, line.logits())
    steady, calls = connection.answers["infer"], []

    def drifting(arguments: dict[str, Any]) -> dict[str, int]:
        answer: dict[str, int] = steady(arguments)
        calls.append(answer)
        if len(calls) > 1:  # right on the check set, then a little more at each run
            np.save(arguments["outputs"], np.load(arguments["outputs"]) * (1 + len(calls) / 10))
        return answer

    connection.answers["infer"] = drifting

    report = checked(line, kept, engine, part(line, min_sqnr_db=5), connection)

    assert report.sqnr_db == math.inf
    assert kept.rejected(engine)
    assert any(failure.startswith("not consistent: the same images run again differ") for failure in report.failures)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_real_engines_agree_with_themselves(name: str, line: "Line") -> None:
    report = checked(line, line.store, line.built("fp32", name), part(line, min_sqnr_db=5))

    assert report.consistency is not None
    assert report.consistency.failures == ()
    assert report.consistency.again == 0


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 24 images be many, of which four rules select six or fewer."""
    for name, value in (("LEAST", 24), ("SPREAD", 4), ("EXTREME", 1)):
        monkeypatch.setattr(sampling, name, value)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("name", "every", "part_only"), [("fp32", False, True), ("fp32", True, False), ("int8", False, False)]
)
def test_only_float32_is_computed_on_a_part_and_the_verdict_says_on_which(
    name: str, every: bool, part_only: bool, line: "Line", kept: Store, tmp_path: Path
) -> None:
    table = part(line, min_sqnr_db=5).model_copy(update={"every_image": every})
    link = answering(line, tmp_path, line.logits() * np.float32(1 + 1e-6))

    report = checked(line, kept, line.built(name, "onnxruntime"), table, link)

    assert (report.sample is not None) == part_only
    if report.sample is not None:
        assert report.n == 24 > report.sample.n
        assert report.verdict.text == f"accepted (SQNR ≥ 5 dB, on {report.sample.n} of 24 images)"
        assert report.sample.words in report.remarks
        assert 0 < 16 * report.sample.deviation < report.sample.margin
        assert report.sqnr_db == pytest.approx(120, abs=3)  # not diluted by the images that were not computed


@pytest.mark.usefixtures("few")
def test_a_float32_engine_that_is_off_computes_all_and_is_rejected(line: "Line", kept: Store, tmp_path: Path) -> None:
    link = answering(line, tmp_path, line.logits() * np.float32(1.01))

    report = checked(line, kept, line.built("fp32", "onnxruntime"), part(line, min_sqnr_db=90), link)

    assert (report.sample, report.verdict.word) == (None, "rejected")


@pytest.mark.usefixtures("few")
def test_a_limit_that_any_rounding_moves_is_judged_on_all(line: "Line", kept: Store, tmp_path: Path) -> None:
    link = answering(line, tmp_path, line.logits())

    report = checked(line, kept, line.built("fp32", "onnxruntime"), part(line, max_ece_shift=1), link)

    assert report.sample is None


@pytest.mark.slow
def test_several_labels_an_image_are_not_taken_for_one(
    line: "Line", kept: Store, engine: Artifact, tmp_path: Path
) -> None:
    with np.load(line.recipe.check.images) as data:
        np.savez(tmp_path / "several.npz", images=data["images"], labels=np.eye(4, dtype=np.uint8)[data["labels"]])
    source, several = line.recipe.source, str(tmp_path / "several.npz")
    answers, _ = reference.run(
        source,
        engine.preprocess,
        Context(store=kept, connection=line.connection),
        images=open_set(several, engine.preprocess),
    )

    report, _ = check.run(
        engine,
        part(line, min_sqnr_db=5),
        Context(store=kept, connection=line.connection),
        reference=answers,
        images=images_of(answers.images, skip_bad=answers.skipped > 0),
    )

    assert isinstance(report, ParityReport) and (report.n, report.top1) == (24, None)
