"""What torch computes of a graph is what ONNX's reference evaluator does, operator by operator."""

import numpy as np
import pytest
import tiny_graphs
import torch
from dense_graphs import Sketch
from onnx.reference import ReferenceEvaluator
from onnx_ir.serde import serialize_model

from deploy_kit.base.errors import InputError
from deploy_kit.graph.torch_graph import TorchGraph, TorchModule


def differ(sketch: Sketch, output: str, *, opset: int = 18, batch: int = 1) -> float:
    model, x = sketch.model(output, opset=opset), sketch.images(batch)
    wanted = ReferenceEvaluator(serialize_model(model)).run(None, {"x": x})[0]
    with torch.no_grad():
        found = TorchGraph(model).forward(x).numpy()
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max())


@pytest.mark.parametrize(
    ("operator", "given"),
    [
        ("Clip", {}),
        ("Elu", {"alpha": 0.7}),
        ("GlobalAveragePool", {}),
        ("GlobalMaxPool", {}),
        ("HardSigmoid", {"alpha": 0.3}),
        ("HardSwish", {}),
        ("Identity", {}),
        ("LeakyRelu", {"alpha": 0.2}),
        ("ReduceMean", {}),
        ("Relu", {}),
        ("Sigmoid", {}),
        ("Softmax", {"axis": 1}),
        ("Tanh", {}),
        ("Flatten", {}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ],
)
def test_an_operator_is_the_evaluators(operator: str, given: dict[str, object]) -> None:
    sketch = Sketch(pixels=(8, 7))
    output = sketch.node(operator, "x", **given)

    assert differ(sketch, output) < 1e-6


@pytest.mark.parametrize(
    "given",
    [
        {"pad": 1},
        {"strides": [2, 2], "pads": [0, 0, 1, 1]},
        {"dilations": [2, 1], "pads": [2, 0, 2, 0]},
        {"group": 3, "pad": 1},
    ],
)
def test_a_convolution_is_the_evaluators(given: dict[str, object]) -> None:
    sketch = Sketch()

    assert differ(sketch, sketch.conv("x", 6, 3, **given)) < 1e-5


@pytest.mark.parametrize("operator", ["Max", "Min"])
def test_a_bound_is_the_evaluators(operator: str) -> None:
    sketch = Sketch()
    bounds = [sketch.constant(np.linspace(side, -side, 3).reshape(1, 3, 1, 1)) for side in (1, -1)]

    assert differ(sketch, sketch.node(operator, "x", *bounds)) == 0


def test_a_border_is_the_evaluators_and_a_mode_that_is_not_covered_is_named() -> None:
    text = (
        "g (float[1,3,2,2] x) => (float[] y) {{ s = Constant<value = int64[8] {{0, 0, 1, 2, 0, 1, 0, 3}}>() {line} }}"
    )
    filled = "f = Constant<value = float {1.5}>() y = Pad(x, s, f)"
    model, x = tiny_graphs.parse(text.format(line=filled), 18), Sketch(pixels=(2, 2)).images(1)
    wanted = ReferenceEvaluator(serialize_model(model)).run(None, {"x": x})[0]
    mirrored = tiny_graphs.parse(text.format(line='y = Pad<mode = "reflect">(x, s)'), 18)

    assert TorchGraph(model).forward(x).tolist() == wanted.tolist()
    with pytest.raises(InputError, match="a mode other than constant"):
        TorchGraph(mirrored).forward(x)


def test_pixels_with_a_border_are_the_evaluators() -> None:
    text = (
        "g (uint8[1,2,3,3] x) => (float[] y) { k = Constant<value = bool[1,1,1,3] {1, 0, 1}>() "
        "f = Constant<value = uint8 {7}>() w = Where(k, x, f) t = Transpose<perm = [0, 3, 1, 2]>(w) "
        "y = Cast<to = 1>(t) }"
    )
    model = tiny_graphs.parse(text, 18)
    x = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 3), np.uint8)
    wanted = ReferenceEvaluator(serialize_model(model)).run(None, {"x": x})[0]

    assert TorchGraph(model).forward(x).tolist() == wanted.tolist()
    with pytest.raises(InputError, match="a type other than float32 is not covered"):
        TorchGraph(tiny_graphs.parse(text.replace("to = 1", "to = 11").replace("float[]", "double[]"), 18)).forward(x)


