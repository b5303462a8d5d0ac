"""``quantize --max-drop`` and ``--sensitivity``: a mix of precisions as lines and a table."""

from deploy_kit.cli._console import table
from deploy_kit.records.mixed_precision import Mix
from deploy_kit.stages.report import mixed_precision


def summary_rows(mix: Mix) -> list[tuple[str, str]]:
    """Summarize a mix as (name, value) lines."""
    drop = {"top-1": "drop", "agreement": "lost agreement"}.get(mix.judged_by, f"{mix.judged_by} drop")
    rows = [("images", f"{mix.n} ({mix.images}), {drop} in points with the upper end of its 95 % interval")]
    if mix.max_drop_pp is not None:
        rows.append(("budget", f"{mix.max_drop_pp:g} points: {'kept' if mix.found else 'not kept'}"))
    rows.append((mix.whole, f"{mix.int8_drop_pp:+.2f}, at most {mix.int8_upper_pp:+.2f}"))
    if mix.max_drop_pp is not None and mix.kept:
        rows.append(("this mix", f"{mix.drop_pp:+.2f}, at most {mix.upper_pp:+.2f}"))
        n = sum(row.precision != "int8" for row in mix.decisions)
        rows.append(("in float", f"{n} of {len(mix.decisions)} groups: {', '.join(mix.kept)}"))
    if latency := mixed_precision.latency(mix):
        rows.append(("latency", latency))
    rows.append(("trials", str(mix.trials)))
    return [*rows, ("remark", mix.remark)] if mix.remark else rows


def decision_table(mix: Mix, *, only_float: bool) -> str:
    """Lay out the decisions for all layer groups, or for those in float; empty where there is nothing to show."""
    rows = [row for row in mix.decisions if not only_float or row.precision != "int8"]
    if not rows or (only_float and not mix.n_sensitivity):
        return ""
    return table(mixed_precision.HEADINGS, [mixed_precision.cells(row) for row in rows])
