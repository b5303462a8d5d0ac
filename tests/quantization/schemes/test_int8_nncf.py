"""Tests of the scheme `int8_nncf`: each of its options does what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
from tiny_densenet import TINY_PREPROCESS, save_images

from deploy_kit import images
from deploy_kit.base import lazy
from deploy_kit.base.errors import QuantizeError, RecipeError
from deploy_kit.graph import onnx_file
from deploy_kit.quantization.schemes.int8_nncf import Int8NncfOptions
from deploy_kit.records import codec

pytestmark = pytest.mark.slow

pytest_plugins = ["scheme_worker"]
needs_nncf = pytest.mark.skipif(not lazy.present("nncf"), reason=lazy.install_line("nncf"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8_nncf")
    (folder / "source.onnx").write_bytes(tiny_graphs.simplified()[1])
    save_images(folder / "images.npz", 20, seed=1)
    return folder


@pytest.fixture(scope="module")
def quantized(apply_scheme: Callable[..., Any], folder: Path) -> Callable[..., ir.Model]:
    """Quantize the tiny DenseNet with given options, once a session each."""
    done = dict[str, ir.Model]()

    def make(**options: str | bool) -> ir.Model:
        if str(options) not in done:
            apply_scheme("int8_nncf", folder / "source.onnx", folder / "target.onnx", folder / "images.npz", **options)
            done[str(options)] = onnx_file.load(folder / "target.onnx")
        return done[str(options)]

    return make


def quantizers(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "QuantizeLinear"]


def constant(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()


def zero_points(model: ir.Model) -> list[np.ndarray]:
    return [constant(node.inputs[2]) for node in quantizers(model)]


def input_range(model: ir.Model) -> tuple[float, float]:
    """Give the ends of what the input's quantizer can express."""
    node = next(node for node in quantizers(model) if node.inputs[0].name == "input")
    scale, zero = (constant(value) for value in node.inputs[1:])
    limits = np.iinfo(zero.dtype)
    return (limits.min - int(zero)) * float(scale), (limits.max - int(zero)) * float(scale)


@needs_nncf
def test_default_is_the_mixed_preset_with_asymmetric_activations(quantized: Callable[..., ir.Model]) -> None:
    assert any(array.any() for array in zero_points(quantized()))


@needs_nncf
def test_performance_preset_has_symmetric_activations(quantized: Callable[..., ir.Model]) -> None:
    signed = [array for array in zero_points(quantized(preset="performance")) if array.dtype == np.int8]

    assert signed
    assert not any(array.any() for array in signed)


@needs_nncf
def test_minmax_ranges_reach_the_extremes_of_all_images(quantized: Callable[..., ir.Model], folder: Path) -> None:
    image_set = images.open_set(str(folder / "images.npz"), TINY_PREPROCESS)
    x = np.concatenate(list(image_set.batches(TINY_PREPROCESS, 20)))

    low, high = input_range(quantized(ranges="minmax"))

    step = (high - low) / 255
    np.testing.assert_allclose([low, high], [x.min(), x.max()], atol=step)


@needs_nncf
def test_mean_of_the_ranges_is_narrower_where_one_image_sticks_out(quantized: Callable[..., ir.Model]) -> None:
    def widest(model: ir.Model) -> np.ndarray:
        return np.array([float(constant(node.inputs[1]).max()) for node in quantizers(model)])

    mean, minmax = widest(quantized()), widest(quantized(ranges="minmax"))

    assert (mean <= minmax * 1.001).all()
    assert (mean < minmax * 0.99).any()


@needs_nncf
def test_bias_correction_moves_biases_and_can_be_switched_off(quantized: Callable[..., ir.Model]) -> None:
    def biases(model: ir.Model) -> dict[str, np.ndarray]:
        convolutions = (node for node in model.graph if node.op_type == "Conv" and len(node.inputs) > 2)
        return {node.name: constant(node.inputs[2]) for node in convolutions}

    plain = biases(quantized(bias_correction=False))
    corrected = biases(quantized())

    source = biases(tiny_graphs.simplified_model())
    assert all(np.array_equal(plain[name], source[name]) for name in source)
    assert any(not np.array_equal(corrected[name], source[name]) for name in source)


@needs_nncf
def test_weights_are_int8_with_one_scale_for_each_output_channel(quantized: Callable[..., ir.Model]) -> None:
    model = quantized()

    pairs = [node.inputs[1].producer() for node in model.graph if node.op_type == "Conv"]

    assert {pair.op_type for pair in pairs} == {"DequantizeLinear"}
    assert all(constant(pair.inputs[1]).size == pair.outputs[0].shape[0] for pair in pairs)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"preset": "perfomance"}, "preset: expected one of mixed, performance", "did you mean 'performance'?"),
        ({"ranges": "max"}, "ranges: expected one of mean_minmax, minmax", "did you mean 'minmax'?"),
        ({"bias_correction": "yes"}, "bias_correction: expected bool, found 'yes'", ""),
        ({"range": "minmax"}, "unknown key 'range'", "did you mean 'ranges'?"),
    ],
)
def test_option_that_does_not_fit_is_refused(options: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        codec.from_json(Int8NncfOptions, options, "scheme 'int8_nncf'")

    assert caught.value.hint == hint


@needs_nncf
def test_graph_straight_from_the_exporter_is_quantized_or_refused_in_words(
    apply_scheme: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "source.onnx").write_bytes(tiny_graphs.exported()[1])

    try:
        apply_scheme("int8_nncf", tmp_path / "source.onnx", tmp_path / "target.onnx", folder / "images.npz")
    except QuantizeError as refusal:
        assert refusal.hint
    else:
        assert onnx_file.precision(onnx_file.load(tmp_path / "target.onnx")) == "int8"
