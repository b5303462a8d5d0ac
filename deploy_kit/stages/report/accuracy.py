"""Results of a check as text: lines for the terminal, and the report's section. Judges nothing."""

from deploy_kit.accuracy.paired import wilson_interval
from deploy_kit.records.engine_table import NONE
from deploy_kit.records.measurements import NotRun
from deploy_kit.records.parity import (
    ClassScore,
    Consistency,
    Diagnosis,
    Drop,
    Flips,
    LabelScore,
    Scores,
    TaskScores,
    TextDifference,
)
from deploy_kit.records.results import EngineRow, ParityReport
from deploy_kit.records.verdict import NO_LIMIT
from deploy_kit.stages.report.document import Section, Table

_NAMED, _TRIED = 3, 5


def lines(checked: ParityReport) -> list[tuple[str, str]]:
    """Describe one check as (name, value) lines, the verdict last."""
    diagnosis = checked.diagnosis
    return [
        ("engine", checked.label),
        *given_files(checked),
        ("images", f"{checked.n} ({checked.images})"),
        *([("check data sha256", checked.images_sha256)] if checked.images_sha256 else []),
        *([("compared with", checked.against)] if checked.against else []),
        ("SQNR", f"{checked.sqnr_db:.1f} dB"),
        ("cosine", f"{checked.cosine:.6f}"),
        ("largest logit error", f"{checked.max_error:.4g}"),
        (_agreement(checked), f"{100 * checked.agreement:.2f} %"),
        *([("top-1", _top1(checked))] if checked.top1 is not None else []),
        *([(f"{checked.drop.what} drop", _drop(checked.drop) + _limit(checked))] if checked.drop else []),
        *([("McNemar", _mcnemar(checked.drop))] if checked.drop and checked.drop.p is not None else []),
        *([("flips", _flips(checked.flips, checked.n))] if checked.flips else []),
        *(_scored(checked.scores) if checked.scores else []),
        *(_of_task(checked.task) if checked.task else []),
        *([("consistency", _consistency(checked.consistency))] if checked.consistency else []),
        *(("remark", remark) for remark in checked.remarks if not (diagnosis and remark in diagnosis.words)),
        *(_diagnosed(diagnosis) if diagnosis else []),
        ("limits", ", ".join(checked.limit_words) or NO_LIMIT),
        ("accuracy", checked.verdict.text),
    ]


def given_files(checked: ParityReport | LabelScore) -> list[tuple[str, str]]:
    """Name the files of an engine that was given as a file, as ``sha256sum`` does, and how images became its input."""
    files = [("sha256 of FILE", f"{digest}  {name}") for name, digest in checked.files]
    return [*files, *([("preprocessing", checked.preprocessing)] if checked.preprocessing else [])]


def _agreement(checked: ParityReport) -> str:
    return checked.task.agreement_name if checked.task else "top-1 agreement"


def _of_task(scores: TaskScores) -> list[tuple[str, str]]:
    """Write both scores of a task, its further scores, and the worst class."""
    worst = scores.worst
    more = [(name, f"{before:.4f} → {after:.4f}") for name, before, after in scores.more]
    return [
        *([(scores.measure, _score(scores))] if scores.found is not None else []),
        *more,
        *([("worst class", _task_class(scores, worst))] if worst else []),
        *((f"string of {one.name}", _strings(one)) for one in scores.texts[:_NAMED]),
    ]


def _strings(one: TextDifference) -> str:
    label = f" (label '{one.label}')" if one.label else ""
    return f"'{one.reference}' → '{one.found}'{label}"


def _score(scores: TaskScores) -> str:
    if scores.reference is None or scores.found is None:
        return NONE
    return f"{100 * scores.reference:.2f} % → {100 * scores.found:.2f} %"


def _task_class(scores: TaskScores, worst: ClassScore) -> str:
    change = 100 * (worst.found - worst.reference)
    return f"{worst.name or worst.index}: {100 * worst.found:.1f} % ({change:+.1f} points, {worst.n:,} labelled pixels)"


def _drop(drop: Drop) -> str:
    """Write a drop with its interval, e.g. ``+0.09 [-0.06, +0.24] points``."""
    return f"{drop.points:+.2f} [{drop.low:+.2f}, {drop.high:+.2f}] points"


def _top1(checked: ParityReport) -> str:
    """Write both accuracies, the engine's with Wilson's 95 % interval, and top-5 where there is one."""
    if checked.top1 is None or checked.top1_reference is None:
        return NONE
    low, high = (100 * end for end in wilson_interval(round(checked.top1 * checked.n), checked.n))
    scores = checked.scores
    five = ""
    if scores and scores.top5 is not None and scores.top5_reference is not None:
        five = f"; top-5 {100 * scores.top5_reference:.2f} % → {100 * scores.top5:.2f} %"
    return f"{100 * checked.top1_reference:.2f} % → {100 * checked.top1:.2f} % [{low:.2f}, {high:.2f}]{five}"


def _flips(flips: Flips, n: int) -> str:
    """Write how many predictions changed, and how sure the checkpoint was of them."""
    if not flips.n:
        return f"0 of {n}"
    worst = ", ".join(f"{flip.name} ({flip.margin:.3g})" for flip in flips.worst[:_NAMED])
    return (
        f"{flips.n} of {n}, {flips.close} of them close calls (margin up to {flips.close_margin:.3g}, the checkpoint's "
        f"closest 5 %); largest margins: {worst}"
    )


