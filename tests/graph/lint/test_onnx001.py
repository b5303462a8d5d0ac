"""Tests of the rule ONNX001: one protobuf message ends at 2 GiB."""

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import lint


def model(tensor: ir.TensorProtocol) -> ir.Model:
    value = ir.Value(name="w", const_value=tensor, shape=tensor.shape, type=ir.TensorType(ir.DataType.FLOAT))
    return ir.Model(ir.Graph([], [], nodes=[], initializers=[value], opset_imports={"": 17}), ir_version=8)


def test_weights_of_two_gibibytes_are_too_much_for_one_file() -> None:
    large = ir.Tensor(np.broadcast_to(np.float32(0), (2**29,)), name="w")  # no memory behind it

    found = lint.lint_model(model(large), lint.LintTarget(engine="onnxruntime"))

    assert [(f.code, f.text) for f in found] == [("ONNX001", "the weights inside the file hold 2.0 GiB")]


def test_weights_below_two_gibibytes_are_not() -> None:
    small = ir.Tensor(np.broadcast_to(np.float32(0), (2**29 - 1,)), name="w")

    assert lint.lint_model(model(small), lint.LintTarget(engine="onnxruntime")) == ()
