"""What a check found, in words: lines for the terminal, and the report's section. Judges nothing."""

from deploy_kit.accuracy.paired import wilson_interval
from deploy_kit.records.measurements import NotRun
from deploy_kit.records.parity import ClassScore, Consistency, Diagnosis, Drop, Flips, Scores
from deploy_kit.records.results import EngineRow, ParityReport
from deploy_kit.stages.report.markdown import NONE, table

_NAMED, _TRIED = 3, 5


def lines(made: ParityReport) -> list[tuple[str, str]]:
    """Give (what, value) of one check, the verdict last."""
    named = made.diagnosis
    return [
        ("engine", made.label),
        ("images", f"{made.n} ({made.images})"),
        ("SQNR", f"{made.sqnr_db:.1f} dB"),
        ("cosine", f"{made.cosine:.6f}"),
        ("largest logit error", f"{made.max_error:.4g}"),
        ("top-1 agreement", f"{100 * made.agreement:.2f} %"),
        *([("top-1", top1(made))] if made.top1 is not None else []),
        *([(f"{made.drop.what} drop", drop(made.drop) + _held(made))] if made.drop else []),
        *([("McNemar", _mcnemar(made.drop))] if made.drop and made.drop.p is not None else []),
        *([("flips", flips(made.flips, made.n))] if made.flips else []),
        *(_scored(made.scores) if made.scores else []),
        *([("consistency", consistent(made.consistency))] if made.consistency else []),
        *(("remark", remark) for remark in made.remarks if not (named and remark in named.words)),
        *(_diagnosed(named) if named else []),
        ("verdict", "accepted" if made.passed else "rejected: " + "; ".join(made.failures)),
    ]


def drop(found: Drop) -> str:
    """Write a drop with its interval, e.g. ``+0.09 [-0.06, +0.24] points``."""
    return f"{found.points:+.2f} [{found.low:+.2f}, {found.high:+.2f}] points"


def top1(made: ParityReport) -> str:
    """Write both accuracies, the engine's with Wilson's 95 % interval, and top-5 where there is one."""
    if made.top1 is None or made.top1_reference is None:
        return NONE
    low, high = (100 * end for end in wilson_interval(round(made.top1 * made.n), made.n))
    scores = made.scores
    five = ""
    if scores and scores.top5 is not None and scores.top5_reference is not None:
        five = f"; top-5 {100 * scores.top5_reference:.2f} % → {100 * scores.top5:.2f} %"
    return f"{100 * made.top1_reference:.2f} % → {100 * made.top1:.2f} % [{low:.2f}, {high:.2f}]{five}"


def flips(found: Flips, n: int) -> str:
    """Write how many predictions changed, and how sure the checkpoint was of them."""
    if not found.n:
        return f"0 of {n}"
    worst = ", ".join(f"{flip.name} ({flip.margin:.3g})" for flip in found.worst[:_NAMED])
    return (
        f"{found.n} of {n}, {found.close} of them close calls (margin up to {found.close_margin:.3g}, the checkpoint's "
        f"closest 5 %); largest margins: {worst}"
    )


def consistent(found: Consistency) -> str:
    """Write whether an engine agrees with itself."""
    if found.failures:
        return "; ".join(found.failures)
    seen = max(found.positions, found.again, found.batches or 0.0)
    how = "equal bits" if seen == 0 else f"within {seen:.1g} of the largest output ({found.allowed:g} allowed)"
    batch = f", batch 1 as {found.batch}" if found.batches is not None else ""
    return f"{how}: places, runs{batch} ({found.n} images)"


def section(rows: tuple[EngineRow, ...]) -> list[str]:
    """Write the report's section: what logits say of every engine, then what labels say."""
    checked = [(row.label, row.parity) for row in rows if isinstance(row.parity, ParityReport)]
    absent = [(row.label, row.parity) for row in rows if isinstance(row.parity, NotRun)]
    if not checked and not absent:
        return []
    headings = ("engine", "SQNR", "cosine", "largest logit error", "consistency", "limits", "worst images")
    cells = [(label, *_tensors(parity)) for label, parity in checked]
    cells += [(label, f"not run: {why.why}", *(NONE,) * 5) for label, why in absent]
    labelled = [(label, *_labels(parity)) for label, parity in checked if parity.drop]
    more = ("engine", "top-1", "drop", "McNemar", "flips", "calibration error", "worst class")
    remarks = [f"- {label}: {remark}" for label, parity in checked for remark in parity.remarks]
    return [
        "## Check",
        "",
        *table(headings, cells),
        "",
        *([*table(more, labelled), ""] if labelled else []),
        *([*remarks, ""] if remarks else []),
    ]


def _tensors(parity: ParityReport) -> tuple[str, ...]:
    limits = ", ".join(f"{key} {value:g}" for key, value in vars(parity.limits).items() if value is not None)
    return (
        f"{parity.sqnr_db:.1f} dB",
        f"{parity.cosine:.6f}",
        f"{parity.max_error:.3g}",
        consistent(parity.consistency) if parity.consistency else NONE,
        limits,
        ", ".join(map(str, parity.worst_images[:5])),
    )


def _labels(parity: ParityReport) -> tuple[str, ...]:
    assert parity.drop is not None
    scores = parity.scores
    worst = scores.worst if scores else None
    return (
        top1(parity),
        drop(parity.drop) + _held(parity),
        _mcnemar(parity.drop) if parity.drop.p is not None else NONE,
        flips(parity.flips, parity.n) if parity.flips else NONE,
        _calibration(scores) if scores else NONE,
        _class(scores, worst) if scores and worst else NONE,
    )


def _held(made: ParityReport) -> str:
    return f", at most {made.limits.max_drop:g}: {made.drop_answer}" if made.drop_answer else ""


def _mcnemar(found: Drop) -> str:
    return f"p = {found.p:.2g} ({found.lost} lost, {found.won} won)"


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


def _diagnosed(found: Diagnosis) -> list[tuple[str, str]]:
    tried = [f"{100 * entry.top1:.1f} % [{100 * entry.low:.1f}, {100 * entry.high:.1f}] {entry.name}"
             for entry in found.attempts[:_TRIED]]  # fmt: skip
    best = f"best of {len(found.attempts)} on {found.n} images, {100 * found.top1:.1f} % as now: " + "; ".join(tried)
    return [*(("diagnosis", words) for words in found.words), ("tried", best)]
