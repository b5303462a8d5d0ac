"""The verdict on two networks in a sentence."""

import math

from deploy_kit.analysis.difference import points
from deploy_kit.records.artifacts import Precision
from deploy_kit.records.difference import NetworkDifference, PointDifference


def verdict(found: NetworkDifference, precision: Precision) -> str:
    """State where the two part, or that they do not, and what that cannot tell."""
    said = _parted(found) if found.part else _level(found, precision)
    if len(found.points) == 1:
        said += "; no dense block was found in it: the logits alone were compared"
    disturbed = [row for row in found.points if row.undisturbed_db < math.inf]
    if disturbed:
        worst = min(row.undisturbed_db for row in disturbed)
        said += f"; observing {_listed(disturbed)} changed the logits ({in_db(worst)}): alone they are not computed so"
    return said


def _parted(found: NetworkDifference) -> str:
    rows = {row.point: row for row in found.points}
    row = rows[found.part]
    if found.sign == "lost channel":
        what = (
            f"channel {row.channel} is lost there ({in_db(row.channel_db)}; all channels together {in_db(row.sqnr_db)})"
        )
    else:
        what = f"{_before(rows, found.part)}{in_db(row.sqnr_db)} there"
    return f"they part at {found.part}: {what}"


def _before(rows: dict[str, PointDifference], name: str) -> str:
    read = [rows[one].sqnr_db for one in points.reads(rows)[name]]
    return f"{in_db(min(read))} before, " if read else ""


def _level(found: NetworkDifference, precision: Precision) -> str:
    rows = [row for row in found.points if math.isfinite(row.sqnr_db)]
    if not rows:
        return "they are equal to the last bit"
    first, last = rows[0], rows[-1]
    worst = min(rows, key=lambda row: row.sqnr_db)
    if precision == "fp32":
        return (
            f"no place: they differ by float's own rounding, {in_db(worst.sqnr_db)} at {worst.point} and more elsewhere"
        )
    return (
        f"no single place: noise grows smoothly, from {in_db(first.sqnr_db)} at {first.point} to "
        f"{in_db(worst.sqnr_db)} at {worst.point}; {in_db(last.sqnr_db)} at {last.point}"
    )


def _listed(rows: list[PointDifference]) -> str:
    return rows[0].point if len(rows) == 1 else f"{rows[0].point} and {len(rows) - 1} more"


def in_db(level: float) -> str:
    """Write an SQNR, in words where it is no number."""
    return "equal" if level == math.inf else "not finite" if level == -math.inf else f"{level:.1f} dB"