def test_a_dense_network_is_the_evaluators_for_any_batch() -> None:
    sketch = Sketch(batch=1)
    output = sketch.network()
    model, x = sketch.model(output), sketch.images(5)
    session = ReferenceEvaluator(serialize_model(model))
    wanted = np.concatenate([session.run(None, {"x": image[None]})[0] for image in x])

    with torch.no_grad():
        found = TorchGraph(model).forward(x).numpy()

    assert np.abs(found - wanted).max() < 1e-4


def test_a_shape_written_for_one_image_serves_a_batch() -> None:
    model = tiny_graphs.parse(
        "g (float[1,3,2,2] x) => (float[] y) { s = Constant<value = int64[2] {1, -1}>() y = Reshape(x, s) }", 18
    )

    with torch.no_grad():
        found = TorchGraph(model).forward(Sketch(pixels=(2, 2)).images(3))

    assert found.shape == (3, 12)


def test_an_operator_that_is_not_covered_is_named() -> None:
    sketch = Sketch()

    with pytest.raises(InputError, match="is not told how to compute: Erf"):
        TorchGraph(sketch.model(sketch.node("Erf", "x")))


def test_a_form_that_is_not_covered_is_named() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.node("MaxPool", "x", kernel_shape=[2, 2], auto_pad="SAME_UPPER"))

    with pytest.raises(InputError, match="auto_pad is not covered"):
        TorchGraph(model).forward(sketch.images(1))


QUANTIZED = """g (float[1,3,8,8] x) => (float[] y) <
float[3] ps = {0.01, 0.02, 0.03}, uint8[3] pz = {100, 110, 120}, float s = {0.05}, uint8 z = {117},
float t = {0.04}, uint8 o = {0}, int8[4,3,1,1] w = {1,2,3,-4,5,6,7,-8,9,10,11,-12}, float[4] ws = {0.1,0.2,0.3,0.4},
int8[4] wz = {0,0,0,0}, int32[4] b = {10,20,-30,40}, float[4] bs = {0.005,0.01,0.015,0.02}, int32[4] bz = {0,0,0,0}> {
q = QuantizeLinear<axis = 1>(x, ps, pz)  d = DequantizeLinear(q, s, z)
v = DequantizeLinear<axis = 0>(w, ws, wz)  c = DequantizeLinear<axis = 0>(b, bs, bz)
a = Conv(d, v, c)  r = Relu(a)  u = QuantizeLinear(r, t, o)
m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(u)  k = Concat<axis = 1>(m, m)  y = DequantizeLinear(k, t, o) }"""


def test_a_quantized_graph_keeps_its_grids_and_is_the_evaluators() -> None:
    model = tiny_graphs.parse(QUANTIZED, 19)
    x = Sketch(pixels=(8, 8)).images(1)
    wanted = ReferenceEvaluator(serialize_model(model)).run(None, {"x": x})[0]

    with torch.no_grad():
        found = TorchModule(model)(torch.from_numpy(x)).numpy()

    assert found.shape == wanted.shape == (1, 8, 4, 4)
    assert np.abs(found - wanted).max() <= 0.04 * 1.001  # one step of the grid, where a product lies between two
    assert (found == wanted).mean() > 0.98


ONE_SCALE = QUANTIZED.replace(
    "float[4] ws = {0.1,0.2,0.3,0.4},\nint8[4] wz = {0,0,0,0}", "float ws = {0.1}, int8 wz = {0}"
)


BOUNDED = """g (float[1,3,8,8] x) => (float[] y) < float low = {0.1}, float high = {0.7}, float f = {0.3},
int64[8] p = {0,0,1,2,0,0,0,1} > { c = Clip(x, low, high)  y = Pad(c, p, f) }"""


@pytest.mark.parametrize(
    "text", [BOUNDED, QUANTIZED, ONE_SCALE.replace("DequantizeLinear<axis = 0>(w,", "DequantizeLinear(w,")]
)
def test_no_number_of_a_quantized_graph_is_unknown_to_torch_export(text: str) -> None:
    module, images = TorchModule(tiny_graphs.parse(text, 19)).eval(), torch.from_numpy(Sketch(pixels=(8, 8)).images(1))

    with torch.no_grad():
        exported = torch.export.export(module, (images,), strict=False).module()(images)
        assert torch.equal(exported, module(images))


def test_what_stands_for_a_scale_of_each_channel_is_refused_where_it_is_read_so() -> None:
    text = QUANTIZED.replace("d = DequantizeLinear(q, s, z)", "d = DequantizeLinear<axis = 1>(q, ps, pz)")

    with pytest.raises(InputError, match="a scale of each channel, or a tensor that is read in several ways"):
        TorchModule(tiny_graphs.parse(text, 19))
