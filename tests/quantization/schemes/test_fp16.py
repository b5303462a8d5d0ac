"""Tests of the scheme `fp16`: weights rounded as numpy rounds them, and refused where float16 ends."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_graphs
from onnx import numpy_helper

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import QuantizeError
from deploy_kit.graph import onnx_file
from deploy_kit.quantization.schemes import fp16
from deploy_kit.quantization.schemes._half import HalfOptions

CONV = "g (float[1,2,4,4] x) => (float[1,3,4,4] y) { c = Conv(x, kernel, bias) y = Relu(c) }"
X = np.random.default_rng(0).standard_normal((1, 2, 4, 4), np.float32)


def kernel() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 2, 1, 1), np.float32)


def typed(tmp_path: Path, text: str = CONV, **weights: np.ndarray) -> Path:
    used = {"kernel": kernel(), "bias": np.zeros(3)} | weights if text is CONV else weights
    onnx_file.save(tiny_graphs.parse(text, **used), tmp_path / "source.onnx")
    fp16.apply(tmp_path / "source.onnx", tmp_path / "target.onnx", HalfOptions(), None)
    return tmp_path / "target.onnx"


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_weights_are_rounded_as_numpy_rounds_them(tmp_path: Path) -> None:
    path = typed(tmp_path)

    found = weights_of(path)["kernel"]

    assert found.dtype == np.float16
    assert np.array_equal(found, kernel().astype(np.float16))


def test_casts_stand_at_the_input_and_the_output_only(tmp_path: Path) -> None:
    path = typed(tmp_path)

    assert tiny_graphs.operators(onnx_file.load(path)) == ["Cast", "Conv", "Relu", "Cast"]


def test_every_activation_in_between_is_float16(tmp_path: Path) -> None:
    path = tmp_path / "target.onnx"
    (tmp_path / "source.onnx").write_bytes(tiny_graphs.simplified()[1])

    fp16.apply(tmp_path / "source.onnx", path, HalfOptions(), None)

    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    types = {value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert types - {onnx.TensorProto.INT64} == {onnx.TensorProto.FLOAT16}


def test_outputs_are_those_of_float32_within_the_rounding_of_float16(tmp_path: Path) -> None:
    path = typed(tmp_path)
    (wanted,) = tiny_graphs.evaluate(onnx_file.load(tmp_path / "source.onnx"), X)

    found = tiny_graphs.run_file(path, X)

    assert found.dtype == np.float32
    assert metrics.relative_difference(wanted, found) < 4 * 2.0**-11


@pytest.mark.parametrize("size", [65_504.0, -65_504.0, 65_519.0])
def test_largest_number_of_float16_is_accepted(size: float, tmp_path: Path) -> None:
    path = typed(tmp_path, bias=np.array([size, 0, 0]))

    assert abs(weights_of(path)["bias"][0]) == 65_504


@pytest.mark.parametrize("size", [65_520.0, -70_000.0])
def test_weight_beyond_float16_is_refused_by_name(size: float, tmp_path: Path) -> None:
    message = rf"source\.onnx: weight 'bias' reaches {abs(size):g}, and float16 ends at 65504"
    with pytest.raises(QuantizeError, match=message) as caught:
        typed(tmp_path, bias=np.array([size, 0, 0]))

    assert caught.value.hint == "use --bf16, which has float32's range"


def test_integers_stay_integers(tmp_path: Path) -> None:
    text = "g (float[1,4] x) => (float[2,2] y) <int64[2] shape = {2, 2}> { y = Reshape(x, shape) }"

    path = typed(tmp_path, text)

    assert weights_of(path)["shape"].dtype == np.int64


def test_constant_of_the_graph_is_narrowed_too(tmp_path: Path) -> None:
    text = "g (float[1,4] x) => (float[1,4] y) { c = Constant<value = float[1] {0.1}>() y = Mul(x, c) }"
    x = np.ones((1, 4), np.float32)

    path = typed(tmp_path, text)

    np.testing.assert_allclose(tiny_graphs.run_file(path, x), np.float16(0.1), rtol=2.0**-10)


def test_cast_to_float_becomes_a_cast_to_float16(tmp_path: Path) -> None:
    text = "g (float[1,4] x) => (float[1,4] y) { i = Cast<to = 7>(x) f = Cast<to = 1>(i) y = Add(x, f) }"
    x = np.array([[1.5, 2.5, -3.5, 4.0]], np.float32)

    path = typed(tmp_path, text)

    assert tiny_graphs.run_file(path, x).tolist() == [[2.5, 4.5, -6.5, 8.0]]


def test_graph_straight_from_the_exporter_runs(tmp_path: Path) -> None:
    (tmp_path / "source.onnx").write_bytes(tiny_graphs.exported()[1])

    fp16.apply(tmp_path / "source.onnx", tmp_path / "target.onnx", HalfOptions(), None)

    assert np.isfinite(tiny_graphs.run_file(tmp_path / "target.onnx", tiny_graphs.images())).all()