def _consistency(consistency: Consistency) -> str:
    """Write whether an engine agrees with itself across positions, runs and batch sizes."""
    if consistency.failures:
        return "; ".join(consistency.failures)
    seen = max(consistency.positions, consistency.again, consistency.batches or 0.0)
    how = "equal bits" if seen == 0 else f"within {seen:.1g} of the largest output ({consistency.allowed:g} allowed)"
    batch = f", batch 1 as {consistency.batch}" if consistency.batches is not None else ""
    return f"{how}: places, runs{batch} ({consistency.n} images)"


def section(rows: tuple[EngineRow, ...]) -> Section:
    """Return the report's section: a table of logits for every engine, then one of labels where there are any."""
    checked = [(row.label, row.parity) for row in rows if isinstance(row.parity, ParityReport)]
    absent = [(row.label, row.parity) for row in rows if isinstance(row.parity, NotRun)]
    if not checked and not absent:
        return Section(title="Check", blocks=())
    headings = ("engine", "SQNR", "cosine", "largest logit error", "consistency", "limits", "worst images")
    cells = [(label, *_tensors(parity)) for label, parity in checked]
    cells += [(label, f"not run: {why.why}", *(NONE,) * 5) for label, why in absent]
    labelled = [(label, *_labels(parity)) for label, parity in checked if parity.drop and not parity.task]
    others = [(label, *_task_cells(parity, parity.task)) for label, parity in checked if parity.task]
    more = ("engine", "top-1", "drop", "McNemar", "flips", "calibration error", "worst class")
    remarks = tuple(f"{label}: {remark}" for label, parity in checked for remark in parity.remarks)
    labels = (Table(headings=more, rows=labelled),) if labelled else ()
    named = ("engine", "task", "agreement", "score", "drop", "further", "worst class")
    scored = (Table(headings=named, rows=others),) if others else ()
    decoded = [
        (label, one.name, one.reference, one.found, one.label or NONE)
        for label, parity in checked
        for one in (parity.task.texts if parity.task else ())
    ]
    strings = (Table(headings=("engine", "image", "checkpoint's string", "engine's", "label"), rows=decoded),)
    blocks = (Table(headings=headings, rows=cells), *labels, *scored, *(strings if decoded else ()), remarks)
    return Section(title="Check", blocks=blocks)


def _task_cells(parity: ParityReport, scores: TaskScores) -> tuple[str, ...]:
    worst = scores.worst
    return (
        scores.task,
        f"{scores.agreement_name} {100 * parity.agreement:.2f} %",
        f"{scores.measure} {_score(scores)}" if scores.found is not None else NONE,
        _drop(parity.drop) + _limit(parity) if parity.drop else NONE,
        "; ".join(f"{name} {before:.4f} → {after:.4f}" for name, before, after in scores.more) or NONE,
        _task_class(scores, worst) if worst else NONE,
    )


def _tensors(parity: ParityReport) -> tuple[str, ...]:
    limits = ", ".join(f"{key} {value:g}" for key, value in vars(parity.limits).items() if value is not None)
    limits += f", on {parity.sample.n:,} of {parity.n:,} images" if parity.sample else ""
    return (
        f"{parity.sqnr_db:.1f} dB",
        f"{parity.cosine:.6f}",
        f"{parity.max_error:.3g}",
        _consistency(parity.consistency) if parity.consistency else NONE,
        limits,
        ", ".join(map(str, (parity.worst_names or parity.worst_images)[:_NAMED])),
    )


def _labels(parity: ParityReport) -> tuple[str, ...]:
    assert parity.drop is not None
    scores = parity.scores
    worst = scores.worst if scores else None
    return (
        _top1(parity),
        _drop(parity.drop) + _limit(parity),
        _mcnemar(parity.drop) if parity.drop.p is not None else NONE,
        _flips(parity.flips, parity.n) if parity.flips else NONE,
        _calibration(scores) if scores else NONE,
        _class(scores, worst) if scores and worst else NONE,
    )


def _limit(checked: ParityReport) -> str:
    return f", at most {checked.limits.max_drop:g}: {checked.drop_answer}" if checked.drop_answer else ""


def _mcnemar(drop: Drop) -> str:
    return f"p = {drop.p:.2g} ({drop.lost} lost, {drop.won} won)"


def _scored(scores: Scores) -> list[tuple[str, str]]:
    worst = scores.worst
    mean = f"{scores.mean_reference:.4f} → {scores.mean:.4f} over {len(scores.classes)} classes"
    return [
        *([("mean AUROC", mean)] if scores.measure == "AUROC" else []),
        ("calibration error", _calibration(scores)),
        *([("worst class", _class(scores, worst))] if worst else []),
    ]


def _calibration(scores: Scores) -> str:
    return f"{100 * scores.ece_reference:.2f} % → {100 * scores.ece:.2f} % ({100 * scores.ece_shift:+.2f} points)"


def _class(scores: Scores, worst: ClassScore) -> str:
    change = 100 * (worst.found - worst.reference)
    name = worst.name or worst.index
    return f"{name}: {scores.measure} {100 * worst.found:.1f} % ({change:+.1f} points, {worst.n} images)"


def _diagnosed(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    tried = [f"{100 * entry.score:.1f} % [{100 * entry.low:.1f}, {100 * entry.high:.1f}] {entry.name}"
             for entry in diagnosis.attempts[:_TRIED]]  # fmt: skip
    now = f"{diagnosis.measure} {100 * diagnosis.score:.1f} % as now"
    best = f"best of {len(diagnosis.attempts)} on {diagnosis.n} images, {now}"
    return [*(("diagnosis", words) for words in diagnosis.words), ("tried", f"{best}: {'; '.join(tried)}")]
