"""Tests of the scheme `bf16`: float32's range, weights rounded to 8 bits, operator set 22."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import tiny_graphs

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import QuantizeError
from deploy_kit.graph import onnx_file
from deploy_kit.quantization.schemes import bf16
from deploy_kit.quantization.schemes._half import HalfOptions

CONV = "g (float[1,2,4,4] x) => (float[1,3,4,4] y) { c = Conv(x, kernel, bias) y = Relu(c) }"
X = np.random.default_rng(0).standard_normal((1, 2, 4, 4), np.float32)


def kernel() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 2, 1, 1), np.float32)


def typed(tmp_path: Path, opset: int = 18, bias: tuple[float, ...] = (0, 0, 0)) -> Path:
    model = tiny_graphs.parse(CONV, opset, kernel=kernel(), bias=np.array(bias))
    model.metadata_props["deploykit.exporter"] = "dynamo"
    onnx_file.save(model, tmp_path / "source.onnx")
    bf16.apply(tmp_path / "source.onnx", tmp_path / "target.onnx", HalfOptions(), None)
    return tmp_path / "target.onnx"


def weight(path: Path, name: str) -> np.ndarray:
    return onnx_file.load(path).graph.initializers[name].const_value.numpy()


def test_weights_are_rounded_to_the_nearest_bfloat16(tmp_path: Path) -> None:
    path = typed(tmp_path)

    found = weight(path, "kernel")

    assert np.array_equal(found.astype(np.float32), kernel().astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize(("opset", "raised"), [(13, 22), (18, 22), (22, 22), (23, 23)])
def test_file_has_an_operator_set_that_allows_bfloat16(opset: int, raised: int, tmp_path: Path) -> None:
    path = typed(tmp_path, opset)

    assert onnx_file.opset(onnx_file.load(path)) == raised


def test_metadata_survives_the_newer_operator_set(tmp_path: Path) -> None:
    path = typed(tmp_path)

    assert onnx_file.load(path).metadata_props == {"deploykit.exporter": "dynamo"}


def test_casts_stand_at_the_input_and_the_output_only(tmp_path: Path) -> None:
    path = typed(tmp_path)

    assert tiny_graphs.operators(onnx_file.load(path)) == ["Cast", "Conv", "Relu", "Cast"]


def test_every_activation_in_between_is_bfloat16(tmp_path: Path) -> None:
    path = tmp_path / "target.onnx"
    (tmp_path / "source.onnx").write_bytes(tiny_graphs.simplified()[1])

    bf16.apply(tmp_path / "source.onnx", path, HalfOptions(), None)

    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    types = {value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert types - {onnx.TensorProto.INT64} == {onnx.TensorProto.BFLOAT16}


def test_outputs_are_those_of_float32_within_the_rounding_of_bfloat16(tmp_path: Path) -> None:
    path = typed(tmp_path)
    (wanted,) = tiny_graphs.evaluate(onnx_file.load(tmp_path / "source.onnx"), X)

    found = tiny_graphs.run_file(path, X)

    assert found.dtype == np.float32
    assert metrics.relative_difference(wanted, found) < 4 * 2.0**-8


def test_weight_that_float16_could_not_hold_is_accepted(tmp_path: Path) -> None:
    path = typed(tmp_path, bias=(1e30, -70_000.0, 0))

    found = weight(path, "bias").astype(np.float32)

    np.testing.assert_allclose(found, [1e30, -70_000.0, 0], rtol=2.0**-8)


def test_weight_that_rounds_beyond_bfloat16_is_refused_with_where_it_ends(tmp_path: Path) -> None:
    largest = float(np.finfo(np.float32).max)

    with pytest.raises(QuantizeError, match=r"weight 'bias' reaches 3\.40282e\+38, and bfloat16 ends at 3\.3895"):
        typed(tmp_path, bias=(largest, 0, 0))


def test_refusal_does_not_advise_what_was_just_tried(tmp_path: Path) -> None:
    with pytest.raises(QuantizeError) as caught:
        typed(tmp_path, bias=(float(np.finfo(np.float32).max), 0, 0))

    assert "--bf16" not in caught.value.hint


def test_graph_straight_from_the_exporter_is_typed_too(tmp_path: Path) -> None:
    (tmp_path / "source.onnx").write_bytes(tiny_graphs.exported()[1])

    bf16.apply(tmp_path / "source.onnx", tmp_path / "target.onnx", HalfOptions(), None)

    assert np.isfinite(tiny_graphs.run_file(tmp_path / "target.onnx", tiny_graphs.images())).all()


def test_graph_that_cannot_be_raised_is_refused(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 6, opset_import: ["" : 7]> g (float[1,2,1,1] x) => (float[1,2,1,1] y) '
        "<float[2] g = {1, 1}, float[2] b = {0, 0}, float[2] m = {0, 0}, float[2] v = {1, 1}> "
        "{ y = BatchNormalization<spatial = 0>(x, g, b, m, v) }"
    )
    onnx.save(proto, tmp_path / "source.onnx")

    with pytest.raises(QuantizeError, match=r"source\.onnx: cannot be raised to operator set 22, which bfloat16 needs"):
        bf16.apply(tmp_path / "source.onnx", tmp_path / "target.onnx", HalfOptions(), None)
