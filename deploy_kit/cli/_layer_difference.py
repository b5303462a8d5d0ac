"""``check --layers``: where two artifacts differ. A question: whatever the answer, the command ends with 0."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from deploy_kit.analysis import difference
from deploy_kit.analysis.difference import NetworkDifference, PointDifference
from deploy_kit.analysis.difference.verdict import in_db
from deploy_kit.base.errors import RequestError
from deploy_kit.cli import _steps
from deploy_kit.cli._console import Console, pairs, table
from deploy_kit.cli._options import StepOptions

_HEADINGS = ("point", "SQNR", "expected", "largest error", "worst channel", "session")


def verify_alone(flags: Mapping[str, object]) -> None:
    """Refuse options that judge or diagnose beside ``--layers``, which does neither.

    Args:
        flags: Value of each flag; None where it was not given.

    Raises:
        RequestError: One was given.
    """
    given = [flag for flag, value in flags.items() if value is not None]
    if given:
        raise RequestError(
            f"--layers only shows where two artifacts differ: it cannot be combined with {', '.join(given)}",
            hint=f"run deploykit check {given[0]} … and deploykit check --layers A B separately",
        )


def show(names: tuple[str, str], step: StepOptions, console: Console) -> None:
    """Compare two artifacts and print the answer."""
    first_file = next((Path(name) for name in names if Path(name).is_file()), None)
    if step.recipe is None and not (step.store / "journal.jsonl").is_file():
        step = dataclasses.replace(step, model=first_file)  # nothing is in the store: the default recipe will do
    with _steps.open_run(step, console) as run:
        first, second = (difference.find_subject(name, run.store, run.recipe.source) for name in names)
        answer, _ = difference.find_difference(first, second, run.target, images=run.check_images)
    console.result(answer, text(answer))


def text(answer: NetworkDifference) -> str:
    """Draw what was compared, each point, and the verdict."""
    one, other = answer.computed_by
    about = [
        ("first", f"{answer.first} (computed by {one})"),
        ("second", f"{answer.second} (computed by {other})"),
        ("images", f"{answer.n} ({answer.images})"),
        (
            "looked at",
            "every layer" if answer.every_layer else "the ends of blocks, and the layers of the block that is off",
        ),
    ]
    if answer.unlike:
        about.append(("only in one", ", ".join(answer.unlike)))
    rows = [_row(point, marked=point.point == answer.part) for point in answer.points]
    return "\n\n".join([pairs(about), table(_HEADINGS, rows), pairs([("verdict", answer.verdict)])])


def _row(point: PointDifference, *, marked: bool) -> tuple[str, ...]:
    disturbed = "" if point.undisturbed_db == math.inf else f", logits {point.undisturbed_db:.1f} dB"
    channel = "–" if point.channel < 0 else f"{point.channel}: {in_db(point.channel_db)}"
    return (
        f"{point.point}{' ←' * marked}",
        in_db(point.sqnr_db),
        in_db(point.expected_db),
        f"{point.max_error:.3g}",
        channel,
        f"{point.session}{disturbed}",
    )
