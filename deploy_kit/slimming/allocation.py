"""How many channels each layer keeps: the least predicted error for a number of multiply-accumulates.

    minimize  Σ_l error_l(m_l) + μ · macs_l · m_l / M_l        m_l a multiple of the kernel's width, or all M_l

Every layer decides alone for a given price μ of a multiply-accumulate, and a bisection finds the lowest price at which
the sum fits. What the last step leaves unused goes back where it lowers the error most.
"""

import math

from deploy_kit.base.errors import InputError
from deploy_kit.records.slimming import ChannelCurve, ChannelCurves


def allocate(curves: ChannelCurves, macs: float, step: int) -> tuple[int, ...]:
    """Choose the number of channels at each place.

    Args:
        curves: What removals cost.
        macs: Share of the multiply-accumulates of the whole graph that may be left, in 0..1.
        step: Numbers of channels are multiples of it, or stay as they are.

    Returns:
        Number of channels for each curve.

    Raises:
        InputError: More is left even with the fewest channels everywhere.
    """
    budget = macs * curves.macs
    choices = [_choices(curve, step) for curve in curves.curves]
    least = tuple(options[0] for options in choices)
    if curves.cost(least) > budget:
        share = math.ceil(100 * curves.cost(least) / curves.macs) / 100
        raise InputError(
            f"slim: {macs:g} of the multiply-accumulates is less than what is left with the fewest channels everywhere",
            hint=f"ask for at least --macs {share:g} (or less with a smaller --channel-step)",
        )
    low, high = 0.0, 1.0
    while curves.cost(_at_price(curves, choices, high)) > budget:
        high *= 2
    for _ in range(60):  # the price to 1 part in 2⁶⁰ of where it began
        middle = (low + high) / 2
        low, high = (low, middle) if curves.cost(_at_price(curves, choices, middle)) <= budget else (middle, high)
    return _spent(curves, choices, list(_at_price(curves, choices, high)), budget)


def _choices(curve: ChannelCurve, step: int) -> list[int]:
    """List what a layer may keep, in ascending order."""
    return [*range(step, curve.channels, step), curve.channels]


def _at_price(curves: ChannelCurves, choices: list[list[int]], price: float) -> tuple[int, ...]:
    """Let every layer choose at a price in nats for all multiply-accumulates of the graph; of equals the fewest."""
    chosen = []
    for curve, options in zip(curves.curves, choices, strict=True):
        each = price * curve.macs / curves.macs / curve.channels
        chosen.append(min(options, key=lambda n, c=curve, e=each: (c.error(n) + e * n, n)))  # type: ignore[misc]
    return tuple(chosen)


def _spent(curves: ChannelCurves, choices: list[list[int]], kept: list[int], budget: float) -> tuple[int, ...]:
    """Give back channels that still fit, those first that lower the error most for each multiply-accumulate."""
    while True:
        best, gain = -1, 0.0
        for index, (curve, options) in enumerate(zip(curves.curves, choices, strict=True)):
            more = next((n for n in options if n > kept[index]), None)
            if more is None:
                continue
            trial = (*kept[:index], more, *kept[index + 1 :])
            cost = curve.macs * (more - kept[index]) / curve.channels
            saved = (curve.error(kept[index]) - curve.error(more)) / cost if cost else 0.0
            if saved > gain and curves.cost(trial) <= budget:
                best, gain = index, saved
        if best < 0:
            return tuple(kept)
        kept[best] = next(n for n in choices[best] if n > kept[best])
