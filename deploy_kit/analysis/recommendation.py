"""Which of the engines that were proved should be deployed, and why not each of the others."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from deploy_kit.base.errors import DeployKitError
from deploy_kit.base.text_files import parse_yaml
from deploy_kit.measure.speed_ups import speed_up
from deploy_kit.recipe import parse_recipe
from deploy_kit.records.engine_table import size, typed
from deploy_kit.records.measurements import Measurement, samples_for
from deploy_kit.records.readings import Rail
from deploy_kit.records.recommendation import Budgets, Loser, Recommendation
from deploy_kit.records.results import EngineRow, Limits, ParityReport, Report
from deploy_kit.stages.report.plausible import is_ours, refused

PERCENTILES = (50.0, 90.0, 99.0)
_NUMBER = re.compile(r"\d[\d.,]*|\(tied\)")


@dataclass(frozen=True, kw_only=True)
class _Contender:
    """An engine that was accepted, measured and keeps every budget."""

    label: str
    size_bytes: int
    measured: Measurement
    median_ms: float
    drop_high: float


def recommend(
    rows: Sequence[EngineRow], budgets: Budgets, percentiles: Sequence[float] = PERCENTILES
) -> Recommendation:
    """Choose the fastest engine of those that were accepted and keep the budgets.

    Engines whose latency is not shown to differ from the fastest one's are tied (`SpeedUp.noise`, round by round): of
    them the smallest wins, then the one with the lower upper end of its drop, then the first by name.

    Args:
        rows: The rows of one report, measured in turns.
        budgets: What an engine may cost.
        percentiles: Percentiles of which the largest one must keep the latency budget.

    Returns:
        The recommendation, with a reason for every row that lost.
    """
    candidates, losers = list[_Contender](), list[Loser]()
    for row in rows:
        why = why_not(row, budgets, max(percentiles))
        if why:
            losers.append(Loser(label=_named(row, rows), why=why))
        else:
            candidates.append(_candidate(row, rows))
    if not candidates:
        return Recommendation(winner="", why=_why_none(rows, budgets), losers=tuple(losers), budgets=budgets)
    candidates.sort(key=lambda one: (one.median_ms, one.label))
    fastest = candidates[0]
    tied = [one for one in candidates if one is fastest or _within_noise(fastest, one)]
    winner = min(tied, key=lambda one: (one.size_bytes, one.drop_high, one.label))
    losers += [_tied_loser(one, winner) for one in tied if one is not winner]
    losers += [_slower_loser(one, winner, fastest) for one in candidates if one not in tied]
    speed = f"median {winner.median_ms:.4g} ms, {size(winner.size_bytes)}"
    why = f"the only one that qualifies: {speed}"
    if len(tied) > 1:
        why = f"no other is shown to be faster, and of those within noise it is {_advantage(tied, winner)}: {speed}"
    elif len(candidates) > 1:
        why = f"the fastest that qualifies: {speed}"
    return Recommendation(winner=winner.label, why=why, losers=tuple(losers), budgets=budgets)


def verify_recommendation(report: Report, where: str) -> None:
    """Refuse a report whose recommendation is not what its rows and budgets give.

    Args:
        report: As it was read.
        where: File that it was read from.

    Raises:
        InputError: It names other engines than the rows, or recommends otherwise.
    """
    told = report.recommendation
    if told is None:
        return
    rows = sorted(_named(row, report.rows) for row in report.rows)
    names = sorted(name for name in (told.winner, *(one.label for one in told.losers)) if name)
    if names != rows:
        wanted = f"each engine of rows once: {', '.join(rows)}"
        raise refused(where, ("recommendation", wanted, ", ".join(names)))
    percentiles = _percentiles_of(report)
    if not is_ours(report.version) or percentiles is None:
        return
    again = recommend(report.rows, told.budgets, percentiles)
    for field, wanted, found in (
        ("winner", again.winner, told.winner),
        ("why", again.why, told.why),
        *(
            (f"losers[{place}]", _in_words(one), _in_words(other))
            for place, (one, other) in enumerate(zip(again.losers, told.losers, strict=False))
        ),
    ):
        # Words change between builds of one version, what they say of the numbers does not.
        if wanted != found and (field == "winner" or _NUMBER.findall(wanted) != _NUMBER.findall(found)):
            raise refused(where, (f"recommendation.{field}", f"{wanted or 'none'}, as the rows give", found or "none"))


def _in_words(loser: Loser) -> str:
    return f"{loser.label}: {loser.why}{' (tied)' * loser.tied}"


def _percentiles_of(report: Report) -> Sequence[float] | None:
    """Return the percentiles of a report's recipe; None where the recipe names what is not installed here."""
    if not report.recipe_yaml:
        return PERCENTILES
    try:
        return parse_recipe(parse_yaml(report.recipe_yaml, "recipe_yaml")).bench.percentiles
    except DeployKitError:
        return None


def why_not(row: EngineRow, budgets: Budgets, percent: float) -> str:
    """Return why an engine does not qualify; empty if it does.

    Args:
        row: The engine with its check and its bench.
        budgets: What it may cost.
        percent: Percentile of the latency that must keep its budget.
    """
    verdict = row.judged
    if verdict is None or verdict.word == "rejected":
        return row.verdict
    if verdict.word == "undecided":
        return _over_size(row, budgets.max_size_mb) or row.verdict  # what needs no clock and no images is known
    parity, measured = row.parity, row.measurement
    assert isinstance(parity, ParityReport)  # it was judged
    if parity.limits == Limits() and budgets.max_drop is None:
        return "nothing is proved of its accuracy: no limit is set"
    if not isinstance(measured, Measurement):
        return f"not measured{f': {measured.why}' if measured else ''}"
    if measured.emulated:
        return f"its times are {measured.emulated}"
    reasons = (
        _over_drop(parity, budgets.max_drop),
        _over_latency(measured, budgets.latency_ms, percent),
        _over_size(row, budgets.max_size_mb),
        _over_energy(measured, budgets.max_energy_mj, "mJ an image above idle", lambda rail: rail.mj_per_inference),
        _over_energy(measured, budgets.max_power_w, "W", lambda rail: rail.joules / rail.seconds),
    )
    return "; ".join(filter(None, reasons))


