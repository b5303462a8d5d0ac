"""The Q/DQ graph for TensorRT: zero points of 0 alone, a pair before each convolution, floats where it wants floats."""

import numpy as np
import onnx_ir as ir
import pytest
from dense_graphs import Sketch, array, maker, nodes, quantized
from dense_networks import FLOOR_DB, LOWER_DB, NETWORKS, quantized_network, signal_to_noise_db

from deploy_kit.base.errors import QuantizeError
from deploy_kit.graph import onnx_file
from deploy_kit.quantization.int8.grids import round_scales_up
from deploy_kit.quantization.schemes import int8_tensorrt

every_network = pytest.mark.parametrize("name", NETWORKS)
DENSE = ("plain", "new maps first", "ReLU inside a concatenation", "ReLU behind the stem's pool", "average pool")


@pytest.mark.slow
@every_network
def test_logits_are_near_those_of_the_float_graph(name: str) -> None:
    assert signal_to_noise_db(name, "tensorrt", False) > LOWER_DB.get(name, FLOOR_DB) - 4  # half a bit: the sign


@pytest.mark.parametrize("name", DENSE)
def test_logits_are_near_without_quantized_concatenations_too(name: str) -> None:
    assert signal_to_noise_db(name, "tensorrt, float concats", True) > FLOOR_DB


@every_network
def test_every_zero_point_is_an_int8_zero(name: str) -> None:
    _, model = quantized_network(name, "tensorrt")

    for node in nodes(model, "QuantizeLinear", "DequantizeLinear"):
        assert array(node.inputs[2]).dtype == np.int8
        assert not array(node.inputs[2]).any()


