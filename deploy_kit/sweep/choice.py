"""What a sweep's numbers say: the Pareto fronts of each device and batch, and what to deploy there within a budget.

Cells are measured one after the other and not in turns: two latencies differ where the interval of their ratio, by a
block bootstrap of each series (`measure.latency.ratio_apart`), leaves out 1.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from deploy_kit.analysis import recommendation
from deploy_kit.measure import latency
from deploy_kit.recipe.grid import SweepBudget
from deploy_kit.records.engine_table import size
from deploy_kit.records.measurements import Measurement, SpeedUp
from deploy_kit.records.recommendation import Budgets, Loser
from deploy_kit.records.results import EngineRow, ParityReport
from deploy_kit.records.sweeps import SweepCell, SweepChoice

ACCURACY, SIZE = "accuracy", "size"


def groups(cells: Sequence[SweepCell]) -> dict[tuple[str, int], list[SweepCell]]:
    """Sort cells by what can be compared: (device, batch)."""
    found = dict[tuple[str, int], list[SweepCell]]()
    for cell in cells:
        found.setdefault((cell.name.device, cell.name.batch), []).append(cell)
    return found


def measure_of(cells: Sequence[SweepCell]) -> str:
    """Return what cells can be compared by: ``top-1``, ``AUROC``, ``agreement``, or nothing.

    Agreement with the own checkpoint says nothing of two checkpoints, and random weights have no accuracy.
    """
    parities = [parity for cell in cells if (parity := parity_of(cell)) is not None]
    one = len({cell.name.checkpoint for cell in cells}) == 1
    if not parities or (any(cell.random_weights for cell in cells) and not one):
        return ""
    if not one and len({parity.images for parity in parities}) > 1:
        return ""
    if not any(cell.random_weights for cell in cells):
        if all(parity.top1 is not None for parity in parities):
            return "top-1"
        if all(parity.scores is not None for parity in parities):
            return "AUROC"
    return "agreement" if one else ""


def accuracy_of(cell: SweepCell, measure: str) -> float | None:
    """Return a cell's accuracy by a measure, in percent; None where it has none."""
    parity = parity_of(cell)
    if parity is None or not measure:
        return None
    if measure == "AUROC":
        return None if parity.scores is None else 100 * parity.scores.mean
    value = parity.top1 if measure == "top-1" else parity.agreement
    return None if value is None else 100 * value


def parity_of(cell: SweepCell) -> ParityReport | None:
    """Return the check of a cell; None where there is none."""
    return cell.row.parity if cell.row is not None and isinstance(cell.row.parity, ParityReport) else None


def measured_of(cell: SweepCell) -> Measurement | None:
    """Return the bench of a cell; None where there is none."""
    return cell.row.measurement if cell.row is not None and isinstance(cell.row.measurement, Measurement) else None


def median_ms(cell: SweepCell) -> float:
    """Return the median latency of a run in ms; only of a cell that was measured."""
    measured = measured_of(cell)
    assert measured is not None
    return statistics.median(measured.samples_ms)


def size_of(cell: SweepCell) -> int:
    """Return the size of a cell's engine in bytes; only of a cell that was built."""
    assert cell.row is not None and cell.row.artifact is not None
    return cell.row.artifact.size_bytes


def usable(cell: SweepCell) -> bool:
    """Return whether a cell may be deployed: accepted, and its latency valid and not emulated."""
    measured, row = measured_of(cell), cell.row
    judged = row.judged if row is not None else None
    return judged is not None and judged.word == "accepted" and measured is not None and not measured.emulated


def with_fronts(cells: Sequence[SweepCell]) -> tuple[tuple[SweepCell, ...], str]:
    """Mark the cells that no other one of their device and batch is better than in both respects.

    Returns:
        The cells, and what their accuracy is told by; empty where they cannot be compared by accuracy.
    """
    measure = measure_of(cells)
    on = dict[str, list[str]]()
    for group in groups(cells).values():
        free = [cell for cell in group if usable(cell)]
        points = {SIZE: [(cell, (median_ms(cell), float(size_of(cell)))) for cell in free]}
        by_accuracy = [(cell, value) for cell in free if (value := accuracy_of(cell, measure)) is not None]
        points[ACCURACY] = [(cell, (median_ms(cell), -value)) for cell, value in by_accuracy]
        for front, found in points.items():
            for cell, point in found:
                if not any(_beats(other, point) for _, other in found):
                    on.setdefault(cell.name.title, []).append(front)
    return tuple(dataclasses.replace(c, fronts=tuple(sorted(on.get(c.name.title, ())))) for c in cells), measure


def choose(cells: Sequence[SweepCell], budgets: Sequence[SweepBudget], percent: float) -> tuple[SweepChoice, ...]:
    """Recommend a cell for each device, batch and budget, with a reason for every other one.

    Args:
        cells: All cells.
        budgets: What is looked for.
        percent: Percentile of the latency that must keep its budget.
    """
    measure = measure_of(cells)
    return tuple(
        _chosen(key, group, budget, percent, measure) for key, group in groups(cells).items() for budget in budgets
    )