def _over_size(row: EngineRow, limit_mb: float | None) -> str:
    if row.artifact is None or limit_mb is None or row.artifact.size_bytes <= 1e6 * limit_mb:
        return ""
    return f"{size(row.artifact.size_bytes)}, at most {limit_mb:g} MB"


def _over_drop(parity: ParityReport, limit: float | None) -> str:
    if limit is None:
        return ""
    drop = parity.drop
    if drop is None:
        return "its drop is not known: the check images have no labels"
    answer = drop.answer(limit)
    if answer == "not kept":
        return f"{drop.points:.3g} points lost, at most {limit:g}"
    return (
        "" if answer == "kept" else f"undecided: too few images: up to {drop.high:.3g} points lost, at most {limit:g}"
    )


def _over_latency(measured: Measurement, limit_ms: float | None, percent: float) -> str:
    if limit_ms is None:
        return ""
    value = measured.percentile_ms(percent)
    if value is None:
        return (
            f"undecided: p{percent:g} needs {samples_for(percent):,} samples, {len(measured.samples_ms):,} were taken"
        )
    return f"p{percent:g} {value:.4g} ms, at most {limit_ms:g} ms" if value > limit_ms else ""


def _over_energy(measured: Measurement, limit: float | None, unit: str, reading: Callable[[Rail], float]) -> str:
    """Judge the rail that reads most: rails may overlap, so there is no sum, and each one must keep the limit."""
    if limit is None:
        return ""
    energy = measured.energy
    if energy is None or not energy.rails:
        why = energy.why if energy else "bench.energy is false"
        return f"undecided: its energy was not measured: {why}"
    most = max(energy.rails, key=reading)
    if reading(most) <= 0:
        return f"undecided: {most.name} drew no more than idle, so that its energy is not known"
    return f"{reading(most):.3g} {unit} on {most.name}, at most {limit:g}" if reading(most) > limit else ""


def _candidate(row: EngineRow, rows: Sequence[EngineRow]) -> _Contender:
    parity, measured, artifact = row.parity, row.measurement, row.artifact
    assert isinstance(parity, ParityReport) and isinstance(measured, Measurement) and artifact is not None
    return _Contender(
        label=_named(row, rows),
        size_bytes=artifact.size_bytes,
        measured=measured,
        median_ms=median(measured.samples_ms) / measured.batch,
        drop_high=parity.drop.high if parity.drop else 0.0,
    )


def _named(row: EngineRow, rows: Sequence[EngineRow]) -> str:
    """Return the label of a row, with its batch where one engine was measured at several."""
    several = sum(other.label == row.label for other in rows) > 1
    return (
        f"{row.label}, batch {row.measurement.batch}"
        if several and isinstance(row.measurement, Measurement)
        else row.label
    )


def _within_noise(fastest: _Contender, other: _Contender) -> bool:
    """Return whether no difference of the two latencies was shown."""
    if fastest.measured.batch != other.measured.batch:
        return False
    gain = speed_up(fastest.measured, other.measured)
    return gain is None or gain.noise


def _tied_loser(one: _Contender, winner: _Contender) -> Loser:
    larger = one.size_bytes - winner.size_bytes
    rest = f"{size(larger)} larger" if larger else "as large" if one.drop_high == winner.drop_high else "less exact"
    return Loser(label=one.label, why=f"within noise of the winner, {rest}", tied=True)


def _slower_loser(one: _Contender, winner: _Contender, fastest: _Contender) -> Loser:
    """Say by how much the winner is faster, or where only the fastest is shown to be: noise is not transitive."""
    if winner is not fastest and _within_noise(winner, one):
        return Loser(
            label=one.label,
            why=f"slower than {typed(fastest.label)}, {_ratio(one, fastest):.2f}×, and within noise of the winner",
        )
    return Loser(label=one.label, why=f"the winner is {_ratio(one, winner):.2f}× as fast")


def _ratio(slow: _Contender, fast: _Contender) -> float:
    gain = speed_up(slow.measured, fast.measured) if slow.measured.batch == fast.measured.batch else None
    return gain.ratio if gain else slow.median_ms / fast.median_ms


def _advantage(tied: Sequence[_Contender], winner: _Contender) -> str:
    others = [one for one in tied if one is not winner]
    if all(one.size_bytes > winner.size_bytes for one in others):
        return "the smallest"
    return (
        "the smallest and most exact"
        if any(one.drop_high > winner.drop_high for one in others)
        else "the first by name"
    )


def _why_none(rows: Sequence[EngineRow], budgets: Budgets) -> str:
    words = [row.judged.word for row in rows if row.judged is not None]
    if not words:
        return "no engine was checked"
    if "accepted" in words:
        return "no accepted engine keeps the budgets" if budgets.words else "no accepted engine was measured"
    if set(words) == {"undecided"}:
        accurate = all(row.accurate for row in rows if row.judged is not None)
        return "every engine is undecided" + ": the accuracy of all is accepted, and no latency is valid" * accurate
    return "no engine was accepted" + (", and at least one is undecided" if "undecided" in words else "")
