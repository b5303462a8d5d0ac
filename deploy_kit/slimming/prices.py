"""What each layer costs on an engine, as a line through the times of a few numbers of channels.

    ms_l = a_l + b_l · macs_l,    a, b ≥ 0, least squares over the numbers that were timed

a_l holds what does not shrink with the channels: calls, the concatenation, BN + ReLU of what it reads. It goes with the
whole layer alone, which multiply-accumulates do not see.
"""

from collections.abc import Mapping

import numpy as np

from deploy_kit.records.slimming import ChannelCurves, Price


def widths(curves: ChannelCurves, step: int) -> tuple[int, ...]:
    """Return the numbers of channels to time at every place: all, half and the fewest of the widest layer."""
    most = max(curve.channels for curve in curves.curves)
    half = max(step, most // 2 // step * step)
    return tuple(sorted({min(step, most), min(half, most), most}))


def fitted(curves: ChannelCurves, timed: Mapping[int, Mapping[str, float]], source: str) -> Price:
    """Fit a line for each place.

    Args:
        curves: The places.
        timed: ms of each layer group, by the number of channels at every place.
        source: Where the times come from.
    """
    fixed, each, missed, means = list[float](), list[float](), list[float](), list[float]()
    for curve in curves.curves:
        macs = np.array([curve.left(min(n, curve.channels), 0) for n in timed], np.float64)
        ms = np.array([times.get(curve.name, 0.0) for times in timed.values()])
        a, b = _line(macs, ms)
        fixed.append(a)
        each.append(b)
        missed += (a + b * macs - ms).tolist()
        means.append(float(ms.mean()))
    worked = sum(curve.macs for curve in curves.curves)
    return Price(
        unit="ms",
        fixed=tuple(fixed),
        each=tuple(each),
        beyond=sum(b * curve.macs for b, curve in zip(each, curves.curves, strict=True)) / worked,
        source=source,
        misses=float(np.sqrt(np.mean(np.square(missed)))) / max(float(np.mean(means)), 1e-12),
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Fit y = a + b x with a, b ≥ 0: where the best line has one below 0, the best without it."""
    spread = float(np.square(x - x.mean()).sum())
    b = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread else 0.0
    a = float(y.mean()) - b * float(x.mean())
    if b < 0:
        return max(float(y.mean()), 0.0), 0.0
    return (a, b) if a >= 0 else (0.0, max(float((x * y).sum() / np.square(x).sum()), 0.0))
