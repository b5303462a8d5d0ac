"""Thumbnails: the images that changed their class, small, JPEG, and not too many."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from report_records import parity, row

from deploy_kit.images.sets import of_pixels
from deploy_kit.records.parity import Flip, Flips
from deploy_kit.records.results import EngineRow
from deploy_kit.stages.report import thumbnails


def flipped(name: str, *images: int) -> EngineRow:
    worst = tuple(Flip(image=i, name=f"image {i}", margin=float(i), reference=0, found=1) for i in images)
    flips = Flips(n=len(worst), close_margin=0.1, close=0, worst=worst)
    return row(name, "openvino", parity=parity(f"{name} · openvino", flips=flips))


@pytest.mark.parametrize("shape", [(28, 28), (300, 200, 3)])
def test_a_thumbnail_is_the_image_in_small(shape: tuple[int, ...]) -> None:
    pixels = np.full((3, *shape), 200, np.uint8)
    pixels[2] = 40

    (found,) = thumbnails.thumbnails(of_pixels("some", pixels, None), [flipped("int8", 2)])

    picture = Image.open(io.BytesIO(base64.b64decode(found.data)))
    assert (found.image, found.name, picture.format) == (2, "image 2", "JPEG")
    assert max(picture.size) <= 96 and abs(float(np.asarray(picture).mean()) - 40) < 3


def test_each_image_is_there_once_and_the_surest_first() -> None:
    pixels = np.zeros((60, 8, 8), np.uint8)

    found = thumbnails.thumbnails(of_pixels("some", pixels, None), [flipped("int8", 3, 5), flipped("fp16", 5, 9)])

    assert [one.image for one in found] == [9, 5, 3]
    many = thumbnails.thumbnails(of_pixels("some", pixels, None), [flipped("int8", *range(60))])
    assert len(many) == thumbnails.MOST


def test_an_index_beyond_the_set_is_left_out() -> None:
    assert thumbnails.thumbnails(of_pixels("some", np.zeros((2, 8, 8), np.uint8), None), [flipped("int8", 7)]) == ()
