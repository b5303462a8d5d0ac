"""Tests of the pass `remove_unused`: what no output reads goes, and the exporter's notes with it."""

import numpy as np
import onnx_ir as ir
import tiny_graphs

from deploy_kit.graph.passes import remove_unused


def test_node_that_no_output_reads_is_removed() -> None:
    model = tiny_graphs.parse("g (float[4] x) => (float[4] y) { y = Relu(x) a = Neg(x) b = Neg(a) }")

    outcome = remove_unused.apply(model)

    assert tiny_graphs.operators(model) == ["Relu"]
    assert outcome.fired == 2


def test_weight_that_no_node_reads_is_removed() -> None:
    model = tiny_graphs.parse("g (float[4] x) => (float[4] y) { y = Add(x, used) }", used=np.ones(4), unused=np.ones(4))

    outcome = remove_unused.apply(model)

    assert list(model.graph.initializers) == ["used"]
    assert outcome.fired == 1


def test_input_that_nothing_reads_stays() -> None:
    model = tiny_graphs.parse("g (float[4] x, float[4] other) => (float[4] y) { y = Relu(x) }")

    remove_unused.apply(model)

    assert [value.name for value in model.graph.inputs] == ["x", "other"]


def test_operator_set_that_no_node_uses_is_removed() -> None:
    model = tiny_graphs.parse("g (float[4] x) => (float[4] y) { y = Relu(x) }")
    model.opset_imports["com.example"] = 1

    remove_unused.apply(model)

    assert model.opset_imports == {"": 18}


def test_notes_on_nodes_go_and_the_models_own_metadata_stays() -> None:
    model = tiny_graphs.parse("g (float[4] x) => (float[4] y) { y = Relu(x) }")
    model.metadata_props["deploykit.preprocess"] = "{}"
    node: ir.Node = model.graph[0]
    node.metadata_props["pkg.torch.onnx.stack_trace"] = "File model.py, line 3"
    node.doc_string = "line 3"

    remove_unused.apply(model)

    assert model.metadata_props == {"deploykit.preprocess": "{}"}
    assert (node.metadata_props, node.doc_string) == ({}, None)


def test_graph_in_full_use_is_left_as_it_is() -> None:
    model = tiny_graphs.parse("g (float[4] x) => (float[4] y) { y = Add(x, w) }", w=np.ones(4))

    outcome = remove_unused.apply(model)

    assert (outcome.fired, len(model.graph), list(model.graph.initializers)) == (0, 1, ["w"])
