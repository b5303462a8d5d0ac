"""Histograms whose bins double, against numpy's over all values at once."""

import numpy as np
import pytest

from deploy_kit.quantization.ranges.histogram import BINS, FAR, Histogram


def values(seed: int = 0) -> np.ndarray:
    """Draw (40, 6, 7, 7): two normal channels, one behind a ReLU, one of zeros, one constant, one far from zero."""
    x = np.random.default_rng(seed).standard_normal((40, 6, 7, 7)).astype(np.float32)
    x[:, 1] *= 1e-3
    x[:, 2] = 30 * np.maximum(x[:, 2], 0)
    x[:, 3], x[:, 4] = 0, 7.3
    x[:, 5] = 1000 + x[:, 5]
    return x


def filled(*parts: np.ndarray) -> Histogram:
    made = Histogram.empty(parts[0].shape[1])
    for part in parts:
        made.add([(part, part.min((0, 2, 3)), part.max((0, 2, 3)))])
    return made


def content(histogram: Histogram) -> list[list[tuple[float, int]]]:
    """List where each bin that is not empty begins, and its count."""
    return [
        [(float(edges[at]), int(row[at])) for at in np.flatnonzero(row)]
        for edges, row in zip(histogram.edges, histogram.counts, strict=True)
    ]


def test_counts_are_numpys_on_the_same_edges() -> None:
    x = values()

    found = filled(*np.split(x, 40))

    for channel, edges in enumerate(found.edges):
        wanted, _ = np.histogram(x[:, channel].astype(np.float64), edges)
        np.testing.assert_array_equal(found.counts[channel], wanted)


def test_comparison_with_numpy_notices_a_missing_image() -> None:
    x = values()

    found = filled(*np.split(x[1:], 39))

    assert not np.array_equal(found.counts[0], np.histogram(x[:, 0].astype(np.float64), found.edges[0])[0])


@pytest.mark.parametrize("cut", [1, 2, 8, 40])
def test_neither_batches_nor_order_matter(cut: int) -> None:
    x = values()

    assert content(filled(*np.split(x[::-1], cut))) == content(filled(x))


def test_values_fill_at_least_half_of_the_bins() -> None:
    x = values()

    found = filled(*np.split(x, 40))

    reach = (x.max((0, 2, 3)) - x.min((0, 2, 3)))[[0, 1, 2, 5]]
    assert (reach / found.width[[0, 1, 2, 5]] > BINS / 2 - 2).all()


def test_a_tensors_histogram_is_that_of_all_its_channels() -> None:
    x = values()

    found = filled(*np.split(x, 8)).together()

    np.testing.assert_array_equal(found.counts[0], np.histogram(x.astype(np.float64), found.edges[0])[0])


@pytest.mark.parametrize("at", [0, 3, 39])
@pytest.mark.parametrize("cut", [1, 40])
def test_a_value_far_beyond_all_others_costs_no_resolution(at: int, cut: int) -> None:
    x = values()
    plain = filled(x)
    x[at, 0, 2, 3], x[at, 1, 0, 0] = 1e30, -1e30

    found = filled(*np.split(x, cut))

    assert found.beyond.tolist() == [[0, 1], [1, 0], *[[0, 0]] * 4]
    np.testing.assert_array_equal(found.exponents, plain.exponents)
    assert (found.counts.sum(1) + found.beyond.sum(1)).tolist() == [40 * 49] * 6


def test_a_range_that_widens_is_no_outlier() -> None:
    x = values()
    x[20:, 0] *= FAR / 2

    found = filled(*np.split(x, 40))

    assert not found.beyond.any()
    np.testing.assert_array_equal(found.counts[0], np.histogram(x[:, 0].astype(np.float64), found.edges[0])[0])


def test_the_smallest_and_the_largest_numbers_have_bins() -> None:
    x = np.zeros((2, 3, 1, 2), np.float32)
    x[:, 0, 0], x[:, 1, 0], x[:, 2, 0] = [1e-40, -1e-40], [3e38, -3e38], [-0.0, 1e-45]

    found = filled(x)

    assert found.counts.sum(1).tolist() == [4, 4, 4]
    assert np.isfinite(found.edges).all()


def test_one_value_a_channel_is_enough() -> None:
    x = np.arange(4, dtype=np.float32).reshape(2, 2, 1, 1)

    assert filled(*np.split(x, 2)).counts.sum(1).tolist() == [2, 2]


def test_what_is_written_reads_back_in_fewer_bytes() -> None:
    found = filled(values())

    parts = found.parts("3")
    again = Histogram.of(parts, "3")

    assert parts["3.counts"].itemsize == 2
    assert all(np.array_equal(getattr(again, name), value) for name, value in vars(found).items())


def test_batches_counted_together_are_as_one_by_one() -> None:
    x = values()
    x[20, 0] *= 100  # bins move in the middle
    x[30, 1, 0, 0] = 1e9  # far beyond what was seen before
    parts = [(part, part.min((0, 2, 3)), part.max((0, 2, 3))) for part in np.split(x, 40)]
    found = Histogram.empty(6)

    found.add(parts)

    assert found.beyond[1, 1] == 1
    for name, value in vars(filled(*np.split(x, 40))).items():
        np.testing.assert_array_equal(getattr(found, name), value)


def test_a_negative_number_stays_below_zero_however_wide_the_bins_are() -> None:
    small, large = np.full((1, 1, 1, 2), -1e-40, np.float32), np.array([[[[-1e9, 1e9]]]], np.float32)

    assert content(filled(small, large)) == content(filled(large, small))