@pytest.mark.parametrize(
    ("name", "form"), [(name, "tensorrt") for name in NETWORKS] + [(name, "tensorrt, float concats") for name in DENSE]
)
def test_every_convolution_reads_a_quantized_activation_and_quantized_weights(name: str, form: str) -> None:
    _, model = quantized_network(name, form)
    weighted = nodes(model, "Conv", "Gemm")

    for node in weighted:
        source, weight = maker(node.inputs[0]), maker(node.inputs[1])
        assert (source.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert maker(source.inputs[0]).op_type == "QuantizeLinear"
        assert array(weight.inputs[0]).dtype == np.int8

    assert weighted


@every_network
def test_biases_stay_float(name: str) -> None:
    _, model = quantized_network(name, "tensorrt")

    assert {array(node.inputs[2]).dtype for node in nodes(model, "Conv", "Gemm")} == {np.dtype(np.float32)}


@every_network
def test_parameters_of_a_norm_stay_float_constants(name: str) -> None:
    _, model = quantized_network(name, "tensorrt")

    for node in nodes(model, "BatchNormalization"):
        assert all(array(value).dtype == np.float32 for value in node.inputs[1:])


@pytest.mark.parametrize("name", DENSE)
def test_maps_of_a_block_are_quantized_with_one_scale(name: str) -> None:
    _, model = quantized_network(name, "tensorrt")

    for concat in nodes(model, "Concat"):
        pairs = [pair_above(value) for value in concat.inputs if maker(value).op_type != "Concat"]
        assert pairs
        assert len({array(pair.inputs[1]).item() for pair in pairs}) == 1


def pair_above(value: ir.Value | None) -> ir.Node:
    """Give the DequantizeLinear a part comes from, through what moves values."""
    node = maker(value)
    return pair_above(node.inputs[0]) if node.op_type in ("Relu", "Max", "MaxPool", "AveragePool") else node


@pytest.mark.parametrize("name", DENSE)
def test_maps_of_a_block_stay_float_where_that_is_asked_for(name: str) -> None:
    _, model = quantized_network(name, "tensorrt, float concats")

    makers = {maker(value).op_type for concat in nodes(model, "Concat") for value in concat.inputs}

    assert "DequantizeLinear" not in makers


def test_no_pair_stands_twice_in_a_row() -> None:
    for name in DENSE:
        _, model = quantized_network(name, "tensorrt")
        for node in nodes(model, "QuantizeLinear"):
            assert maker_of(node.inputs[0]) != "DequantizeLinear"


def maker_of(value: ir.Value | None) -> str:
    node = value.producer() if value is not None else None
    return node.op_type if node is not None else "input"


@pytest.mark.parametrize("across", [0, 1])
def test_scales_of_a_gemm_lie_along_its_outputs(across: int) -> None:
    sketch = Sketch(channels=6, pixels=())
    weight = sketch.generator.standard_normal((5, 6)) * np.geomspace(0.01, 1, 5)[:, None]
    given = sketch.constant(weight if across else weight.T)
    model = sketch.model(sketch.node("Gemm", "x", given, sketch.constant(np.zeros(5)), transB=across, channels=5))

    made = quantized(model, sketch.images(16), int8_tensorrt, convolutions="all", concats=True, rest="fp32")

    restore = maker(nodes(made, "Gemm")[0].inputs[1])
    assert restore.attributes.get_int("axis") == 1 - across
    np.testing.assert_allclose(array(restore.inputs[1]), np.abs(weight).max(1) / 127, rtol=1e-5)


def test_what_is_no_longer_used_is_gone() -> None:
    _, model = quantized_network("plain", "tensorrt")

    used = {value.name for node in model.graph for value in node.inputs if value is not None}

    assert set(model.graph.initializers) <= used


def test_outputs_inside_a_block_stay_unrounded_floats() -> None:
    sketch = Sketch()
    block = sketch.block(sketch.stem())
    model = sketch.model(sketch.head(sketch.norm(block)), block)

    made = quantized(model, sketch.images(16), int8_tensorrt, convolutions="all", concats=True, rest="fp32")

    assert onnx_file.specs(tuple(made.graph.outputs)) == onnx_file.specs(tuple(model.graph.outputs))
    assert [maker_of(value) for value in made.graph.outputs] == ["Gemm", "Concat"]


@pytest.mark.parametrize("name", DENSE)
def test_logits_are_near_where_only_convolutions_behind_norms_are_quantized(name: str) -> None:
    assert signal_to_noise_db(name, "tensorrt, behind norms", False) > FLOOR_DB


@pytest.mark.parametrize("name", DENSE)
def test_every_quantizer_stands_behind_a_norm_unless_all_are_asked_for(name: str) -> None:
    _, model = quantized_network(name, "tensorrt, behind norms")

    makers = {maker_of(node.inputs[0]) for node in nodes(model, "QuantizeLinear")}

    assert makers == {"BatchNormalization"}


def test_second_convolutions_of_dense_layers_are_quantized_with_the_blocks() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.network())

    made = quantized(model, sketch.images(16), int8_tensorrt, convolutions="blocks", rest="fp32")

    makers = [maker_of(node.inputs[0]) for node in nodes(made, "QuantizeLinear")]
    assert makers == ["BatchNormalization", "Relu"] * 2


def test_graph_without_a_norm_before_a_convolution_says_what_takes_it() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.head(sketch.stem()))

    with pytest.raises(QuantizeError, match="no convolution reads a BatchNormalization and ReLU") as caught:
        quantized(model, sketch.images(4), int8_tensorrt)

    assert caught.value.hint == "a recipe can: scheme: int8_tensorrt, options: {convolutions: all} quantizes the others"


@pytest.mark.parametrize(
    ("scales", "wanted"), [(np.float32, np.float32(1e-9)), (np.float16, 2.0**-20)], ids=["single", "half"]
)
def test_scales_fit_their_type_and_hold_what_they_must(scales: type, wanted: float) -> None:
    given = np.array([1 / 127, 0.3, 1e-9])

    found = round_scales_up(given, scales)

    np.testing.assert_array_equal(found, found.astype(scales))
    assert (found >= given).all()
    assert (found[:2] <= given[:2] * (1 + np.finfo(scales).eps)).all()
    assert found[2] == pytest.approx(wanted, rel=1e-6)
