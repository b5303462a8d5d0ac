"""Lint as a library: files, targets, what the schemes write, and the graphs that rules must leave alone."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from lint_graphs import Case, graph, reshape

from deploy_kit.base.errors import InputError, UnknownNameError
from deploy_kit.graph import lint
from deploy_kit.graph import onnx_file as graphs

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def test_a_file_beyond_two_gibibytes_is_a_finding_and_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # a hole: no disk behind it

    found = lint.lint_file(path, lint.LintTarget(engine="tensorrt"))

    assert [(f.code, f.level, f.text) for f in found] == [("ONNX001", "error", "the file holds 2.0 GiB")]
    assert "external data" in found[0].cure


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        lint.lint_file(tmp_path / "none.onnx", lint.LintTarget(engine="tensorrt"))


def test_a_target_may_name_its_version() -> None:
    assert lint.parse_target("tensorrt:10.3") == lint.LintTarget(engine="tensorrt", version="10.3")


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no target is called 'tensort'") as caught:
        lint.parse_target("tensort:10")

    assert caught.value.hint == "did you mean 'tensorrt'?"


def test_an_engine_of_a_third_party_has_no_rules() -> None:
    model = graphs.ir.serde.deserialize_model(Case("", "", graph("y = Relu(x)")).proto())

    assert lint.lint_model(model, lint.LintTarget(engine="somebody's")) == ()


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16", "int8-symmetric"])
def test_what_is_made_for_tensorrt_has_no_error(line: "Line", name: str) -> None:
    found = lint.lint_file(
        line.store.path(line.graph(name)), lint.LintTarget(engine="tensorrt_rtx", version="1.7.1.116")
    )

    assert [str(finding) for finding in found if finding.level == "error"] == []


def test_a_half_precision_graph_carries_the_ranges_that_were_seen(line: "Line") -> None:
    found = lint.lint_file(line.store.path(line.graph("fp16")), lint.LintTarget(engine="tensorrt"))

    assert [finding for finding in found if finding.code == "TRT004"] == []


def test_a_reshape_to_1_with_the_rest_behind_folds_the_batch_into_it(tmp_path: Path) -> None:
    case = Case("trt003", "the rest behind", reshape("1,-1"), "error")
    session = onnxruntime.InferenceSession(case.proto().SerializeToString(), providers=["CPUExecutionProvider"])

    made = session.run(None, {"x": np.zeros((2, 4, 8, 8), np.float32)})[0]

    model = graphs.reread(graphs.ir.serde.deserialize_model(case.proto()))
    found = [f.code for f in lint.lint_model(model, lint.LintTarget(engine="tensorrt"))]
    assert (made.shape, found) == ((1, 512), ["TRT003"])
