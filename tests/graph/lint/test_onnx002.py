"""Tests of the rule ONNX002 on what operator sets before 14 say by further outputs."""

import onnx_ir as ir
import pytest
import small_cnns

from deploy_kit.graph import lint


@pytest.mark.parametrize("opset", [9, 13, 17])
def test_norm_that_updates_its_statistics_is_found_in_every_operator_set(opset: int) -> None:
    model = ir.serde.deserialize_model(small_cnns.training_norm(opset))

    found = lint.lint_model(model, lint.LintTarget(engine="onnxruntime", version="1.31.1"))

    assert [(one.code, one.node) for one in found] == [("ONNX002", "norm1")]
