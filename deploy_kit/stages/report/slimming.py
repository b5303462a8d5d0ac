"""Slimming in the report: what was tried within a budget, and what became of each layer."""

from collections.abc import Iterable

from deploy_kit.records.engine_table import NONE
from deploy_kit.records.slimming import Slimmed, SlimSearch, SlimTrial
from deploy_kit.stages.report.document import Section, Table

HEADINGS = ("tried", "MACs", "drop in points", "KL", "latency", "against the whole in float", "images")
_LAYERS = ("layer", "channels", "MACs", "predicted KL", "seen KL")


def sections(searches: Iterable[SlimSearch], graphs: Iterable[Slimmed]) -> list[Section]:
    """Return a section for each search and each slimmed graph behind the report; empty where nothing was slimmed."""
    found = []
    for search in searches:
        table = Table(headings=HEADINGS, rows=[cells(trial) for trial in trials(search)])
        title = f"Slimming within {search.max_drop_pp:g} points"
        found.append(Section(title=title, blocks=(f"{search.words[:1].upper()}{search.words[1:]}.", table)))
    for small in graphs:
        rows = [
            (
                layer.name,
                f"{layer.channels} → {layer.kept}",
                f"{layer.macs_before:,} → {layer.macs_after:,}",
                f"{layer.predicted:.2g}",
                f"{layer.seen:.2g}",
            )
            for layer in small.layers
        ]
        words = f"S{small.words[1:]}. Weights refitted to {small.n_images} images in {small.seconds:.0f} s."
        found.append(Section(title="Slimmed layers", blocks=(words, Table(headings=_LAYERS, rows=rows))))
    return found


def trials(search: SlimSearch) -> list[SlimTrial]:
    """List every trial once, by what is left; where one was timed, that one, and what judged the choice last."""
    newest = {(trial.what, trial.images): trial for trial in (*search.tried, *search.compared)}
    ordered = sorted(newest.values(), key=lambda trial: (-trial.share, trial.precision, trial.kept))
    return [*ordered, *filter(None, [search.judged])]


def drop(trial: SlimTrial) -> str:
    """Write a drop with its 95 % interval."""
    low = NONE if trial.lower_pp is None else f"{trial.lower_pp:+.2f}"
    return f"{trial.drop_pp:+.2f} [{low}, {trial.upper_pp:+.2f}]"


def cells(trial: SlimTrial) -> tuple[str, ...]:
    """Return one line of the table: a text for each of `HEADINGS`."""
    return (
        trial.what,
        f"{trial.share:.2f}",
        drop(trial),
        f"{trial.kl:.2g}",
        f"{trial.ms[0]:.3f} ms, {trial.engine}" if trial.ms is not None else NONE,
        trial.gain.partition(" the")[0] or NONE,
        f"{trial.n} of {trial.images}",
    )
