"""Lines through the times of layers: found again where they were planted, never below 0."""

import numpy as np
import pytest
from slim_graphs import chained

from deploy_kit.slimming import prices


def test_planted_lines_are_found_again() -> None:
    found = chained(0)
    a, b = (0.02, 0.0, 0.01), (2e-6, 1e-6, 0.0)
    timed = {
        n: {curve.name: a[i] + b[i] * curve.left(n, 0) for i, curve in enumerate(found.curves)} for n in (4, 8, 16)
    }

    price = prices.fitted(found, timed, "an engine")

    assert price.fixed == pytest.approx(a, abs=1e-9)
    assert price.each == pytest.approx(b, abs=1e-12)
    assert price.misses < 1e-6
    assert price.words == "ms of an engine (a + b · MACs misses the times of layers by 0.0 %)"
    assert price.cost(found, (4, 8, 16)) == pytest.approx(
        sum(timed[n][curve.name] for n, curve in zip((4, 8, 16), found.curves, strict=True))
        + price.beyond * sum(curve.beyond for curve in found.curves)
    )


def test_a_layer_that_is_faster_with_more_channels_has_no_price_for_them() -> None:
    found = chained(0)
    timed = {n: dict.fromkeys((curve.name for curve in found.curves), 1.0 / n) for n in (4, 8, 16)}

    price = prices.fitted(found, timed, "noise")

    assert price.each == (0.0, 0.0, 0.0)
    assert price.fixed == pytest.approx([np.mean([1 / 4, 1 / 8, 1 / 16])] * 3)
    assert price.misses > 0.3


@pytest.mark.parametrize(("step", "expected"), [(4, (4, 8, 16)), (16, (16,)), (32, (16,)), (6, (6, 16))])
def test_all_half_and_the_fewest_channels_are_timed(step: int, expected: tuple[int, ...]) -> None:
    assert prices.widths(chained(0), step) == expected
