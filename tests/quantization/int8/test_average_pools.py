"""Average pools as depthwise convolutions: the same numbers in every form, a grid of their own, and what stays."""

import numpy as np
import pytest
import tiny_graphs
import torch
from dense_graphs import Sketch, planned

from deploy_kit.quantization.int8 import average_pools

FORMS = {
    "plain": ((8, 8), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "overlapping": ((7, 9), {"kernel_shape": [3, 2], "strides": [2, 1]}),
    "1-D": ((9,), {"kernel_shape": [3], "strides": [2]}),
    "3-D": ((4, 5, 6), {"kernel_shape": [2, 1, 3], "strides": [2, 1, 3]}),
}
POOLS = {1: torch.nn.functional.avg_pool1d, 2: torch.nn.functional.avg_pool2d, 3: torch.nn.functional.avg_pool3d}


@pytest.mark.parametrize("form", FORMS)
def test_convolution_computes_what_torchs_pool_does(form: str) -> None:
    pixels, given = FORMS[form]
    sketch = Sketch(pixels=pixels)
    model = sketch.model(sketch.node("AveragePool", "x", **given, output="y"))
    x = sketch.images(1)

    average_pools.as_convolutions(model)

    (found,) = tiny_graphs.evaluate(model, x)
    pooled = POOLS[len(pixels)](torch.tensor(x), given["kernel_shape"], given["strides"]).numpy()
    assert tiny_graphs.operators(model) == ["Conv"]
    assert model.graph.outputs[0].name == "y"
    np.testing.assert_allclose(found, pooled, rtol=0, atol=1e-6)


@pytest.mark.parametrize("given", [{"pads": [1, 1, 1, 1]}, {"ceil_mode": 1}, {"auto_pad": "SAME_UPPER"}])
def test_pool_that_may_read_padding_stays(given: dict[str, object]) -> None:
    sketch = Sketch(pixels=(7, 7))
    model = sketch.model(sketch.node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], **given))

    average_pools.as_convolutions(model)

    assert tiny_graphs.operators(model) == ["AveragePool"]


def test_average_of_a_block_gets_a_finer_grid_than_its_pixels() -> None:
    sketch = Sketch(pixels=(16, 16))
    pool = sketch.node("AveragePool", sketch.norm(sketch.block(sketch.stem()), gamma=1.0), kernel_shape=[4, 4],
                       strides=[4, 4], output="pooled")  # fmt: skip
    model = sketch.model(sketch.head(sketch.norm(sketch.conv(pool, 5))))

    made = planned(model, sketch.images(16), passes=("batchnorm_to_max",))

    (pooled,) = (value for value in made.grids if value.name == "pooled")
    group = made.groups.of[pooled]
    low, high = made.spans[pooled]
    assert group.sources == (pooled,)
    # Every channel that is not constant uses all of the grid: 255 steps from its lowest to its highest value.
    np.testing.assert_allclose((high - low)[high > low], 255 * made.grids[pooled].scale, rtol=1e-5)
