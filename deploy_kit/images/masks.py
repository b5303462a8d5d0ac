"""Class maps as small PNGs, a color for each class: pictures of where an engine differs from its checkpoint."""

import base64
import io
from collections.abc import Callable, Mapping

import numpy as np

from deploy_kit.records.parity import MaskPicture

_SIDE = 96


def pictures(arrays: Mapping[str, np.ndarray], name: Callable[[int], str]) -> tuple[MaskPicture, ...]:
    """Draw the images that differ most.

    Args:
        arrays: ``places`` (k,), ``maps`` (k, 2, H, W) of the checkpoint's and the engine's classes, and ``slices``
            (k, 2): which slice of a volume they are, of how many; 0 of an image.
        name: Index of an image → its name.
    """
    return tuple(
        MaskPicture(
            image=int(at),
            name=name(int(at)) + (f", slice {number} of {n}" if n else ""),
            differing=float((before != after).mean()),
            reference=_png(before),
            found=_png(after),
            difference=_png(np.where(before == after, 0, 255)),
        )
        for at, (before, after), (number, n) in zip(arrays["places"], arrays["maps"], arrays["slices"], strict=True)
    )


def _palette() -> list[int]:
    """Return PASCAL VOC's colors: the bits of a class number, spread over red, green and blue; 255 is white."""
    colors = [
        sum(((k >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3))
        for k in range(255)
        for channel in range(3)
    ]
    return [*colors, 255, 255, 255]


def _png(classes: np.ndarray) -> str:
    """Encode a class map (H, W) as base64 of a PNG of at most 96×96 px, sampled by nearest neighbour."""
    from PIL import Image

    step = -(-max(classes.shape) // _SIDE)
    picture = Image.fromarray((classes[::step, ::step] & 255).astype(np.uint8), "P")
    picture.putpalette(_palette())
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
