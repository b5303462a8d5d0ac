"""Checks of calibration images: noise, constants, copies, wrong units, images shared with a check set.

They hash the pixels of all images, read those of a bounded, evenly spread sample, and say nothing about accuracy.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from deploy_kit.base.errors import InputError
from deploy_kit.images import ImageSet, check_sets
from deploy_kit.images.calibration_checks import near_duplicates, noise
from deploy_kit.images.calibration_checks.pixels import over, spread
from deploy_kit.records.artifacts import Preprocess

Code = Literal[
    "units", "range", "constant", "noise", "duplicates", "few", "one-class", "overlap", "near-duplicates",
    "absent-classes",
]  # fmt: skip
_SAMPLE, _FEW, _NAMED = 256, 16, 5


@dataclass(frozen=True, kw_only=True)
class CalibrationFinding:
    """One fault of a calibration set.

    Attributes:
        code: Name of the check.
        severity: ``refuse`` where the set must not be used, else ``warn``.
        text: The fault, with numbers.
        cure: What to do.
    """

    code: Code
    severity: Literal["refuse", "warn"]
    text: str
    cure: str


@dataclass(frozen=True, kw_only=True)
class _Look:
    """Facts of one image: the largest pixel, whether all have one value, and how neighbors correlate."""

    largest: int
    constant: bool
    correlations: np.ndarray
    pairs: np.ndarray


def examine(image_set: ImageSet, preprocess: Preprocess) -> tuple[CalibrationFinding, ...]:
    """Find the faults of a calibration set.

    Args:
        image_set: The calibration set.
        preprocess: Preprocessing of its images.

    Raises:
        InputError: An image of the sample cannot be read.
    """
    looks = tuple(over(image_set, _SAMPLE, _look))
    findings = (
        _units(preprocess), _range(looks), _constant(image_set, looks), _noise(looks), _duplicates(image_set),
        _few(image_set), _one_class(image_set),
    )  # fmt: skip
    return tuple(finding for finding in findings if finding is not None)


def compare(calibration: ImageSet, check: ImageSet) -> tuple[CalibrationFinding, ...]:
    """Find images that a calibration set and a check set share, and classes that the first lacks.

    Raises:
        InputError: An image of a sample cannot be read.
    """
    shared = _overlap(calibration, check)
    if shared is not None:
        return (shared,)
    findings = (_near(calibration, check), _absent(calibration, check))
    return tuple(finding for finding in findings if finding is not None)


def require(image_set: ImageSet, findings: tuple[CalibrationFinding, ...]) -> tuple[str, ...]:
    """Refuse a set for the first finding of severity ``refuse``; otherwise return the warnings in words.

    Raises:
        InputError: The set must not be used.
    """
    for finding in findings:
        if finding.severity == "refuse":
            raise InputError(f"{image_set.name}: {finding.text}", hint=finding.cure)
    return tuple(f"{finding.text} ({finding.cure})" for finding in findings)


def _look(pixels: np.ndarray) -> _Look:
    constant = bool((pixels == pixels[0, 0]).all())
    found, pairs = noise.correlations(pixels)
    return _Look(largest=int(pixels.max()), constant=constant, correlations=found, pairs=pairs)


def _units(preprocess: Preprocess) -> CalibrationFinding | None:
    fault = preprocess.units_fault
    if not fault:
        return None
    return CalibrationFinding(
        code="units",
        severity="refuse",
        text=fault,
        cure="divide mean and std by 255, and export the checkpoint again",
    )


def _range(looks: tuple[_Look, ...]) -> CalibrationFinding | None:
    if max(look.largest for look in looks) > 1:
        return None
    return CalibrationFinding(
        code="range",
        severity="refuse",
        text=f"no pixel of {len(looks)} images is larger than 1: scaled to 0..1, and saved as whole numbers",
        cure="store pixels as they are, 0..255",
    )


def _constant(image_set: ImageSet, looks: tuple[_Look, ...]) -> CalibrationFinding | None:
    flat = [place for place, look in enumerate(looks) if look.constant]
    if not flat:
        return None
    first = image_set.name_of(spread(image_set.n, _SAMPLE)[flat[0]])
    return CalibrationFinding(
        code="constant",
        severity="refuse" if 2 * len(flat) >= len(looks) else "warn",
        text=f"{len(flat)} of {len(looks)} images have one value in every pixel, the first is {first}",
        cure="leave them out, and see how they came about",
    )


def _noise(looks: tuple[_Look, ...]) -> CalibrationFinding | None:
    """Refuse where half of the images show no correlation between neighbors, alone and taken together."""
    alive = [look for look in looks if not look.constant]
    silent = [look for look in alive if noise.silent(look.correlations, look.pairs)]
    if not silent or 2 * len(silent) < len(alive):
        return None
    most = noise.together(np.stack([look.correlations for look in silent]), np.stack([look.pairs for look in silent]))
    if most is None:
        return None
    return CalibrationFinding(
        code="noise",
        severity="refuse",
        text=f"{len(silent)} of {len(looks)} images are random noise: neighboring pixels correlate by no more than "
        f"{most:.3f}",
        cure="give images as the model will see them: noise has ranges that no image has",
    )


def _duplicates(image_set: ImageSet) -> CalibrationFinding | None:
    copies = check_sets.copies(image_set)
    if not copies.n:
        return None
    return CalibrationFinding(
        code="duplicates",
        severity="refuse" if 2 * copies.n >= copies.of else "warn",
        text=copies.words,
        cure="leave the copies out",
    )


def _few(image_set: ImageSet) -> CalibrationFinding | None:
    if image_set.n >= _FEW:
        return None
    return CalibrationFinding(
        code="few",
        severity="warn",
        text=f"{image_set.n} images are few to see ranges in",
        cure="a few hundred are usual",
    )


def _one_class(image_set: ImageSet) -> CalibrationFinding | None:
    if image_set.labels is None or image_set.n < 2 or (image_set.labels != image_set.labels[0]).any():
        return None
    return CalibrationFinding(
        code="one-class",
        severity="warn",
        text=f"all {image_set.n} images have the same label",
        cure="calibrate with images of every class",
    )


def _overlap(calibration: ImageSet, check: ImageSet) -> CalibrationFinding | None:
    shared = check.overlap(calibration)
    if not shared:
        return None
    return CalibrationFinding(
        code="overlap",
        severity="refuse",
        text=f"{shared} images are both in the calibration set and in the check set '{check.name}'",
        cure="check on images that calibration has not seen",
    )


def _near(calibration: ImageSet, check: ImageSet) -> CalibrationFinding | None:
    alike = near_duplicates.pairs(calibration, check)
    if not len(alike):
        return None
    ours, theirs = (spread(image_set.n, near_duplicates.COMPARED) for image_set in (calibration, check))
    first = f"{calibration.name_of(ours[alike[0, 0]])} and {check.name_of(theirs[alike[0, 1]])}"
    return CalibrationFinding(
        code="near-duplicates",
        severity="warn",
        text=f"{len(np.unique(alike[:, 0]))} of {len(ours)} calibration images look like one of {len(theirs)} check "
        f"images, the first are {first}",
        cure="see whether the same images were saved again; if so, check on others",
    )


def _absent(calibration: ImageSet, check: ImageSet) -> CalibrationFinding | None:
    if calibration.labels is None or check.labels is None or calibration.multilabel != check.multilabel:
        return None
    there, names = _classes_in(calibration.labels), dict(enumerate(check.classes))
    absent = sorted(_classes_in(check.labels) - there)
    if calibration.classes and check.classes:  # each set of folders numbers its own
        known = {calibration.classes[one] for one in there}
        absent = [one for one in sorted(_classes_in(check.labels)) if names[one] not in known]
    if not absent:
        return None
    named = ", ".join(names.get(one, str(one)) for one in absent[:_NAMED]) + (", …" if len(absent) > _NAMED else "")
    return CalibrationFinding(
        code="absent-classes",
        severity="warn",
        text=f"{len(absent)} classes of the check set are not in the calibration set: {named}",
        cure="calibrate with images of every class",
    )


def _classes_in(labels: np.ndarray) -> set[int]:
    present = np.flatnonzero(labels.any(axis=0)) if labels.ndim == 2 else np.unique(labels)
    return {int(one) for one in present}
