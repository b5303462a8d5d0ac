"""Pixels → what a graph takes: frames of its size, or tensors by the formula; the resize, and one crop or ten."""

from typing import Literal

import numpy as np

from deploy_kit.base.errors import InputError
from deploy_kit.base.lazy import need
from deploy_kit.records.artifacts import BareInput, Preprocess

Crops = Literal[1, 10]
_TO_GRAY = "convert the images to gray first"


def to_tensors(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Turn one image into what the graph takes: an input tensor, or the pixels themselves.

        x = (pixel / 255 - mean) / std

    Args:
        pixels: uint8 (H, W) or (H, W, 3) in RGB order.
        preprocess: What to do.

    Returns:
        (C, height, width) float32; of a graph that takes pixels (height, width, C) uint8, channels in RGB order.

    Raises:
        InputError: The image has the wrong size and the preprocessing does not resize, or the wrong channels.
    """
    return _taken(_sized(pixels, preprocess), preprocess)


def to_pixels(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Turn one image into what the network sees before the formula: resized, cut, with the network's channels.

    Args:
        pixels: uint8 (H, W) or (H, W, 3) in RGB order.
        preprocess: What to do.

    Returns:
        uint8 (height, width) for a gray network, else (height, width, 3) in RGB order; `to_tensors` of it without a
        resize is `to_tensors` of the image.

    Raises:
        InputError: As `to_tensors`.
    """
    sized = _sized(pixels, preprocess)
    if sized.ndim == 3 and preprocess.color == "gray":
        raise InputError("expected a gray image, found 3 channels", hint=_TO_GRAY)
    return np.repeat(sized[:, :, None], 3, axis=2) if sized.ndim == 2 and preprocess.channels == 3 else sized


def _sized(pixels: np.ndarray, preprocess: Preprocess, *, nearest: bool = False) -> np.ndarray:
    """Resize and cut an image where the preprocessing says so; else it has the network's size already."""
    if preprocess.resize is not None:
        scaled = _scaled(pixels, preprocess, nearest=nearest)
        return _cut(scaled, preprocess, _center(scaled, preprocess))
    if pixels.shape[:2] != (preprocess.height, preprocess.width):
        found = f"{pixels.shape[0]}×{pixels.shape[1]}"
        raise InputError(
            f"expected {preprocess.height}×{preprocess.width} px, found {found}",
            hint=f"give images of the model's size, or scale them: --resize {min(preprocess.height, preprocess.width)} "
            "(in a recipe source.preprocess.resize)",
        )
    return pixels


def nearest_sized(mask: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Resize and cut a mask (H, W) int32 as its image is, taking the nearest pixel: class numbers have no mean."""
    return _sized(mask, preprocess, nearest=True)


def ten_crops(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Turn one image into ten input tensors: center and corners of the resized image, and of its mirror image.

    The order is that of fb.resnet.torch's ``TenCrop`` (datasets/transforms.lua), with which the DenseNet paper's
    10-crop errors (Table 3) were measured: center, top left, top right, bottom left, bottom right; then the same five
    places of the mirror image.

    Args:
        pixels: uint8 (H, W) or (H, W, 3) in RGB order.
        preprocess: What to do; its `resize` is larger than the crop.

    Returns:
        (10, C, height, width) float32, or (10, height, width, C) uint8, as of `to_tensors`.

    Raises:
        InputError: There is no room for ten crops, or the image has the wrong channels.
    """
    expect_room(preprocess)
    scaled = _scaled(pixels, preprocess)
    bottom, right = scaled.shape[0] - preprocess.height, scaled.shape[1] - preprocess.width
    places = (_center(scaled, preprocess), (0, 0), (0, right), (bottom, 0), (bottom, right))
    pieces = [_cut(side, preprocess, place) for side in (scaled, scaled[:, ::-1]) for place in places]
    return np.stack([_taken(piece, preprocess) for piece in pieces])


def mean_of_crops(logits: np.ndarray, crops: Crops) -> np.ndarray:
    """Average the logits of each image's crops.

    fb.resnet.torch sums the network's outputs before any softmax (``computeScore`` in train.lua); a mean has the same
    order of classes and the scale of one crop's logits.

    Args:
        logits: (n · crops, K), the crops of an image in consecutive rows.
        crops: How many each image has.

    Returns:
        (n, K) float32.
    """
    if crops == 1:
        return logits
    summed = logits.reshape(-1, crops, logits.shape[1]).sum(axis=1, dtype=np.float64)
    return np.asarray(summed / crops, np.float32)


def expect_room(preprocess: Preprocess | BareInput) -> None:
    """Refuse a preprocessing whose ten crops would not be ten.

    Raises:
        InputError: It does not resize, or to no more than the crop; or the input is no image.
    """
    if isinstance(preprocess, BareInput):
        raise InputError("10 crops: expected images, found an input of which only the shape is known")
    side = max(preprocess.height, preprocess.width)
    if preprocess.resize is None or preprocess.resize <= side:
        crop, found = f"{preprocess.height}×{preprocess.width} px", preprocess.resize or "none"
        raise InputError(
            f"10 crops of {crop}: expected a 'resize' above {side} px, found {found}",
            hint="set 'resize' in the preprocess (256 for crops of 224 px), or take one crop: --crops 1",
        )


def _scaled(pixels: np.ndarray, preprocess: Preprocess, *, nearest: bool = False) -> np.ndarray:
    """Scale the shorter side to `resize` px (antialiased, Pillow's filter), or take the nearest pixels."""
    need("PIL", by="resizing images")
    from PIL import Image

    image = Image.fromarray(pixels)
    assert preprocess.resize is not None
    # Lengths and offsets are rounded as torchvision's Resize and CenterCrop round them: one px decides parity.
    short = min(image.size)
    size = (preprocess.resize * image.width // short, preprocess.resize * image.height // short)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    chosen = Image.Resampling.NEAREST if nearest else filters[preprocess.interpolation]
    if size[0] < preprocess.width or size[1] < preprocess.height:
        raise InputError(
            f"resized to {size[1]}×{size[0]} px, less than the {preprocess.height}×{preprocess.width} px to cut out",
            hint="raise 'resize' in the preprocess",
        )
    return np.asarray(image.resize(size, chosen))


def _center(scaled: np.ndarray, preprocess: Preprocess) -> tuple[int, int]:
    return round((scaled.shape[0] - preprocess.height) / 2), round((scaled.shape[1] - preprocess.width) / 2)


def _cut(scaled: np.ndarray, preprocess: Preprocess, place: tuple[int, int]) -> np.ndarray:
    top, left = place
    return scaled[top : top + preprocess.height, left : left + preprocess.width]


def _taken(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    if pixels.ndim == 2:
        frame = np.repeat(pixels[..., None], preprocess.channels, axis=2)
    elif preprocess.color == "gray":
        raise InputError("expected a gray image, found 3 channels", hint=_TO_GRAY)
    else:
        frame = pixels
    return np.ascontiguousarray(frame) if preprocess.input_pixels else normalize(frame, preprocess)


def normalize(frames: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Normalize pixels of the network's size.

        x = (pixel / 255 - mean) / std

    Args:
        frames: uint8 (…, height, width, C), channels in RGB order.
        preprocess: Channel order, mean and std.

    Returns:
        (…, C, height, width) float32.
    """
    planes = np.moveaxis(frames, -1, -3)
    planes = planes[..., ::-1, :, :] if preprocess.color == "bgr" else planes
    mean = np.asarray(preprocess.mean, np.float32)[:, None, None]
    std = np.asarray(preprocess.std, np.float32)[:, None, None]
    return np.asarray((planes.astype(np.float32) / np.float32(255) - mean) / std)
