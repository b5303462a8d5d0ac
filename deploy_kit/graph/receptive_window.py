"""The pixels of its input that a convolution reads for each pixel of its output, and which of them are padding."""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit


@dataclass(frozen=True, kw_only=True)
class Window:
    """The geometry of a convolution; each tuple has a number for each spatial axis.

    Attributes:
        sizes: Pixels of the input.
        outputs: Pixels of the output.
        kernel: Taps of the kernel.
        strides: Step from one output pixel to the next.
        dilations: Step from one tap to the next.
        begins: Padding at the beginning.
    """

    sizes: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]

    @property
    def ends(self) -> tuple[int, ...]:
        """Padding at the end, as far as a tap reads it."""
        axes = zip(self.outputs, self.strides, self.kernel, self.dilations, self.sizes, self.begins, strict=True)
        return tuple(max((o - 1) * s + (k - 1) * d + 1 - size - begin, 0) for o, s, k, d, size, begin in axes)

    @property
    def n_outputs(self) -> int:
        """Number of pixels of the output."""
        return math.prod(self.outputs)

    def read(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the input pixel that each tap reads.

        Args:
            pixels: (M,) indices of output pixels in the flattened output.

        Returns:
            (M, taps) indices in the flattened input, 0 for padding; and (M, taps) bool, False for padding.
        """
        places = np.unravel_index(pixels, self.outputs)
        taps = np.unravel_index(np.arange(math.prod(self.kernel)), self.kernel)
        at = [
            place[:, None] * self.strides[axis] - self.begins[axis] + tap[None] * self.dilations[axis]
            for axis, (place, tap) in enumerate(zip(places, taps, strict=True))
        ]
        inside = np.all([(x >= 0) & (x < size) for x, size in zip(at, self.sizes, strict=True)], axis=0)
        flat = np.ravel_multi_index([np.where(inside, x, 0) for x in at], self.sizes)
        return np.asarray(flat), np.asarray(inside)


def window_of(conv: ir.Node) -> Window | None:
    """Find the window of a convolution; None where a size is not known."""
    source, weight = conv.inputs[0], conv.inputs[1]
    assert source is not None
    assert weight is not None
    sizes, kernel = _known(source.shape), _known(weight.shape)
    outputs = _known(conv.outputs[0].shape)
    if not (sizes and kernel and outputs):
        return None
    ones, moves = [1] * len(sizes), conv.attributes
    strides, dilations = moves.get_ints("strides", ones), moves.get_ints("dilations", ones)
    span = [
        max((o - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        for o, stride, k, dilation, size in zip(outputs, strides, kernel, dilations, sizes, strict=True)
    ]
    given = moves.get_ints("pads", [0] * 2 * len(sizes))[: len(sizes)]
    automatic = moves.get_string("auto_pad", "NOTSET")
    begins = {"SAME_UPPER": [n // 2 for n in span], "SAME_LOWER": [(n + 1) // 2 for n in span]}.get(automatic, given)
    return Window(
        sizes=sizes, outputs=outputs, kernel=kernel, strides=tuple(strides), dilations=tuple(dilations),
        begins=tuple(begins),
    )  # fmt: skip


def inside(node: ir.Node) -> np.ndarray | None:
    """Compute the share of output pixels for which each tap reads no padding, (taps,); None where it is not known."""
    window = window_of(node) if node.op_type == "Conv" and edit.pads(node) else None
    return None if window is None else np.asarray(window.read(np.arange(window.n_outputs))[1].mean(0))


def _known(shape: ir.Shape | None) -> tuple[int, ...]:
    """Return the sizes behind batch and channels; empty where one is open."""
    sizes = tuple(size for size in (shape[2:] if shape is not None else ()) if isinstance(size, int))
    return sizes if shape is not None and len(sizes) == len(shape) - 2 else ()
