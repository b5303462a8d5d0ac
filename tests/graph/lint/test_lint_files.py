"""Lint as a library: files, targets, what the schemes write, and the graphs that rules must leave alone."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from lint_graphs import Case, extremum, graph, reshape

from deploy_kit.base.errors import InputError, UnknownNameError
from deploy_kit.base.versions import INTEGER_MAXIMUM
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


def test_an_engine_without_rules_of_its_own_is_a_target() -> None:
    assert lint.parse_target("somebodys:2", ("onnxruntime", "somebodys")) == lint.LintTarget(
        engine="somebodys", version="2"
    )


def test_all_is_no_target() -> None:
    with pytest.raises(UnknownNameError, match="no target is called 'all'"):
        lint.parse_target("all")


def test_rules_for_every_engine_hold_for_one_of_a_third_party() -> None:
    rules = {name for name in lint.CATALOGUE.names() if lint.CATALOGUE.get(name).concerns("somebodys")}

    assert {"onnx001", "onnx002"} <= rules
    assert not rules & {"trt001", "ort001", "ov001", "dla001"}


def test_what_a_graph_asks_of_a_runtime_is_said_by_its_rule() -> None:
    plain, integers = (
        graphs.ir.serde.deserialize_model(Case("", text).proto())
        for text in (graph("y = Relu(x)"), extremum("Max", "uint8"))
    )

    assert lint.needs(graphs.reread(plain)) == ()
    assert lint.needs(graphs.reread(integers)) == ((f"onnxruntime>={INTEGER_MAXIMUM}", "maximum of integers"),)


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
    case = Case("the rest behind", reshape("1,-1"), "error")
    session = onnxruntime.InferenceSession(case.proto().SerializeToString(), providers=["CPUExecutionProvider"])

    made = session.run(None, {"x": np.zeros((2, 4, 8, 8), np.float32)})[0]

    model = graphs.reread(graphs.ir.serde.deserialize_model(case.proto()))
    found = [f.code for f in lint.lint_model(model, lint.LintTarget(engine="tensorrt"))]
    assert (made.shape, found) == ((1, 512), ["TRT003"])


def test_the_table_has_a_row_for_each_rule_by_code() -> None:
    heading, line, *rows = lint.rules_table().splitlines()

    assert heading == "| code | level | targets | finds | cure | source |"
    assert line.count("|") == heading.count("|")
    assert [row.split("`")[1] for row in rows] == [name.upper() for name in lint.CATALOGUE.names()]


def test_the_table_names_targets_in_short() -> None:
    targets = {row.split(" | ")[0]: row.split(" | ")[2] for row in lint.rules_table().splitlines()[2:]}

    assert targets["| `TRT001`"] == "TensorRT's"
    assert targets["| `ONNX001`"] == "all"
    assert targets["| `TRT005`"] == "tensorrt, dla"
