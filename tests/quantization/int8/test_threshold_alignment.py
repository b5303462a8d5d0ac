"""Ranges moved so that bounds fall on integers: what is covered, what is gained, and which bounds count."""

import numpy as np
import pytest
from dense_graphs import Sketch, value

from deploy_kit.graph import onnx_file, passes
from deploy_kit.quantization.int8 import threshold_alignment
from deploy_kit.quantization.int8.threshold_alignment import Bound
from deploy_kit.quantization.ranges import Channels

STEPS = 255


def channels(n: int) -> Channels:
    return Channels(low=np.full(n, -3.0), high=np.full(n, 3.0), mean=np.zeros(n), std=np.ones(n))


def bound(limits: list[float], weight: float = 1.0, *, upper: bool = False) -> Bound:
    return Bound(limits=np.array(limits), upper=upper, weight=np.full(len(limits), weight))


def off(span: tuple[np.ndarray, np.ndarray], t: np.ndarray) -> np.ndarray:
    """Measure how far numbers are from the nearest integer of the grid over a range, in steps."""
    at = (t - span[0]) / (span[1] - span[0]) * STEPS
    return np.abs(at - np.rint(at))


def test_aligned_range_covers_the_range_and_costs_three_per_cent_at_most() -> None:
    generator = np.random.default_rng(0)
    span = -generator.uniform(1, 3, 50), generator.uniform(1, 3, 50)
    bounds = tuple(bound(list(generator.uniform(-1, 1, 50))) for _ in range(4))

    low, high = threshold_alignment.aligned(span, channels(50), bounds)

    width = span[1] - span[0]
    assert (low <= span[0] + 1e-9).all() and (high >= span[1] - 1e-9).all()
    assert (high - low <= width * STEPS / (STEPS - 8)).all()


def test_one_bound_falls_on_an_integer() -> None:
    generator = np.random.default_rng(1)
    span = -generator.uniform(2, 3, 200), generator.uniform(2, 3, 200)
    t = generator.uniform(-1, 1, 200)

    found = threshold_alignment.aligned(span, channels(200), (bound(list(t)),))

    assert off(span, t).mean() > 0.2
    assert off(found, t).mean() < 0.03  # phases are sixteenths of a step
    assert off(found, t).max() < 0.1


@pytest.mark.parametrize("upper", [False, True])
def test_the_bound_that_weighs_more_is_nearer(upper: bool) -> None:
    generator = np.random.default_rng(2)
    span = np.full(200, -3.0), np.full(200, 3.0)
    one, other = generator.uniform(-1, 1, (2, 200))
    bounds = bound(list(one), 100.0, upper=upper), bound(list(other), 1.0, upper=upper)

    found = threshold_alignment.aligned(span, channels(200), bounds)

    assert off(found, one).mean() < 0.1 * off(span, one).mean()
    assert off(found, one).mean() < 0.2 * off(found, other).mean()


def test_no_candidate_leaves_less_noise() -> None:
    """The search against a fine grid of ranges, its cost measured on numbers instead of computed."""
    x = np.random.default_rng(3).standard_normal(20_000)
    t, low, high = 0.37, -3.0, 3.0

    def noise(begin: float, end: float) -> float:
        step = (end - begin) / STEPS
        on_grid = [np.rint((v - begin) / step) * step + begin for v in (x, np.array(t))]
        error = np.maximum(on_grid[0], on_grid[1]) - np.maximum(x, t)
        return float(error.var())

    found = threshold_alignment.aligned((np.array([low]), np.array([high])), channels(1), (bound([t]),))

    best = min(noise(low - phase * 6 / STEPS, low - phase * 6 / STEPS + 6 * STEPS / (STEPS - 1 - spare))
               for phase in np.linspace(0, 1, 12) for spare in range(8))  # fmt: skip
    assert noise(float(found[0][0]), float(found[1][0])) <= 1.05 * best
    assert noise(low, high) > 1.1 * best


def test_channels_without_a_range_and_activations_without_bounds_stay() -> None:
    flat = np.array([0.5, -1.0]), np.array([0.5, 1.0])

    found = threshold_alignment.aligned(flat, channels(2), (bound([0.5, 0.1]),))
    alone = threshold_alignment.aligned(flat, channels(2), ())

    assert (found[0][0], found[1][0]) == (0.5, 0.5)
    assert alone is flat


def test_every_reader_of_a_block_bounds_its_part_of_the_channels() -> None:
    sketch = Sketch()
    stem = sketch.stem(6)
    model = sketch.model(sketch.head(sketch.conv(sketch.norm(sketch.block(stem), gamma=1.0), 5)))
    passes.apply_passes(model, ("batchnorm_to_max",))
    model = onnx_file.reread(model)
    source = value(model, stem)
    stds = {v: np.ones(v.shape[1]) for node in model.graph for v in node.outputs if v.shape is not None}

    found = threshold_alignment.bounds_of(source, stds)

    maxima = [node for node in model.graph if node.op_type == "Max"]
    limits = sorted(tuple(node.inputs[1].const_value.numpy().reshape(-1)[:6]) for node in maxima)
    assert len(maxima) > 1
    assert sorted(tuple(bound.limits.astype(np.float32)) for bound in found if not bound.upper) == limits
    assert all((bound.weight > 0).all() for bound in found)
