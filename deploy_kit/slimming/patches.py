"""Rows of a layer's least-squares problem: what it reads for a sample of its output pixels, and what it gives there."""

import zlib

import numpy as np
import onnx_ir as ir
import torch

from deploy_kit.base.errors import InputError
from deploy_kit.graph import receptive_window

N_ROWS = 16_384
"""Rows for a layer in all, the same number from each image; fewer where its map has fewer pixels."""

_SEED = 17
_ROUNDING = 1e-6  # of the mean square: sums of 10⁴ float32 products


class PatchSampler:
    """Draws output pixels of one convolution, anew for each batch; of a Gemm it takes every row."""

    def __init__(self, node: ir.Node, n_images: int, n_rows: int = N_ROWS, *, taps: bool = True) -> None:
        """Seed the draw by the node's output, so that it does not depend on what else is sampled.

        Args:
            node: The convolution or Gemm.
            n_images: Number of images that will be drawn from.
            n_rows: Rows in all.
            taps: Whether rows are what a convolution reads for a pixel; else they are the pixels of a node's first
                input.

        Raises:
            InputError: The size of the node's map is not known.
        """
        taps = taps and node.op_type == "Conv"
        self._window = receptive_window.window_of(node) if taps else None
        if taps and self._window is None:
            raise InputError(
                f"slim: Conv '{node.name}': the size of its input is open",
                hint="export the graph for one size of image (--input 224x224)",
            )
        self._per_image = -(-n_rows // n_images)
        self._generator = np.random.default_rng([_SEED, zlib.crc32(str(node.outputs[0].name).encode())])
        self._pixels = np.zeros(1, np.int64)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """Draw pixels, and return what the layer reads for them.

        Args:
            x: (N, C, …) input of the layer.

        Returns:
            (N·M, C·taps), image by image, in the order of a flattened row of the weights; padding is 0.
        """
        if self._window is None:
            flat = x.flatten(2) if x.ndim > 2 else x[:, :, None]
            drawn = torch.from_numpy(self._generator.permutation(flat.shape[2])[: self._per_image])
            return flat[:, :, drawn].permute(0, 2, 1).reshape(-1, x.shape[1])
        n = self._window.n_outputs
        self._pixels = np.sort(self._generator.permutation(n)[: self._per_image])
        places, inside = self._window.read(self._pixels)
        read = x.flatten(2)[:, :, torch.from_numpy(places)] * torch.from_numpy(inside)
        return read.permute(0, 2, 1, 3).reshape(len(x) * len(self._pixels), -1)

    def outputs(self, y: torch.Tensor) -> torch.Tensor:
        """Return the layer's output at the pixels drawn last: (N, O, …) → (N·M, O)."""
        if self._window is None:
            return y.flatten(1)
        return y.flatten(2)[:, :, torch.from_numpy(self._pixels)].permute(0, 2, 1).reshape(-1, y.shape[1])


def squares(rows: torch.Tensor) -> torch.Tensor:
    """Return rowsᵀ rows: numpy computes half of it and mirrors that (BLAS `syrk`), which torch has no call for."""
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)


def with_one(rows: torch.Tensor) -> torch.Tensor:
    """Append a column of ones, so that one product holds the sums as well."""
    return torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], 1)


def covariance_of(moments: torch.Tensor) -> torch.Tensor:
    """Return the covariance (width, width) of rows from the sum of their products with a one behind each.

    What rounding in float32 may have taken from a variance is added: a constant input has none below zero.
    """
    n = moments[-1, -1]
    mean = moments[-1, :-1] / n
    found = moments[:-1, :-1] / n
    rounding = _ROUNDING * found.diagonal().mean()
    found.addr_(mean, mean, alpha=-1).diagonal().add_(rounding)
    return found
