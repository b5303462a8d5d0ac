"""Which channels of a layer go first, and what each costs: the optimal brain surgeon, by groups of taps.

A layer y = Wᵀa reads m channels of t taps each. With H = E[a aᵀ] − E[a]E[a]ᵀ + λI, and F, the cost of an error at y
(`sensitivity`), removing channel q and correcting the others for it costs

    Δ_q = ½ tr( F W_qᵀ ([H⁻¹]_qq)⁻¹ W_q )          W ← W − [H⁻¹]_:q ([H⁻¹]_qq)⁻¹ W_q

where W_q are its t rows. Then H⁻¹ ← H⁻¹ − [H⁻¹]_:q ([H⁻¹]_qq)⁻¹ [H⁻¹]_q: is the inverse of H without them. The channel
of least cost goes, one after the other. (Hassibi, Stork: Second order derivatives for network pruning, NIPS 1992; in
groups: Kurtic et al.: The optimal BERT surgeon, EMNLP 2022.)
"""

import torch

DAMPING = 1e-5
"""λ as a share of the mean variance of an input."""

_FEWEST = 1e-12  # variance that stands for none, where every input is constant
_COMPACT = 16  # removed channels after which their rows are left out of H⁻¹: 1.6 × faster than never, for 128 channels


def removal_order(
    covariance: torch.Tensor, weights: torch.Tensor, cost: torch.Tensor, channels: int
) -> tuple[list[int], list[float]]:
    """Remove all channels of a layer but one, the cheapest first.

    Args:
        covariance: (m·t, m·t) float64 covariance of the inputs, channels first, then taps.
        weights: (m·t, O) float64.
        cost: (O, O) float64, F.
        channels: m.

    Returns:
        The channels in the order of their removal, m − 1 of them; and the sum of the costs with the first 0, 1, …,
        m − 1 of them removed.
    """
    taps = len(covariance) // channels
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(covariance, DAMPING)))
    weights, present = weights.clone(), list(range(channels))
    gone = torch.zeros(channels, dtype=torch.bool)
    order, errors = list[int](), [0.0]
    while len(order) < channels - 1:
        n = len(present)
        blocks = inverse.view(n, taps, n, taps).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        rows = weights.view(n, taps, -1)
        solved = torch.linalg.solve(blocks, rows)
        costs = 0.5 * (rows * (solved @ cost)).sum((1, 2))
        q = int(torch.where(gone, torch.inf, costs).argmin())
        order.append(present[q])
        errors.append(errors[-1] + max(float(costs[q]), 0.0))
        at = slice(q * taps, (q + 1) * taps)
        columns = inverse[:, at].clone()
        weights -= columns @ solved[q]
        inverse.addmm_(columns, torch.linalg.solve(blocks[q], columns.T), alpha=-1)
        gone[q] = True
        if int(gone.sum()) == _COMPACT:
            stays = torch.nonzero(~gone).flatten()
            index = (stays[:, None] * taps + torch.arange(taps)).flatten()
            inverse, weights = inverse[index][:, index].contiguous(), weights[index]
            present, gone = [present[i] for i in stays.tolist()], torch.zeros(len(stays), dtype=torch.bool)
        else:  # the rows of what is gone are 0 by now, which has no inverse
            inverse[at, at] = torch.eye(taps, dtype=inverse.dtype)
    return order, errors


def damped(covariance: torch.Tensor, share: float) -> torch.Tensor:
    """Add a share of the mean variance to the diagonal, so that a singular covariance has an inverse."""
    mean = max(float(covariance.diagonal().mean()), _FEWEST)
    return covariance + share * mean * torch.eye(len(covariance), dtype=covariance.dtype)
