"""Scales that no text form of ONNX can state."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from lint_graphs import graph, pair

from deploy_kit.graph import lint

_TEXTS = {
    "s": pair("int8 z = {0}"),
    "t": graph(
        "d = DequantizeLinear(w, t)  y = Conv(x, d)",
        "int8[2,4,1,1] w = {1,1,1,1,1,1,1,1}, float[2] t = {0.1, 0.1}",
    ),
}


@pytest.mark.parametrize("name", _TEXTS)
@pytest.mark.parametrize("step", [np.nan, np.inf])
def test_scale_that_is_no_number_is_an_error_on_every_engine(name: str, step: float) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{_TEXTS[name]}')
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = onnx.numpy_helper.to_array(scale).copy().reshape(-1)
    values[-1] = step
    scale.CopyFrom(onnx.numpy_helper.from_array(values.reshape(tuple(scale.dims)), name))

    for engine in ("onnxruntime", "openvino", "tensorrt"):
        found = lint.lint_model(ir.serde.deserialize_model(model), lint.parse_target(engine))

        assert [(one.code, one.level) for one in found if one.code == "ONNX003"] == [("ONNX003", "error")]
        assert f"scale of {step:g}" in next(one.text for one in found if one.code == "ONNX003")
