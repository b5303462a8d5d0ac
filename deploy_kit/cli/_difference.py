"""Where two artifacts differ, on the command line. A question: whatever the answer, the command ends with 0."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from deploy_kit.analysis import difference
from deploy_kit.analysis.difference import NetworkDifference, PointDifference
from deploy_kit.base.errors import RequestError
from deploy_kit.cli import _steps
from deploy_kit.cli._console import Console, pairs, table
from deploy_kit.cli._steps import Asked

_HEADINGS = ("point", "SQNR", "expected", "largest error", "worst channel", "session")


def verify_alone(said: Mapping[str, object]) -> None:
    """Refuse what judges or diagnoses beside ``--layers``, which does neither.

    Args:
        said: What was given for each flag; None where it was not.

    Raises:
        RequestError: One was given.
    """
    given = [flag for flag, value in said.items() if value is not None]
    if given:
        raise RequestError(
            f"--layers says where two artifacts differ and judges nothing: it does not take {', '.join(given)}",
            hint=f"deploykit check {given[0]} … and deploykit check --layers A B, one after the other",
        )


def show(names: tuple[str, str], asked: Asked, console: Console) -> None:
    """Compare two artifacts and print the answer."""
    first_file = next((Path(name) for name in names if Path(name).is_file()), None)
    if asked.recipe is None and not (asked.store / "journal.jsonl").is_file():
        asked = dataclasses.replace(asked, model=first_file)  # nothing is in the store: the default recipe will do
    with _steps.started(asked, console) as run:
        first, second = (difference.find_subject(name, run.store, run.recipe.source) for name in names)
        found, _ = difference.find_difference(first, second, run.target, images=run.check_images)
    console.result(found, text(found))


def text(found: NetworkDifference) -> str:
    """Draw what was compared, each point, and the verdict."""
    one, other = found.computed_by
    about = [
        ("first", f"{found.first} (computed by {one})"),
        ("second", f"{found.second} (computed by {other})"),
        ("images", f"{found.n} ({found.images})"),
        (
            "looked at",
            "every layer" if found.every_layer else "the ends of blocks, and the layers of the block that is off",
        ),
    ]
    if found.unlike:
        about.append(("in one alone", ", ".join(found.unlike)))
    rows = [_row(point, marked=point.point == found.part) for point in found.points]
    return "\n\n".join([pairs(about), table(_HEADINGS, rows), pairs([("verdict", found.verdict)])])


def _row(point: PointDifference, *, marked: bool) -> tuple[str, ...]:
    disturbed = "" if point.undisturbed_db == math.inf else f", logits {point.undisturbed_db:.1f} dB"
    channel = "–" if point.channel < 0 else f"{point.channel}: {_db(point.channel_db)}"
    return (
        f"{point.point}{' ←' * marked}",
        _db(point.sqnr_db),
        _db(point.expected_db),
        f"{point.max_error:.3g}",
        channel,
        f"{point.session}{disturbed}",
    )


def _db(level: float) -> str:
    return "equal" if level == math.inf else "not finite" if level == -math.inf else f"{level:.1f} dB"
