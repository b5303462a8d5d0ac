"""Tests of files that another program quantized: taken with their grids, or refused with a cure that holds."""

from pathlib import Path

import foreign_grids
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small_cnns
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import InputError
from deploy_kit.graph.adoption import Stated, adopt


class Pixels(CalibrationDataReader):
    """Three batches of small images."""

    def __init__(self, name: str) -> None:
        self.batches = iter([{name: small_cnns.pixels()} for _ in range(3)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def quantized(folder: Path, form: QuantFormat) -> Path:
    source = small_cnns.saved(small_cnns.small_cnn(), folder)
    name = onnx.load(source).graph.input[0].name
    quantize_static(source, folder / "int8.onnx", Pixels(name), quant_format=form, per_channel=True)
    return folder / "int8.onnx"


def test_grids_of_another_program_are_kept(tmp_path: Path) -> None:
    file, x = quantized(tmp_path, QuantFormat.QDQ), small_cnns.pixels()

    adopted = adopt(file, Stated())

    found = small_cnns.computed(ir.serde.serialize_model(adopted.model), x)
    assert metrics.relative_difference(small_cnns.computed(file, x), found) < 1e-6
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer}
    scales = {name: value for name, value in given.items() if name.endswith("_scale")}
    assert scales
    kept = adopted.model.graph.initializers
    assert all(np.array_equal(kept[name].const_value.numpy(), value) for name, value in scales.items())


def test_integer_operators_of_one_runtime_are_refused_and_the_other_form_is_taken(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"is an integer operator of com\.microsoft, which other engines lack"
    ) as refused:
        adopt(quantized(tmp_path, QuantFormat.QOperator), Stated())

    assert "quant_format=QuantFormat.QDQ" in refused.value.hint
    adopt(quantized(tmp_path, QuantFormat.QDQ), Stated())


@pytest.mark.parametrize(
    ("operator", "value", "said"),
    [
        ("DequantizeLinear", np.nan, "nan"),
        ("DequantizeLinear", np.inf, "inf"),
        ("DequantizeLinear", -0.5, "-0.5"),
        ("QuantizeLinear", 0.0, "0"),
    ],
)
def test_scale_that_is_no_positive_number_is_refused(operator: str, value: float, said: str, tmp_path: Path) -> None:
    file = quantized(tmp_path, QuantFormat.QDQ)
    plant(file, operator, value)

    with pytest.raises(InputError, match=rf"{operator} '.*': scale '.*' is {said} in 1 of \d+ places"):
        adopt(file, Stated())


def test_weights_of_a_dead_channel_may_have_a_step_of_zero(tmp_path: Path) -> None:
    file = quantized(tmp_path, QuantFormat.QDQ)
    plant(file, "DequantizeLinear", 0.0)

    adopt(file, Stated())


@pytest.mark.parametrize(("form", "said"), foreign_grids.REFUSED.items())
def test_grid_that_no_engine_computes_on_is_refused(form: str, said: str, tmp_path: Path) -> None:
    file = foreign_grids.FORMS[form](tmp_path)

    with pytest.raises(InputError, match=rf"Linear '.*' is {said}, which no engine here computes") as refused:
        adopt(file, Stated())

    assert "quantize FLOAT.onnx --int8 --calibration calib/" in refused.value.hint


@pytest.mark.parametrize("form", ["operator set 21, blocks", "ModelOpt, stored weights"])
def test_weights_alone_are_dequantized(form: str, tmp_path: Path) -> None:
    file, x = foreign_grids.weights_alone(foreign_grids.FORMS[form](tmp_path)), foreign_grids.inputs()

    adopted = adopt(file, Stated())

    assert {node.op_type for node in adopted.model.graph}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    assert "9 weights stored as integers are float32: no activation is quantized" in "; ".join(adopted.changes)
    found = small_cnns.computed(ir.serde.serialize_model(adopted.model), x)
    assert metrics.relative_difference(foreign_grids.by_reference(file, x), found) < 1e-5


def plant(file: Path, operator: str, value: float) -> None:
    """Set the first number of the first scale of an operator's last node."""
    model = onnx.load(file)
    divides = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    nodes = [node for node in model.graph.node if node.op_type == operator]
    if operator == "DequantizeLinear":
        nodes = [node for node in nodes if node.input[1] not in divides]
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == nodes[-1].input[1])
    values = numpy_helper.to_array(scale).copy()
    values.reshape(-1)[0] = value
    scale.CopyFrom(numpy_helper.from_array(values, scale.name))
    onnx.save(model, file)
