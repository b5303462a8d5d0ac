"""Check images whose prediction changed, in small: they travel in the report, because the image set does not."""

import base64
import io
from collections.abc import Iterable

import numpy as np

from deploy_kit.images import ImageSet
from deploy_kit.records.results import EngineRow, ParityReport, Thumbnail

MOST = 24
"""Number of thumbnails of a report: about 2 kB each."""
_SIDE, _QUALITY = 96, 80


def thumbnails(images: ImageSet, rows: Iterable[EngineRow]) -> tuple[Thumbnail, ...]:
    """Make small JPEGs of the images that changed their class, those that the checkpoint was surest of first.

    Args:
        images: The check set.
        rows: Engines with the flips of their checks.

    Raises:
        InputError: An image cannot be read any more.
    """
    checked = (row.parity for row in rows if isinstance(row.parity, ParityReport) and row.parity.flips)
    flips = sorted((flip for parity in checked if parity.flips for flip in parity.flips.worst), key=lambda f: -f.margin)
    chosen = list(dict.fromkeys(flip.image for flip in flips if flip.image < images.n))[:MOST]
    return tuple(Thumbnail(image=i, name=images.name_of(i), data=_jpeg(images.load(i))) for i in chosen)


def _jpeg(pixels: np.ndarray) -> str:
    """Encode uint8 pixels, (H, W) or (H, W, 3), as base64 of a JPEG of at most 96×96 px."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return base64.b64encode(file.getvalue()).decode()
