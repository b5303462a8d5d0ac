"""Weights that bring a layer's output back to the original's, on the inputs that it now has.

    minimize  E‖y − Wᵀa − b‖² + λ‖W − W₀‖²          W = W₀ + (S + λI)⁻¹ (C − S W₀),   b = E[y] − WᵀE[a]

with S the covariance of the inputs a, C their covariance with the original outputs y, and W₀ the weights before. λ is
the one of a few that fits held-out images best; among them is ∞, where the weights stay and only b is new.
"""

from dataclasses import dataclass

import torch

from deploy_kit.slimming.group_obs import factored
from deploy_kit.slimming.patches import covariance_of, squares, with_one

SHARES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Values of λ that are tried, as shares of the mean variance of an input."""

EVERY = 5
"""One image in so many is held out."""


@dataclass(kw_only=True)
class RowMoments:
    """Sums over rows of inputs (with a one behind them) and outputs, float64.

    Attributes:
        inputs: (width + 1, width + 1) sum of a aᵀ.
        across: (width + 1, O) sum of a yᵀ.
        outputs: (O, O) sum of y yᵀ.
    """

    inputs: torch.Tensor
    across: torch.Tensor
    outputs: torch.Tensor

    @classmethod
    def empty(cls, width: int, n_outputs: int) -> "RowMoments":
        """Begin with no rows."""
        d = torch.float64
        return cls(
            inputs=torch.zeros(width + 1, width + 1, dtype=d),
            across=torch.zeros(width + 1, n_outputs, dtype=d),
            outputs=torch.zeros(n_outputs, n_outputs, dtype=d),
        )

    def add(self, a: torch.Tensor, y: torch.Tensor) -> None:
        """Add rows (M, width) and (M, O) float32."""
        a = with_one(a)
        self.inputs += squares(a)
        self.across += a.T @ y
        self.outputs += y.T @ y

    def __add__(self, other: "RowMoments") -> "RowMoments":
        return RowMoments(
            inputs=self.inputs + other.inputs,
            across=self.across + other.across,
            outputs=self.outputs + other.outputs,
        )

    @property
    def n(self) -> float:
        """Number of rows."""
        return float(self.inputs[-1, -1])

    def residual(self, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return E[e eᵀ] (O, O) of e = y − Wᵀa − b."""
        both = torch.cat([weights, bias[None]])
        crossed = both.T @ self.across
        return (self.outputs - crossed - crossed.T + both.T @ self.inputs @ both) / self.n


@dataclass(frozen=True)
class Centered:
    """Moments about the means: what a refit needs, whatever λ.

    Attributes:
        covariance: (width, width) S.
        across: (width, O) C.
        mean: (width,) E[a].
        mean_out: (O,) E[y].
    """

    covariance: torch.Tensor
    across: torch.Tensor
    mean: torch.Tensor
    mean_out: torch.Tensor

    @classmethod
    def of(cls, moments: RowMoments) -> "Centered":
        """Center moments."""
        n = moments.n
        mean, mean_out = moments.inputs[-1, :-1] / n, moments.across[-1] / n
        across = (moments.across[:-1] / n).addr_(mean, mean_out, alpha=-1)
        return cls(covariance_of(moments.inputs), across, mean, mean_out)

    def solved(self, before: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Solve for weights and bias with λ as a share of the mean variance."""
        across = self.across - self.covariance @ before
        weights = before + torch.cholesky_solve(across, factored(self.covariance, share))
        return weights, self.bias(weights)

    def bias(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the best bias for weights."""
        return self.mean_out - weights.T @ self.mean


def refit(
    fitted: RowMoments, held_out: RowMoments, everything: RowMoments, before: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Refit a layer.

    Args:
        fitted: RowMoments of the images to fit to.
        held_out: RowMoments of those that choose λ; none at all where there are too few images.
        everything: Both.
        before: (width, O) float64 weights before.

    Returns:
        Weights (width, O) and bias (O,), float64, fitted to all images.
    """
    of_all = Centered.of(everything)
    if not held_out.n:
        return of_all.solved(before, SHARES[-1])
    part = Centered.of(fitted)
    trials = [(share, part.solved(before, share)) for share in SHARES]
    errors = [float(held_out.residual(*solution).trace()) for _, solution in trials]
    least = min(range(len(errors)), key=errors.__getitem__)
    if float(held_out.residual(before, part.bias(before)).trace()) <= errors[least]:
        return before, of_all.bias(before)
    return of_all.solved(before, SHARES[least])
