"""Mixed precision in the report: which groups keep the budget in float, and the decision for each layer group."""

from collections.abc import Iterable, Mapping

from deploy_kit.records.engine_table import NONE
from deploy_kit.records.mixed_precision import Decision, Mix
from deploy_kit.stages.report.document import Section, Table

HEADINGS = ("group", "precision", "SQNR alone", "KL alone", "saved by int8 (estimate)", "MMACs", "why")


def sections(mixes: Iterable[Mix], names: Mapping[str, str]) -> list[Section]:
    """Return a section for each mix; empty where no budget was given.

    Args:
        mixes: Mixed-precision searches behind graphs of the report.
        names: sha256 of a graph → its variant.
    """
    found = []
    for mix in mixes:
        rows = (Table(headings=HEADINGS, rows=[cells(row) for row in mix.decisions]),) if mix.n_sensitivity else ()
        title = f"Precision by layer group: {names[mix.artifact]}"
        found.append(Section(title=title, blocks=(sentence(mix), *rows)))
    return found


def sentence(mix: Mix) -> str:
    """Describe the budget, how it is kept, and the estimated latency of the mix."""
    lost = "lost agreement" if mix.judged_by == "agreement" else f"{mix.judged_by} drop"
    kept = ", ".join(mix.kept) or "nothing"
    budget = f"Budget {mix.max_drop_pp:g} points, kept. " if mix.max_drop_pp is not None else ""
    alone = f"Each group alone in int8 on the first {mix.n_sensitivity} of them. " if mix.n_sensitivity else ""
    estimate = latency(mix)
    return (
        f"{budget}In float: {kept}. On {mix.n} tuning images ({mix.images}), computed in {mix.evaluated_in}: {lost} "
        f"{mix.drop_pp:+.2f} points, at most {mix.upper_pp:+.2f} (95 %); {mix.whole} {mix.int8_drop_pp:+.2f}, "
        f"at most {mix.int8_upper_pp:+.2f}. {alone}" + (f"Latency, {estimate}." if estimate else "")
    )


def latency(mix: Mix) -> str:
    """Describe the estimated latencies; empty where nothing was to be estimated."""
    if mix.estimated_ms is None or mix.int8_ms is None or mix.float_ms is None:
        return mix.times_from and f"not estimated: {mix.times_from}"
    return (
        f"an estimate from {mix.times_from}: {mix.estimated_ms:.3f} ms, {mix.whole} {mix.int8_ms:.3f} ms, "
        f"in float {mix.float_ms:.3f} ms"
    )


def cells(row: Decision) -> tuple[str, ...]:
    """Return one line of the table: a text for each of `HEADINGS`."""
    return (
        row.group,
        row.precision,
        f"{row.sqnr_db:.1f} dB" if row.sqnr_db is not None else NONE,
        f"{row.kl:.2g}" if row.kl is not None else NONE,
        f"{row.saved_ms:+.3f} ms" if row.saved_ms is not None else NONE,
        f"{row.macs / 1e6:,.1f}",
        row.why or NONE,
    )
