"""Weights → integers that minimize the error of a layer's output, not of each weight: arithmetic only, no graph.

    E‖(W_q − W)·x‖² = Σ_rows (w_q − w)·H·(w_q − w)ᵀ,   H = E[x·xᵀ]      x: the layer's input
    with the mean error corrected by the bias:          H = E[x·xᵀ] − E[x]·E[x]ᵀ

Rounding each weight to the nearest minimizes it only where H is diagonal; among correlated inputs one weight's error
can cancel another's, and weights of constant inputs do not matter at all. One column after another is set to its best
integer while the others are fixed, until none changes: the error never grows, and nothing is random.

Source of the objective: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (AdaRound), ICML
2020; of the solver: Behdin et al., "QuantEase: Optimization-based Quantization for Language Models", 2023.
"""

from dataclasses import dataclass

import numpy as np

from deploy_kit.graph import sums_of_two
from deploy_kit.quantization.int8.grids import LIMIT

_SWEEPS = 2  # over all columns: on the demo 1, 2 and 4 give the same logits within 0.3 dB
_BLOCK = 64  # columns whose gradients are updated one by one; those of the others follow in one matrix product
_LARGEST = np.float32(1e15)  # sums of larger squares may overflow float32
_DAMPING = 0.01  # of the mean variance, as in GPTQ (Frantar et al., 2022): a sample does not span every direction


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """The integers chosen for the weights of one node, and the inputs that they were chosen on.

    Attributes:
        integers: float64 in the shape of the weights.
        mean: (inputs / groups · taps,) mean of the float inputs.
        read: Likewise, of the values that their integers stand for.
    """

    integers: np.ndarray
    mean: np.ndarray
    read: np.ndarray

    def drift(self, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Compute what the outputs (outputs,) are off on average: by rounded weights, rounded and clipped inputs.

        Args:
            weights: (outputs, inputs / groups, …) weights.
            values: The values that their integers stand for.
        """
        return np.asarray(values.reshape(len(values), -1) @ self.read - weights.reshape(len(weights), -1) @ self.mean)


@dataclass(frozen=True, kw_only=True)
class Factors:
    """H = Xᵀ·X + δ·1 of a wide layer, whose inputs are fewer numbers than H: several times less memory and arithmetic.

    Attributes:
        inputs: X (M, D) float32.
        damping: δ.
    """

    inputs: np.ndarray
    damping: np.float32


def second_moments(patches: np.ndarray, *, centered: bool) -> np.ndarray | Factors:
    """Compute H of inputs (M, D); `centered` where the bias corrects the mean error.

    Returns:
        H (D, D) float32, or its factors where D > 2·M: a product with them takes 2·M·D steps in place of D².
    """
    x = patches - patches.mean(0, dtype=np.float64).astype(np.float32) if centered else patches
    largest = np.abs(x).max(initial=0.0)
    if largest > _LARGEST:
        x = x / largest  # the best integers do not depend on the scale of H
    n, width = x.shape
    if width > 2 * n:
        x = x / np.float32(np.sqrt(n))
        return Factors(inputs=x, damping=np.float32(_DAMPING * np.einsum("md,md->", x, x, dtype=np.float64) / width))
    second = (x.T @ x) / np.float32(n)
    second[np.diag_indices(width)] += np.float32(_DAMPING * np.diag(second).mean())
    return np.asarray(second)


def integers(
    rows: np.ndarray,
    scales: np.ndarray,
    second: np.ndarray | Factors,
    *,
    paired: np.ndarray = sums_of_two.NO_PAIRS,
    limit: int = LIMIT,
) -> np.ndarray:
    """Choose the integers of weights by the error of the output.

    Args:
        rows: (outputs, D) float64 weights.
        scales: (outputs,) scales of the integers; to the nearest, they keep `paired`.
        second: Second moments of the inputs, from `second_moments`.
        paired: (M, 2) columns whose integers may not exceed `sums_of_two.MOST` together.
        limit: Largest integer.

    Returns:
        (outputs, D) float64; the error is at most that of rounding to the nearest.
    """
    # Transposed, a column of the weights is one row in memory, which all outputs update at once.
    weights, steps = rows.T, scales.astype(np.float64)
    whole = np.clip(np.rint(weights / steps), -limit, limit)
    partners = _partners(paired)
    off = whole * steps - weights
    error = _FactoredError(second, off) if isinstance(second, Factors) else _Error(second, off)
    for _ in range(_SWEEPS):
        before = whole.copy()
        for start in range(0, len(whole), _BLOCK):
            block = slice(start, start + _BLOCK)
            # Within a block slopes follow each change; all other columns see the block's changes together.
            _descend(whole, block, error.slope(block), error.curvature(block), steps, (partners, limit))
            error.put(block, whole[block] * steps - weights[block])
        if (whole == before).all():
            break
    return np.ascontiguousarray(whole.T)


class _Error:
    """The errors of all weights, d (D, outputs) float32, and half the gradient H·d of the output's."""

    def __init__(self, second: np.ndarray, weights: np.ndarray) -> None:
        self._second, self._of_weights = second, weights.astype(np.float32)

    def slope(self, block: slice) -> np.ndarray:
        return np.asarray(self._second[block] @ self._of_weights)

    def curvature(self, block: slice) -> np.ndarray:
        return self._second[block, block]

    def put(self, block: slice, weights: np.ndarray) -> None:
        self._of_weights[block] = weights


class _FactoredError:
    """The same, from factors: X·d, the errors of the outputs (M, outputs), is kept up to date."""

    def __init__(self, second: Factors, weights: np.ndarray) -> None:
        self._inputs, self._damping = second.inputs, second.damping
        self._of_weights = weights.astype(np.float32)
        self._of_outputs = self._inputs @ self._of_weights

    def slope(self, block: slice) -> np.ndarray:
        return np.asarray(self._inputs[:, block].T @ self._of_outputs + self._damping * self._of_weights[block])

    def curvature(self, block: slice) -> np.ndarray:
        part = self._inputs[:, block]
        return np.asarray(part.T @ part + self._damping * np.eye(part.shape[1], dtype=np.float32))

    def put(self, block: slice, weights: np.ndarray) -> None:
        now = weights.astype(np.float32)
        self._of_outputs += self._inputs[:, block] @ (now - self._of_weights[block])
        self._of_weights[block] = now


def _partners(paired: np.ndarray) -> dict[int, list[int]]:
    """Return the columns that each column is paired with."""
    found: dict[int, list[int]] = {}
    for first, second in paired.tolist():
        found.setdefault(first, []).append(second)
        found.setdefault(second, []).append(first)
    return found


def _descend(
    whole: np.ndarray,
    block: slice,
    slope: np.ndarray,
    second: np.ndarray,
    steps: np.ndarray,
    bounds: tuple[dict[int, list[int]], int],
) -> None:
    """Set a block of columns, as rows (columns, outputs), each to its best integers within the bounds, in place."""
    partners, limit = bounds
    curvature = np.diag(second).astype(np.float64)
    # Without curvature, where all inputs are constant, weights stay rounded to the nearest.
    for j in np.flatnonzero(curvature > 0):
        now = whole[block.start + j]
        best = np.rint(now - slope[j] / (curvature[j] * steps))
        best = np.minimum(np.maximum(best, -limit), limit)
        for other in partners.get(block.start + int(j), ()):
            taken = whole[other]
            best = np.minimum(np.maximum(best, -sums_of_two.MOST - taken), sums_of_two.MOST - taken)
        step = best - now
        if step.any():
            whole[block.start + j] = best
            # Columns before j are set: their slopes are not read again.
            slope[j + 1 :] += np.multiply.outer(second[j, j + 1 :], (step * steps).astype(np.float32))
