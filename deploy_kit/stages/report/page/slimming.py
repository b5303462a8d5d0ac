"""What slimming costs: the drop against what is left of the multiply-accumulates, or against latency where timed."""

import math

from deploy_kit.base.markup import Markup, markup
from deploy_kit.records.slimming import SlimSearch, SlimTrial
from deploy_kit.stages.report import slimming
from deploy_kit.stages.report.page import plot, tables
from deploy_kit.stages.report.page.plot import Axis, Look

_HEIGHT, _TITLE = 300, "Slimming: the drop against what is left"


def draw(search: SlimSearch) -> Markup:
    """Draw the trials of a search on the images that chose, with the budget and the choice."""
    shown = [trial for trial in slimming.trials(search) if trial is not search.judged]
    timed = [trial for trial in shown if trial.ms is not None]
    shown = timed or shown
    looks = plot.looks(map(_kind, shown))
    x = plot.axis([_place(trial) for trial in shown], start=plot.LEFT, end=plot.WIDTH - plot.RIGHT)
    ends = [end for trial in shown for end in (_low(trial), trial.upper_pp)]
    y = plot.axis([*ends, search.max_drop_pp, 0.0], start=_HEIGHT - plot.BOTTOM, end=plot.TOP + 12)
    budget = y.at(search.max_drop_pp)
    parts = [
        plot.frame(x, y, "median latency, ms" if timed else "share of the multiply-accumulates", "drop, points"),
        plot.line(x.start, y.at(0), x.end, y.at(0), "zero"),
        plot.line(x.start, budget, x.end, budget, "limit"),
        plot.label(x.end, budget - 4, f"budget {plot.number(search.max_drop_pp)}", "note", anchor="end"),
        *(_mark(trial, search, looks[_kind(trial)], x, y) for trial in shown),
    ]
    note = (
        "On the images that chose. Bars are 95 % intervals, of which the upper end has to keep the budget; the filled "
        "mark is the choice."
    )
    numbers = tables.table(slimming.HEADINGS, [slimming.cells(trial) for trial in slimming.trials(search)])
    legend = plot.legend([(kind.removesuffix(" · "), look) for kind, look in looks.items()])
    return plot.figure("slimming", _TITLE, note, plot.picture(_TITLE, _HEIGHT, parts), numbers, legend)


def _mark(trial: SlimTrial, search: SlimSearch, look: Look, x: Axis, y: Axis) -> Markup:
    """Draw a trial with its intervals."""
    chosen = search.chosen is not None and (trial.what, trial.asked) == (search.chosen.what, search.chosen.asked)
    at, height, whisker = x.at(_place(trial)), y.at(trial.drop_pp), f"whisker {look.color}"
    parts = [plot.line(at, y.at(_low(trial)), at, y.at(trial.upper_pp), whisker)]
    if trial.ms is not None and trial.ms[2] < math.inf:
        parts.append(plot.line(x.at(trial.ms[1]), height, x.at(trial.ms[2]), height, whisker))
    tip = f"{trial.what}: drop {slimming.drop(trial)} points{f', {trial.ms[0]:.3f} ms' if trial.ms else ''}"
    data = {"label": trial.what, "share": trial.share, "points": trial.drop_pp, "high": trial.upper_pp}
    data |= {"ms": trial.ms[0] if trial.ms else None, "chosen": chosen or None}
    return markup((*parts, plot.mark(look, at, height, f"{tip}{'; chosen' * chosen}", hollow=not chosen, **data)))


def _place(trial: SlimTrial) -> float:
    return trial.share if trial.ms is None else trial.ms[0]


def _low(trial: SlimTrial) -> float:
    return trial.drop_pp if trial.lower_pp is None else trial.lower_pp


def _kind(trial: SlimTrial) -> str:
    return f"{trial.precision}{' mixed' * bool(trial.kept)} · {trial.engine}"
