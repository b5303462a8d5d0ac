"""The portable integer graph: near the float graph whatever its peculiarity, and integers throughout a block."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
from dense_graphs import Sketch, array, maker, nodes, planned, quantized, run
from dense_networks import FLOOR_DB, LOWER_DB, NETWORKS, quantized_network, signal_to_noise_db
from onnx.reference import ReferenceEvaluator

from deploy_kit.accuracy import metrics
from deploy_kit.graph import onnx_file
from deploy_kit.quantization.int8 import portable

either_form = pytest.mark.parametrize("form", ["max", "depthwise"])
# What the depthwise form does otherwise than the other one.
DEPTHWISE = (
    "plain", "open batch", "1-D", "3-D", "operator set 13", "negative gammas", "gamma 0, beta 0.3",
    "gamma 1e-08, beta -0.3", "gamma -1, beta 20", "dead channels", "average pool", "average pool with padding",
    "grouped convolutions", "average and maximum concatenated in the head",
)  # fmt: skip
every_network = pytest.mark.parametrize(
    ("name", "form"), [(name, "max") for name in NETWORKS] + [(name, "depthwise") for name in DEPTHWISE]
)
DENSE = (
    "plain",
    "new maps first",
    "ReLU inside a concatenation",
    "ReLU behind the stem's pool",
    "average pool",
    "1-D",
    "3-D",
)
every_dense = pytest.mark.parametrize("name", DENSE)


@pytest.mark.slow
@pytest.mark.parametrize("optimize", [False, True], ids=["as it stands", "optimized"])
@every_network
def test_logits_are_near_those_of_the_float_graph(name: str, form: str, optimize: bool) -> None:
    assert signal_to_noise_db(name, form, optimize) > LOWER_DB.get(name, FLOOR_DB)


@pytest.mark.parametrize("name", ["plain", "negative gammas", "average pool", "no bottleneck"])
def test_logits_are_near_with_narrow_sums_too(name: str) -> None:
    assert signal_to_noise_db(name, "narrow sums", True) > FLOOR_DB - 4


@pytest.mark.parametrize("spoiled", ["a bound", "a zero point", "a bias", "a scale"])
def test_floor_is_missed_when_one_constant_is_wrong(spoiled: str) -> None:
    network, model = quantized_network("plain", "max")
    model = onnx_file.reread(model)  # a copy
    constant = {
        "a bound": nodes(model, "Max")[0].inputs[1],
        "a zero point": nodes(model, "QuantizeLinear")[1].inputs[2],
        "a bias": maker(nodes(model, "Conv")[-1].inputs[2]).inputs[0],
        "a scale": maker(nodes(model, "Conv")[-1].inputs[1]).inputs[1],
    }[spoiled]
    values = array(constant).copy()
    wrong = {"a bound": values + 40, "a zero point": values + 20, "a bias": values * 2, "a scale": values * 1.2}[
        spoiled
    ]
    constant.const_value = ir.tensor(wrong.astype(values.dtype), name=constant.name)
    x = network.sketch.images(12, seed=9)

    found = metrics.sqnr_db(run(network.model(), x)[0], run(model, x)[0])

    assert found < FLOOR_DB


@either_form
def test_onnxs_evaluator_computes_the_same_as_onnx_runtime(form: str) -> None:
    network, model = quantized_network("operator set 21", form)
    x = network.sketch.images(4, seed=9)

    evaluator = ReferenceEvaluator(ir.serde.serialize_model(model))
    wanted = np.concatenate([evaluator.run(None, {"x": image[None]})[0] for image in x])

    # A tie that float32 rounds to the other side is all that may differ.
    assert metrics.sqnr_db(wanted, run(model, x, optimize=False)[0]) > 50


@every_network
def test_input_and_outputs_are_float32_and_the_logits_unrounded(name: str, form: str) -> None:
    network, model = quantized_network(name, form)

    before = network.model().graph
    for side in ("inputs", "outputs"):
        assert onnx_file.specs(getattr(model.graph, side)) == onnx_file.specs(getattr(before, side))
    assert {maker(value).op_type for value in model.graph.outputs} == {"Gemm"}


@either_form
@every_dense
def test_a_block_holds_integers_from_end_to_end(name: str, form: str) -> None:
    _, model = quantized_network(name, form)
    concats = nodes(model, "Concat")

    values = [value for node in concats for value in (*node.inputs, *node.outputs)]

    assert concats
    assert {value.dtype for value in values} == {ir.DataType.UINT8}


@either_form
@every_dense
def test_nothing_is_quantized_again_between_two_concatenations(name: str, form: str) -> None:
    _, model = quantized_network(name, form)

    for concat in nodes(model, "Concat"):
        for value in concat.inputs:
            makers = maker(value)
            if makers.op_type == "QuantizeLinear":  # a new map: a convolution gave it, nothing was restored for it
                assert maker(makers.inputs[0]).op_type in ("Conv", "Relu")
            else:
                assert makers.op_type in ("Concat", "Max", "MaxPool")


@either_form
@every_dense
def test_a_block_has_one_scale_and_one_zero_point(name: str, form: str) -> None:
    _, model = quantized_network(name, form)

    for concat in nodes(model, "Concat"):
        around = [maker(value) for value in concat.inputs] + list(concat.outputs[0].consumers())
        pairs = [node for node in around if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert len({(id(node.inputs[1]), id(node.inputs[2])) for node in pairs}) <= 1
    names = [value.name for node in nodes(model, "QuantizeLinear") for value in node.inputs[1:]]
    arrays = {(array(node.inputs[1]).item(), array(node.inputs[2]).item()) for node in nodes(model, "QuantizeLinear")}
    assert len(set(names)) == 2 * len(arrays)


@every_network
def test_every_convolution_has_int8_weights_per_channel_and_an_int32_bias(name: str, form: str) -> None:
    _, model = quantized_network(name, form)

    for node in nodes(model, "Conv", "Gemm"):
        source, weight, bias = (maker(value) for value in node.inputs)
        assert {source.op_type, weight.op_type, bias.op_type} == {"DequantizeLinear"}
        n = array(weight.inputs[0]).shape[0]
        assert (array(weight.inputs[0]).dtype, array(weight.inputs[1]).shape) == (np.int8, (n,))
        assert (array(bias.inputs[0]).dtype, array(bias.inputs[0]).shape) == (np.int32, (n,))
        steps = array(source.inputs[1]) * array(weight.inputs[1])
        np.testing.assert_array_equal(array(bias.inputs[1]), steps)
        assert not array(weight.inputs[2]).any() and not array(bias.inputs[2]).any()


@every_network
def test_pattern_that_kills_openvino_never_occurs(name: str, form: str) -> None:
    _, model = quantized_network(name, form)

    assert not deadly(model)


def deadly(model: ir.Model) -> list[str]:
    """List the BNs behind Concat → QuantizeLinear (zero point ≠ 0) → DequantizeLinear: OpenVINO 2026.4.1 segfaults."""
    found = []
    for norm in nodes(model, "BatchNormalization"):
        restored = norm.inputs[0].producer()
        whole = (
            restored.inputs[0].producer() if restored is not None and restored.op_type == "DequantizeLinear" else None
        )
        before = whole.inputs[0].producer() if whole is not None and whole.op_type == "QuantizeLinear" else None
        if before is not None and before.op_type == "Concat" and array(whole.inputs[2]).any():
            found.append(str(norm.outputs[0].name))
    return found


def test_deadly_pattern_would_be_found() -> None:
    sketch = Sketch()
    x = sketch.concat(sketch.stem(), sketch.stem())
    sketch.lines.insert(0, "zero = Constant<value = uint8 {7}>()")
    scale = sketch.constant(0.1)
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        x = sketch.node(operator, x, scale, "zero")
    model = sketch.model(sketch.norm(x))
    for node in nodes(model, "QuantizeLinear"):
        node.inputs[2].const_value = ir.tensor(np.array(7, np.uint8))

    assert len(deadly(model)) == 1


@pytest.mark.parametrize(
    ("pixels", "shape"), [((8, 6), (1, -1, 1, 6)), ((12,), (1, -1, 12)), ((4, 5, 6), (1, -1, 1, 1, 6))]
)
def test_bounds_are_a_row_long(pixels: tuple[int, ...], shape: tuple[int, ...]) -> None:
    sketch = Sketch(pixels=pixels)
    model = quantized(sketch.model(sketch.network(gamma=1.0)), sketch.images(8))

    bounds = [array(node.inputs[1]) for node in nodes(model, "Max")]

    assert bounds
    for bound in bounds:
        n = bound.shape[1]
        assert (bound.dtype, bound.shape) == (np.uint8, tuple(n if size < 0 else size for size in shape))
        assert (bound == bound[..., :1]).all()


def test_norm_before_an_unpadded_convolution_becomes_max_and_min() -> None:
    _, model = quantized_network("plain", "max")

    # Two dense layers, the first with gammas of both signs; the last BN feeds a pool: a convolution of 14 groups.
    operators = tiny_graphs.operators(model)
    assert (operators.count("Max"), operators.count("Min"), operators.count("BatchNormalization")) == (2, 1, 0)
    assert [n.attributes.get_int("group", 1) for n in nodes(model, "Conv")] == [1] * 5 + [14]


def test_norm_before_a_padded_convolution_never_becomes_a_maximum() -> None:
    _, model = quantized_network("no bottleneck", "max")

    assert not nodes(model, "Max", "Min")
    assert [n.attributes.get_int("group", 1) for n in nodes(model, "Conv")] == [1, 6, 1, 10, 1, 14]


@pytest.mark.parametrize(
    ("name", "n_floats"),
    [
        ("average pool", 0), ("average pool that overlaps", 0), ("average pool with dilation", 0),
        ("average pool with padding", 1), ("average pool in ceil mode", 1), ("average pool of automatic padding", 1),
    ],
)  # fmt: skip
def test_average_pool_is_a_convolution_unless_it_pads(name: str, n_floats: int) -> None:
    _, model = quantized_network(name, "max")

    assert len(nodes(model, "AveragePool")) == n_floats


@pytest.mark.parametrize(("gammas", "absent"), [("positive gammas", "Min"), ("negative gammas", "Max")])
def test_slopes_of_one_sign_need_one_bound_alone(gammas: str, absent: str) -> None:
    _, model = quantized_network(gammas, "max")

    assert not nodes(model, absent)


def test_relu_of_a_concatenated_map_clips_at_the_zero_point() -> None:
    _, model = quantized_network("ReLU inside a concatenation", "depthwise")
    (clip,) = nodes(model, "Max")

    quantizer = maker(clip.inputs[0])

    assert quantizer.op_type == "QuantizeLinear"
    assert array(clip.inputs[1]).item() == array(quantizer.inputs[2]).item() > 0


@pytest.mark.parametrize("inside", ["a concatenation", "a rectified map", "a moved ReLU", "a map before its ReLU"])
def test_outputs_inside_a_group_are_floats_of_their_own_values(inside: str) -> None:
    sketch = Sketch()
    c = sketch.stem()
    rectified = sketch.node("Relu", c)
    pool = sketch.node("Relu", sketch.node("MaxPool", sketch.stem(), kernel_shape=[3, 3], pads=[1] * 4))
    block = sketch.block(sketch.concat(rectified, pool))
    more = {"a concatenation": block, "a rectified map": rectified, "a moved ReLU": pool, "a map before its ReLU": c}[
        inside
    ]
    model = sketch.model(sketch.head(sketch.norm(block)), more)
    x = sketch.images(8, seed=9)
    wanted = run(model, x, optimize=False)

    found = run(quantized(model, sketch.images(30)), x)

    assert metrics.sqnr_db(wanted[0], found[0]) > FLOOR_DB
    # A concatenation that is an output is not equalized: one scale for maps of a hundredfold gain.
    assert metrics.sqnr_db(wanted[1], found[1]) > (18 if inside == "a concatenation" else 25)


def mean_error(sketch: Sketch, logits: str, **options: Any) -> float:
    """How far the mean logits of the integer graph are off, relative to the deviation of the float logits."""
    x = sketch.images(30)
    wanted = run(sketch.model(logits), x)[0]
    found = run(quantized(sketch.model(logits), x, **options), x)[0]
    return float(np.abs((found - wanted).mean(0)).max() / wanted.std())


@pytest.mark.slow
def test_biases_make_up_for_the_mean_error_unless_told_otherwise() -> None:
    sketch = Sketch(seed=4)
    block = sketch.block(sketch.stem(), 4)
    logits = sketch.head(sketch.conv(sketch.norm(block), 16))

    left = mean_error(sketch, logits, rounding="nearest", bias_correction=False)

    assert mean_error(sketch, logits) < left / 2
    assert mean_error(sketch, logits, rounding="nearest") < left / 2


def test_average_pool_hands_the_error_of_its_bounds_on_to_the_convolution_behind_it() -> None:
    # Its own grid cannot hold a bound that lies far beyond it.
    assert signal_to_noise_db("bounds beyond the grid before an average pool", "max", True) > FLOOR_DB


def test_moved_relu_has_the_mean_that_was_observed() -> None:
    network = NETWORKS["ReLU behind the stem's pool"]()
    plan = planned(network.model(), network.sketch.images(16), equalized=False)
    relu = next(n for n in plan.model.graph if n.op_type == "Relu" and n.inputs[0].producer().op_type == "MaxPool")
    name = str(relu.outputs[0].name)
    plan.model.graph.outputs[:] = [relu.outputs[0]]
    values = run(onnx_file.reread(plan.model), network.sketch.images(16))[0]

    plan = planned(network.model(), network.sketch.images(16), equalized=False)
    portable.write_portable(plan)

    known = next(moments for value, moments in plan.known.items() if value.name == name)
    np.testing.assert_allclose(known.mean, values.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(known.std, values.std((0, 2, 3)), rtol=0.5, atol=0.05)


def test_same_images_give_the_same_bytes() -> None:
    sketch = Sketch()
    logits = sketch.network()

    one, two = (
        ir.serde.serialize_model(quantized(sketch.model(logits), sketch.images(8))).SerializeToString(
            deterministic=True
        )
        for _ in range(2)
    )

    assert one == two


def test_other_images_give_other_bytes() -> None:
    sketch = Sketch()
    logits = sketch.network()

    one, two = (
        ir.serde.serialize_model(quantized(sketch.model(logits), sketch.images(8, seed))).SerializeToString()
        for seed in (1, 2)
    )

    assert one != two


@pytest.mark.parametrize("activation", ["LeakyRelu", "Elu"])
def test_every_convolution_before_another_activation_writes_integers(activation: str) -> None:
    """ONNX Runtime computes a convolution on integers only where it writes integers, too."""
    sketch = Sketch()
    block = sketch.stem()
    for _ in range(2):
        inner = sketch.node(activation, sketch.norm(block, relu=False))
        inner = sketch.node(activation, sketch.conv(inner, 8))
        block = sketch.concat(block, sketch.conv(inner, 4, 3, pad=1))
    model, x = sketch.model(sketch.head(sketch.norm(block))), sketch.images(40)

    made = quantized(model, x)

    convolutions = [conv for conv in nodes(made, "Conv") if conv.attributes.get_int("group", 1) == 1]
    readers = [{use.node.op_type for use in conv.outputs[0].uses()} for conv in convolutions]
    assert readers == [{"QuantizeLinear"}] * 5
    assert len(nodes(made, "BatchNormalization")) == 2  # in float, as what reads them
    assert metrics.sqnr_db(run(model, x)[0], run(made, x)[0]) > 25
