"""Rows of weights with one reach: the same function, and one scale for the tensor as good as one per row."""

import numpy as np
import pytest
import tiny_graphs
from dense_graphs import Sketch, array, nodes, planned

from deploy_kit.accuracy import metrics
from deploy_kit.graph import onnx_file
from deploy_kit.quantization.int8 import row_equalization
from deploy_kit.quantization.int8.plan import Int8Plan


def plan_of(sketch: Sketch) -> Int8Plan:
    """Plan a block whose first convolutions have rows a thousandfold apart."""
    x = sketch.stem()
    inner = sketch.node("Relu", sketch.conv(sketch.norm(x), 8, gain=np.geomspace(0.03, 3, 8)))
    block = sketch.concat(x, sketch.conv(inner, 4, 3, pad=1, gain=np.geomspace(0.1, 10, 4)))
    return planned(sketch.model(sketch.head(sketch.norm(block))), sketch.images(8), signed=True, equalized=False)


def reaches(weight: np.ndarray) -> np.ndarray:
    return np.abs(weight.reshape(len(weight), -1)).max(1)


@pytest.mark.parametrize("which", [1, 2], ids=["into a ReLU", "into a concatenation"])
def test_rows_get_one_reach_and_outputs_stay(which: int) -> None:
    sketch = Sketch()
    plan = plan_of(sketch)
    conv, x = nodes(plan.model, "Conv")[which], sketch.images(1)
    (before,) = tiny_graphs.evaluate(onnx_file.reread(plan.model), x)
    wide = reaches(array(conv.inputs[1]))

    done = row_equalization.equalize_rows(plan, frozenset({conv}), but_concats=False)

    found = reaches(array(conv.inputs[1]))
    assert done == {conv}
    assert wide.max() / wide.min() > 10
    np.testing.assert_allclose(found, np.median(wide), rtol=1e-6)
    (after,) = tiny_graphs.evaluate(onnx_file.reread(plan.model), x)
    assert metrics.relative_difference(before, after) < 2e-6


def test_what_writes_into_a_quantized_concatenation_is_left() -> None:
    plan = plan_of(Sketch())
    conv = nodes(plan.model, "Conv")[2]

    assert row_equalization.equalize_rows(plan, frozenset({conv}), but_concats=True) == frozenset()


def test_what_an_output_shows_is_left() -> None:
    sketch = Sketch()
    x = sketch.stem()
    shown = sketch.conv(sketch.norm(x), 4)
    plan = planned(sketch.model(sketch.head(sketch.concat(x, shown)), shown), sketch.images(8), signed=True)

    assert row_equalization.equalize_rows(plan, frozenset(nodes(plan.model, "Conv")), but_concats=False) == frozenset()
