"""``quantize --max-drop`` and ``--sensitivity``: the mix of precisions, told."""

from deploy_kit.cli._console import table
from deploy_kit.records.mixed_precision import Mix
from deploy_kit.stages.report import mixed_precision


def pairs_of(mix: Mix) -> list[tuple[str, str]]:
    """Say in a few lines what was found."""
    drop = "drop" if mix.judged_by == "top-1" else "lost agreement"
    rows = [("images", f"{mix.n} ({mix.images}), {drop} in points with the upper end of its 95 % interval")]
    if mix.max_drop_pp is not None:
        rows.append(("budget", f"{mix.max_drop_pp:g} points: {'kept' if mix.found else 'not kept'}"))
    rows.append((mix.whole, f"{mix.int8_drop_pp:+.2f}, at most {mix.int8_upper_pp:+.2f}"))
    if mix.max_drop_pp is not None and mix.kept:
        rows.append(("this mix", f"{mix.drop_pp:+.2f}, at most {mix.upper_pp:+.2f}"))
        n = sum(row.precision != "int8" for row in mix.decisions)
        rows.append(("in float", f"{n} of {len(mix.decisions)} groups: {', '.join(mix.kept)}"))
    if took := mixed_precision.latency(mix):
        rows.append(("latency", took))
    rows.append(("trials", str(mix.trials)))
    return [*rows, ("remark", mix.remark)] if mix.remark else rows


def sensitivity(mix: Mix, *, only_kept: bool) -> str:
    """Lay out the table of decisions: the groups in float, or all; empty where there is nothing to tell."""
    rows = [row for row in mix.decisions if not only_kept or row.precision != "int8"]
    if not rows or (only_kept and not mix.n_sensitivity):
        return ""
    return table(mixed_precision.HEADINGS, [mixed_precision.cells(row) for row in rows])
