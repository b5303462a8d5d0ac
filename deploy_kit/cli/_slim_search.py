"""A search within an accuracy budget, line by line: what was tried, what was timed, and what judged the choice."""

from deploy_kit.records.slimming import SlimSearch, SlimTrial


def rows(search: SlimSearch) -> list[tuple[str, str]]:
    """Return (what, text) for each line."""
    found = [("budget", f"{search.max_drop_pp:g} points: {'kept' if search.found else 'not kept'}")]
    found += [("tried", _trial(trial)) for trial in search.tried]
    found += [("timed", _trial(trial)) for trial in search.compared]
    if search.judged is not None:
        found.append(("judged", _trial(search.judged)))
    return found


def _trial(trial: SlimTrial) -> str:
    what = "drop" if trial.labelled else "changed answers"
    time = f"; {trial.ms[0]:.3f} ms on {trial.engine}" if trial.ms is not None else ""
    gain = f", {trial.gain}" if trial.gain else ""
    return (
        f"{trial.what}: {what} {trial.drop_pp:+.2f} points, at most {trial.upper_pp:+.2f}, on {trial.n} images "
        f"({trial.images}); KL {trial.kl:.2g}{time}{gain}"
    )
