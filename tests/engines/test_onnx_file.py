"""The small reader of ONNX files against the package ``onnx``, on graphs of every precision."""

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest

from deploy_kit.engines import _onnx_file

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


@pytest.mark.parametrize("variant", ["fp32", "fp16", "bf16", "int8"])
def test_nodes_and_dtypes_are_those_onnx_reads(line: "Line", variant: str) -> None:
    path = line.store.path(line.graph(variant))
    wanted = onnx.load(path).graph

    found = _onnx_file.read(path)

    assert [(node.op_type, list(node.inputs)) for node in found.nodes] == [
        (node.op_type, list(node.input)) for node in wanted.node
    ]
    assert found.dtypes == {tensor.name: tensor.data_type for tensor in wanted.initializer}


def test_fields_of_every_wire_type_are_passed_over(tmp_path: Path) -> None:
    attributes = {"a": 1, "f": 0.5, "long": [1 << 40, -1], "text": "x" * 300, "numbers": [0.1, 0.2]}
    node = onnx.helper.make_node("Own", ["x", ""], ["y"], domain="own", **attributes)
    graph = onnx.helper.make_graph([node], "g", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "own.onnx")

    found = _onnx_file.read(tmp_path / "own.onnx")

    assert found.nodes == (_onnx_file.Node(op_type="Own", inputs=("x", "")),)
