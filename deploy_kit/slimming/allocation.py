"""How many channels each layer keeps: the least predicted error for a number of multiply-accumulates.

    minimize  Σ_l error_l(m) + μ · Σ_l price_l(m)        m_l a multiple of the kernel's width, all M_l, or 0: no layer

A layer's price is its multiply-accumulates, or the milliseconds that an engine was measured to take for it (`Price`).
Layers decide in turns for a given μ until none changes: without a neighbor a layer reads less, and says more that no
other does. A bisection finds the lowest μ at which the multiply-accumulates fit. What the last step leaves unused goes
back where it lowers the error most.
"""

import math
from collections.abc import Sequence

from deploy_kit.base.errors import InputError
from deploy_kit.records.slimming import ChannelCurves, Price, errors

_TURNS = 8  # two or three are usual; layers that change for ever in turns are stopped
_BISECTIONS = 40


def allocate(curves: ChannelCurves, macs: float, step: int, price: Price | None = None) -> tuple[int, ...]:
    """Choose the number of channels at each place.

    Args:
        curves: What removals cost.
        macs: Share of the multiply-accumulates of the whole graph that may be left, in 0..1.
        step: Numbers of channels are multiples of it, or stay as they are.
        price: What layers cost on an engine; None for their multiply-accumulates.

    Returns:
        Number of channels for each curve; 0 where the whole layer goes.

    Raises:
        InputError: More is left even with the fewest channels everywhere.
    """
    search = _Search(curves, step, price or Price.of_macs(curves))
    budget = macs * curves.macs
    least = curves.cost(search.least)
    if least > budget:
        share = math.ceil(100 * least / curves.macs) / 100
        raise InputError(
            f"slim: {macs:g} of the multiply-accumulates is less than what is left with the fewest channels everywhere",
            hint=f"ask for at least --macs {share:g} (or less with a smaller --channel-step)",
        )
    low, high, best = 0.0, 1.0 / search.total, search.least
    for _ in range(_BISECTIONS):  # finds a price that is high enough, then the least of those
        found = search.at(high)
        if curves.cost(found) <= budget:
            break
        low, high = high, 2 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        found = search.at(middle)
        if curves.cost(found) <= budget:
            high, best = middle, found
        else:
            low = middle
    return search.spent(best, budget)


class _Search:
    """Choices of all layers, in turns."""

    def __init__(self, curves: ChannelCurves, step: int, price: Price) -> None:
        self._all, self._curves, self._price = curves, curves.curves, price
        self._options = [
            ([0] if curve.gone else []) + [*range(step, curve.channels, step), curve.channels] for curve in self._curves
        ]
        self._read = [[i for i, one in enumerate(self._curves) if at in one.readers] for at in range(len(self._curves))]
        self.least = tuple(options[0] for options in self._options)
        self.total = price.cost(curves, [curve.channels for curve in self._curves])

    def at(self, each: float) -> tuple[int, ...]:
        """Let layers choose at a price in nats for a unit of cost, from all channels on; of equals the fewest."""
        kept = [curve.channels for curve in self._curves]
        for _ in range(_TURNS):
            before = list(kept)
            for index, options in enumerate(self._options):
                readers = {n: self._of_readers(kept, index, n, each) if options[0] == 0 else 0.0 for n in options[:2]}
                values = {n: self._own(kept, index, n, each) + readers[min(n, options[:2][-1])] for n in options}
                kept[index] = min(options, key=lambda n, values=values: (values[n], n))  # type: ignore[misc]
            if kept == before:
                break
        return tuple(kept)

    def spent(self, kept: tuple[int, ...], budget: float) -> tuple[int, ...]:
        """Give back channels that still fit, those first that lower the error most for what they cost; no layers."""
        while True:
            error, cost = sum(errors(self._curves, kept)), self._price.cost(self._all, kept)
            best, gain = kept, 0.0
            for index, options in enumerate(self._options):
                trial = (*kept[:index], next((n for n in options if n > kept[index] > 0), 0), *kept[index + 1 :])
                if trial[index] and self._all.cost(trial) <= budget:
                    more = self._price.cost(self._all, trial) - cost
                    saved = (error - sum(errors(self._curves, trial))) / more if more > 0 else 0.0
                    best, gain = (trial, saved) if saved > gain else (best, gain)
            if best is kept:
                return kept
            kept = best

    def _own(self, kept: Sequence[int], index: int, n: int, each: float) -> float:
        """Value a number of channels: divergence, and the price of the layer's own work."""
        curve = self._curves[index]
        out = sum(self._curves[i].outputs for i in self._read[index] if not kept[i])
        stay = sum(1 for i in self._read[index] if kept[i])
        error = curve.error(n) if n else curve.gone[min(stay, len(curve.gone) - 1)]
        return error + each * self._price.layer(index, curve.left(n, out), present=n > 0)

    def _of_readers(self, kept: list[int], index: int, n: int, each: float) -> float:
        """Value those who read the layer while it has `n` channels."""
        trial, curve = [*kept[:index], n, *kept[index + 1 :]], self._curves[index]
        beyond = each * self._price.beyond * curve.beyond if n else 0.0
        return beyond + sum(self._own(trial, reader, kept[reader], each) for reader in curve.readers)
