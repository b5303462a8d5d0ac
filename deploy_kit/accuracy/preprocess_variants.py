"""Other ways to preprocess images than the present one: the usual mistakes between training and deployment.

A variant is another `Preprocess` or a change of the pixels, with the way to apply it if it is right. Runs nothing.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deploy_kit.records.artifacts import Preprocess

LoadPixels = Callable[[int], np.ndarray]
"""Index of an image → its pixels, uint8 (H, W) or (H, W, 3)."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision uses them
# shicai's DenseNet-Caffe: pixels 0..255 in BGR order, minus this mean, times 0.017.
_CAFFE_MEAN, _CAFFE_STD = (123.68 / 255, 116.78 / 255, 103.94 / 255), 1 / (0.017 * 255)
_INVERT = "no flag does it: store the images inverted (255 - pixel)"
_SQUASH = "no flag does it: store the images scaled to {}×{} px, each side on its own, and export without --resize"


@dataclass(frozen=True, kw_only=True)
class PreprocessVariant:
    """One way to preprocess an image.

    Attributes:
        name: Description of the change, for tables.
        preprocess: Preprocessing that turns pixels into the input.
        cure: How to apply the variant if it is right.
        change: Change of the pixels before the preprocessing; empty for none.
    """

    name: str
    preprocess: Preprocess
    cure: str
    change: Literal["", "inverted", "squashed"] = ""

    def pixels(self, load: LoadPixels) -> LoadPixels:
        """Wrap `load` so that it returns the changed pixels."""
        if self.change == "inverted":
            return lambda index: 255 - load(index)
        if self.change == "squashed":
            return lambda index: _squashed(load(index), self.preprocess)
        return load


def variants_of(now: Preprocess, shape: tuple[int, ...]) -> tuple[PreprocessVariant, ...]:
    """List the present preprocessing, then every other variant once; those that change one thing come first.

    Args:
        now: The present preprocessing.
        shape: Shape of an image's pixels: (H, W) or (H, W, 3).
    """
    variants: dict[tuple[Preprocess, str], PreprocessVariant] = {}
    for variant in (PreprocessVariant(name="as now", preprocess=now, cure=""), *_others(now, shape)):
        variants.setdefault((variant.preprocess, variant.change), variant)
    return tuple(variants.values())


def _others(now: Preprocess, shape: tuple[int, ...]) -> Iterator[PreprocessVariant]:
    colors = _colors(now) if len(shape) == 3 else ()
    scales = tuple(_scales(now))
    for name, other in (*colors, *scales):
        yield _flagged(name, other)
    yield PreprocessVariant(name="inverted", preprocess=now, cure=_INVERT, change="inverted")
    yield from _sizes(now, shape)
    for color, swapped in colors[:1]:
        for name, other in scales:
            both = dataclasses.replace(other, color=swapped.color, mean=other.mean[::-1], std=other.std[::-1])
            yield _flagged(f"{color}, {name}", both)


def export_flags(preprocess: Preprocess) -> str:
    """Return a preprocessing as flags of ``deploykit export``."""
    mean, std = (",".join(f"{value:.6g}" for value in values) for values in (preprocess.mean, preprocess.std))
    text = f"--input {preprocess.height}x{preprocess.width} --color {preprocess.color} --mean {mean} --std {std}"
    text += " --input-pixels" * preprocess.input_pixels
    if preprocess.resize is None:
        return text
    return f"{text} --resize {preprocess.resize} --interpolation {preprocess.interpolation}"


def _flagged(name: str, preprocess: Preprocess) -> PreprocessVariant:
    return PreprocessVariant(name=name, preprocess=preprocess, cure=f"export again with {export_flags(preprocess)}")


def _colors(now: Preprocess) -> tuple[tuple[str, Preprocess], ...]:
    """Exchange red and blue: with mean and std in place, and with them exchanged too."""
    if now.color == "gray":
        return ()
    color: Literal["rgb", "bgr"] = "rgb" if now.color == "bgr" else "bgr"
    swapped = dataclasses.replace(now, color=color)
    along = dataclasses.replace(swapped, mean=now.mean[::-1], std=now.std[::-1])
    name = color.upper()
    return ((name, swapped), *(((f"{name}, mean and std exchanged too", along),) if along != swapped else ()))


def _scales(now: Preprocess) -> Iterator[tuple[str, Preprocess]]:
    """List other means and stds, all for pixels in 0..1; feeding pixels in 0..255 is a std of 1/255."""
    n, order = now.channels, -1 if now.color == "bgr" else 1
    imagenet = (_MEAN[::order], _STD[::order]) if n == 3 else ((float(np.mean(_MEAN)),), (float(np.mean(_STD)),))
    caffe = _CAFFE_MEAN[::order] if n == 3 else (float(np.mean(_CAFFE_MEAN)),)
    m, s = np.asarray(now.mean), np.asarray(now.std)
    rows = (
        ("pixels 0..1, no mean and std", np.zeros(n), np.ones(n)),
        ("pixels 0..255, no mean and std", np.zeros(n), np.ones(n) / 255),
        ("pixels -1..1 (mean and std 0.5)", np.full(n, 0.5), np.full(n, 0.5)),
        ("ImageNet's mean and std", *imagenet),
        ("mean and std applied to pixels 0..255", m / 255, s / 255),
        ("mean and std applied twice", m + m * s, s * s),
        ("pixels 0..255 less ImageNet's mean", caffe, np.ones(n) / 255),
        ("pixels 0..255 less ImageNet's mean, × 0.017", caffe, np.full(n, _CAFFE_STD)),
    )
    for name, mean, std in rows:
        if not (np.allclose(mean, m, atol=1e-3) and np.allclose(std, s, rtol=1e-2)):
            yield name, dataclasses.replace(now, mean=tuple(map(float, mean)), std=tuple(map(float, std)))


def _sizes(now: Preprocess, shape: tuple[int, ...]) -> Iterator[PreprocessVariant]:
    """List other filters and lengths of the resize; empty where images have the input's size and are not resized."""
    height, width = shape[:2]
    if now.resize is None:
        return
    other: Literal["bilinear", "bicubic"] = "bilinear" if now.interpolation == "bicubic" else "bicubic"
    yield _flagged(other, dataclasses.replace(now, interpolation=other))
    side = max(now.height, now.width)
    for name, length in (
        ("resized without a margin", side),
        ("resized to 8/7 of the input, then cut", round(side / 0.875)),
    ):
        if length != now.resize:
            yield _flagged(name, dataclasses.replace(now, resize=length))
    if height != width:
        squashed = dataclasses.replace(now, resize=None)
        cure = _SQUASH.format(now.height, now.width)
        yield PreprocessVariant(
            name="both sides scaled, nothing cut", preprocess=squashed, cure=cure, change="squashed"
        )


def _squashed(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    from PIL import Image

    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    size = (preprocess.width, preprocess.height)
    return np.asarray(Image.fromarray(pixels).resize(size, filters[preprocess.interpolation]))
