"""Tests of the masks on a report's page: drawn from the record, and nothing else becomes a picture."""

import base64
import dataclasses
import io

import numpy as np
from PIL import Image
from report_records import everything

from deploy_kit.images import masks
from deploy_kit.records.parity import MaskPicture, TaskScores
from deploy_kit.records.results import ParityReport, Report
from deploy_kit.stages.report.page import mask_pictures


def pictures() -> tuple[MaskPicture, ...]:
    before = np.zeros((2, 120, 100), np.int16)
    after = before.copy()
    after[0, :60] = 3
    arrays = {"places": np.array([7, 2]), "maps": np.stack([before, after], 1), "slices": np.array([[0, 0], [3, 8]])}
    return masks.pictures(arrays, "image {}".format)


def report_of(found: tuple[MaskPicture, ...]) -> Report:
    report = everything()
    task = TaskScores(task="segment", source="stated", agreement_name="pixel agreement", measure="mIoU", pictures=found)
    rows = tuple(
        dataclasses.replace(row, parity=dataclasses.replace(row.parity, task=task))
        if isinstance(row.parity, ParityReport)
        else row
        for row in report.rows
    )
    return dataclasses.replace(report, rows=rows)


def test_pngs_hold_the_classes_at_most_96_px_wide() -> None:
    first, second = pictures()

    image = Image.open(io.BytesIO(base64.b64decode(first.found)))
    assert image.size == (50, 60)
    assert np.array_equal(np.asarray(image), np.repeat([3, 0], 30)[:, None].repeat(50, 1))
    assert (first.image, first.differing, second.differing) == (7, 0.5, 0.0)
    assert (first.name, second.name) == ("image 7", "image 2, slice 3 of 8")
    assert image.convert("RGB").getpixel((0, 0)) == (128, 128, 0)  # class 3 of PASCAL VOC


def test_a_page_shows_them_with_their_share() -> None:
    drawn = str(mask_pictures.differing(report_of(pictures())))

    assert "50.00 % of the pixels differ" in drawn
    assert drawn.count("data:image/png;base64,") % 3 == 0


def test_what_is_no_png_is_not_embedded() -> None:
    odd = dataclasses.replace(pictures()[0], found=base64.b64encode(b"<svg onload=x>").decode(), difference="%%")

    drawn = str(mask_pictures.differing(report_of((odd,))))

    n = drawn.count("<li")
    assert drawn.count("data:image/png;base64,") == n
    assert drawn.count("no-image") == 2 * n


def test_a_classification_has_none() -> None:
    assert mask_pictures.differing(everything()) is None
