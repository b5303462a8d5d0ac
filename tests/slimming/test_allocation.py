"""Allocations, held against all combinations of small curves."""

import itertools

import pytest
from slim_graphs import chained, curves

from deploy_kit.base.errors import InputError
from deploy_kit.records.slimming import ChannelCurves, Price, errors
from deploy_kit.slimming.allocation import allocate


def error(found: ChannelCurves, kept: tuple[int, ...]) -> float:
    return sum(errors(found.curves, kept))


@pytest.mark.parametrize("share", [0.95, 0.8, 0.6, 0.4])
def test_no_choice_of_whole_steps_is_much_better(share: float) -> None:
    for seed in range(4):
        found = curves(seed)

        kept = allocate(found, share, 4)

        assert found.cost(kept) <= share * found.macs
        assert all(n % 4 == 0 for n in kept)
        every = [c for c in itertools.product(*[(4, 8, 12, 16)] * 3) if found.cost(c) <= share * found.macs]
        best = min(error(found, choice) for choice in every)
        # A price finds the lower convex hull alone; between its corners lies at most one layer's step.
        step = max(curve.error(4) - curve.error(8) for curve in found.curves)
        assert best <= error(found, kept) <= best + step


@pytest.mark.parametrize("share", [0.8, 0.6, 0.4, 0.2])
def test_whole_layers_go_where_no_choice_is_much_better(share: float) -> None:
    whole = 0
    for seed in range(6):
        found = chained(seed)

        kept = allocate(found, share, 4)

        assert found.cost(kept) <= share * found.macs
        every = [c for c in itertools.product(*[(0, 4, 8, 12, 16)] * 3) if found.cost(c) <= share * found.macs]
        best = min(error(found, choice) for choice in every)
        assert best <= error(found, kept) <= best + max(curve.error(4) for curve in found.curves)
        whole += kept.count(0)
    assert whole


def test_a_layer_without_its_neighbors_has_less_to_read() -> None:
    found = chained(0)
    second = found.curves[1].macs

    assert found.cost((16, 16, 16)) == found.macs
    lost = found.curves[2].producer_macs * 4 // 16
    assert found.cost((16, 0, 16)) == found.macs - second - 100 - lost


def test_a_price_moves_the_choice_to_what_an_engine_is_slow_at() -> None:
    found = chained(3)
    by_macs = allocate(found, 0.5, 4)
    slow = max(range(3), key=lambda index: by_macs[index])
    price = Price(unit="ms", fixed=(0.0,) * 3, each=tuple(1e-3 if i == slow else 1e-6 for i in range(3)), beyond=1e-6)

    kept = allocate(found, 0.5, 4, price)

    assert kept[slow] < by_macs[slow]
    assert found.cost(kept) <= 0.5 * found.macs


def test_a_layer_that_costs_much_with_however_few_channels_goes() -> None:
    found = chained(1)
    assert allocate(found, 0.9, 4)[0] > 0

    kept = allocate(found, 0.9, 4, Price(unit="ms", fixed=(1e9, 0.0, 0.0), each=(1.0,) * 3, beyond=1.0))

    assert kept[0] == 0


def test_a_layer_whose_channels_are_no_multiple_may_keep_all() -> None:
    found = curves(channels=10)

    kept = allocate(found, 0.999, 4)

    assert set(kept) <= {4, 8, 10}
    assert kept.count(10) == 2


def test_layers_of_fewer_channels_than_a_step_keep_all() -> None:
    assert allocate(curves(0), 1.0, 32) == (16, 16, 16)


def test_everything_fits_where_all_may_be_left() -> None:
    assert allocate(curves(), 1.0, 4) == (16, 16, 16)


def test_free_removals_do_not_cost_channels_that_still_fit() -> None:
    found = curves()

    kept = allocate(found, 1.0 - 1e-9, 4)

    assert found.cost(kept) <= found.macs * (1 - 1e-9)
    assert kept.count(16) == 2


def test_less_than_what_can_be_left_names_the_least() -> None:
    found = curves()

    with pytest.raises(InputError, match="less than what is left with the fewest channels everywhere") as refused:
        allocate(found, 0.1, 4)

    least = float(refused.value.hint.split()[5])
    assert allocate(found, least, 4) == (4, 4, 4)
