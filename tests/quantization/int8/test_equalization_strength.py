"""The estimate of noise that chooses how far channels are equalized, against numbers that are rounded for it."""

import numpy as np
import onnx_ir as ir
import pytest
from dense_graphs import Sketch, found

from deploy_kit.graph import edit
from deploy_kit.graph.channel_affine import Affine
from deploy_kit.quantization.int8 import equalization_strength

N_CHANNELS, N_OUTPUTS, N_VALUES = 64, 48, 4096
LEVELS = 127


def read_by_a_convolution(kernel: int = 1) -> tuple[ir.Model, ir.Node]:
    """Give two parts of 32 channels, concatenated and read by a convolution with weights of one size."""
    sketch = Sketch(channels=4, pixels=(8, 8))
    joined = sketch.concat(sketch.stem(32), sketch.stem(32))
    read = sketch.conv(joined, N_OUTPUTS, kernel, pad=kernel // 2)
    model = sketch.model(sketch.head(sketch.norm(read)))
    return model, next(node for node in model.graph if node.inputs[0] is not None and node.inputs[0].name == joined)


def estimate(model: ir.Model, r: np.ndarray, std: np.ndarray, span: float) -> float:
    groups, _ = found(model)
    group = next(one for one in groups.all if one.concats)
    maps, stds = {}, {}
    for value in group.values:
        part = (
            slice(0, 64) if value not in group.sources else slice(*((0, 32) if value is group.sources[0] else (32, 64)))
        )
        maps[value] = Affine(r=r[part], m=np.zeros_like(r[part]))
        stds[value] = std[part]
    return equalization_strength.noise(group, maps, stds, span, narrow_sums=False)


def rounded(model: ir.Model, conv: ir.Node, r: np.ndarray, std: np.ndarray, span: float) -> float:
    """Round activations and weights as integers are, and measure the noise of the outputs over their variance."""
    generator = np.random.default_rng(5)
    x = std[:, None] * generator.standard_normal((N_CHANNELS, N_VALUES))
    weight = edit.array(conv.inputs[1]).reshape(N_OUTPUTS, N_CHANNELS)
    step, scaled = span / 255, weight * r
    row = np.abs(scaled).max(1, keepdims=True) / LEVELS
    integers = np.rint(scaled / row) * row @ (np.rint(x / r[:, None] / step) * step)
    exact = weight @ x
    return float((((integers - exact) ** 2).mean(1) / exact.var(1)).mean())


@pytest.mark.parametrize("power", equalization_strength.STRENGTHS)
def test_the_estimate_is_the_noise_of_rounding(power: float) -> None:
    model, conv = read_by_a_convolution()
    std = np.concatenate([np.full(32, 0.02), np.ones(32)])
    r = np.concatenate([np.full(32, 0.02), np.ones(32)]) ** power

    told = estimate(model, r, std, span=8.0)

    assert told == pytest.approx(rounded(model, conv, r, std, span=8.0), rel=0.3)


def test_parts_of_unequal_range_under_weights_of_one_size_are_not_equalized_wholly() -> None:
    model, _ = read_by_a_convolution()
    std = np.concatenate([np.full(32, 0.02), np.ones(32)])

    by_power = [estimate(model, std**power, std, span=8.0) for power in equalization_strength.STRENGTHS]

    assert 0 < int(np.argmin(by_power)) < len(by_power) - 1


def test_channels_that_a_batchnorm_reads_are_equalized_wholly() -> None:
    sketch = Sketch(channels=4, pixels=(8, 8))
    model = sketch.model(sketch.head(sketch.norm(sketch.concat(sketch.stem(32), sketch.stem(32)))))
    std = np.concatenate([np.full(32, 0.02), np.ones(32)])

    by_power = [estimate(model, std**power, std, span=8.0) for power in equalization_strength.STRENGTHS]

    assert by_power == sorted(by_power, reverse=True)