def _chosen(
    key: tuple[str, int], group: Sequence[SweepCell], budget: SweepBudget, percent: float, measure: str
) -> SweepChoice:
    record = Budgets(latency_ms=budget.latency_ms, max_drop=budget.max_drop, max_size_mb=budget.max_size_mb)
    top1 = (f"top-1 ≥ {100 * budget.min_top1:g} %",) if budget.min_top1 is not None else ()
    words = (*record.words, *top1)
    wanted = {"fastest": "the fastest", "accurate": "the most accurate", "smallest": "the smallest"}[budget.prefer]
    wanted += f" within {', '.join(words)}" if words else ""
    candidates, losers = list[SweepCell](), list[Loser]()
    for cell in group:
        why = cell.why or _why_not(cell, record, budget.min_top1, percent)
        if not why and budget.prefer == "accurate" and accuracy_of(cell, measure) is None:
            why = "its accuracy cannot be compared with the others'"
        if why:
            losers.append(Loser(label=cell.name.subject, why=why))
        else:
            candidates.append(cell)
    if not candidates:
        doubtful = any(cell.state in ("failed", "not run") or _undecided(cell.row) for cell in group)
        why = "no cell qualifies" + ", and at least one is not decided" * doubtful
        return SweepChoice(
            device=key[0], batch=key[1], wanted=wanted, winner="", why=why, losers=tuple(losers), open=doubtful
        )
    order: dict[str, Callable[[SweepCell], float]] = {
        "fastest": median_ms,
        "accurate": lambda cell: -(accuracy_of(cell, measure) or 0.0),
        "smallest": size_of,
    }
    first = min(candidates, key=lambda cell: (order[budget.prefer](cell), median_ms(cell), cell.name.subject))
    tied = [cell for cell in candidates if cell is first or (budget.prefer == "fastest" and _alike(first, cell))]
    winner = min(tied, key=lambda cell: (size_of(cell), median_ms(cell), cell.name.subject))
    for cell in candidates:
        if cell is not winner:
            losers.append(Loser(label=cell.name.subject, why=_against(cell, winner, measure), tied=cell in tied))
    only = "the only one that qualifies: " if len(candidates) == 1 else ""
    among = f"the smallest of {len(tied)} between which no difference in latency is shown: " if len(tied) > 1 else ""
    return SweepChoice(
        device=key[0],
        batch=key[1],
        wanted=wanted,
        winner=winner.name.subject,
        why=f"{only or among}{_numbers(winner, measure)}",
        losers=tuple(losers),
    )


def _why_not(cell: SweepCell, budgets: Budgets, min_top1: float | None, percent: float) -> str:
    assert cell.row is not None  # it is done
    parity = parity_of(cell)
    reasons = [recommendation.why_not(cell.row, budgets, percent)]
    if min_top1 is not None and (parity is None or parity.top1 is None):
        reasons.append("its top-1 is not known: the check images have no single labels")
    elif min_top1 is not None and parity is not None and parity.top1 is not None and parity.top1 < min_top1:
        reasons.append(f"top-1 {100 * parity.top1:.2f} %, at least {100 * min_top1:g} %")
    return "; ".join(filter(None, reasons))


def _undecided(row: EngineRow | None) -> bool:
    return row is not None and row.judged is not None and row.judged.word == "undecided"


def _against(cell: SweepCell, winner: SweepCell, measure: str) -> str:
    """Say what a cell has against the winner."""
    words = [f"{_numbers(cell, measure)}"]
    ratio = _ratio(winner, cell)
    if ratio is not None:
        words.append(
            f"winner {ratio.verdict}" if ratio.noise else f"its latency is {1 / ratio.ratio:.2f}× the winner's"
        )
    return "; ".join(words)


def _numbers(cell: SweepCell, measure: str) -> str:
    accuracy = accuracy_of(cell, measure)
    told = f", {measure} {accuracy:.2f} %" if accuracy is not None else ""
    return f"median {median_ms(cell):.4g} ms, {size(size_of(cell))}{told}"


def _ratio(one: SweepCell, other: SweepCell) -> SpeedUp | None:
    first, second = measured_of(one), measured_of(other)
    if first is None or second is None:
        return None
    ratio, low, high = latency.ratio_apart(first.samples_ms, second.samples_ms)
    return SpeedUp(ratio=ratio, low=low, high=high, baseline=one.name.subject, interleaved=False)


def _alike(one: SweepCell, other: SweepCell) -> bool:
    ratio = _ratio(one, other)
    return ratio is not None and ratio.noise


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether a point is at least as good in both respects and better in one; smaller is better."""
    return one != other and one[0] <= other[0] and one[1] <= other[1]
