"""Tests of every pass of the catalogue on the tiny DenseNet: it keeps its promise, and the graph around it."""

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import UnknownNameError
from deploy_kit.graph import onnx_file, passes

EXPORTS = {"static": {}, "open batch": {"dynamic": True}, "torchscript": {"exporter": "torchscript"}}


@pytest.fixture(params=[*EXPORTS, "constants folded"])
def model(request: pytest.FixtureRequest) -> ir.Model:
    """The tiny DenseNet from each exporter as it comes, and with the constants folded that hide a BN from its fold."""
    model = tiny_graphs.exported_model(**EXPORTS.get(request.param, {}))
    if request.param == "constants folded":
        passes.CATALOGUE.get("fold_constants").apply(model)
    return model


@pytest.mark.parametrize("name", passes.CATALOGUE.names())
def test_outputs_stay_within_the_promise_in_float64(name: str, model: ir.Model) -> None:
    entry, x = passes.CATALOGUE.get(name), tiny_graphs.images()
    (before,) = tiny_graphs.evaluate(model, x)

    entry.apply(model)

    (after,) = tiny_graphs.evaluate(tiny_graphs.reread(model), x)
    assert metrics.relative_difference(before, after) <= entry.promise


@pytest.mark.parametrize("name", passes.CATALOGUE.names())
def test_second_application_finds_nothing_left(name: str, model: ir.Model) -> None:
    entry = passes.CATALOGUE.get(name)
    entry.apply(model)

    again = entry.apply(tiny_graphs.reread(model))

    assert again.fired == 0


@pytest.mark.parametrize("name", passes.CATALOGUE.names())
def test_pass_that_fired_nowhere_left_all_operators(name: str, model: ir.Model) -> None:
    entry = passes.CATALOGUE.get(name)
    entry.apply(model)
    before = onnx_file.operators(model)

    entry.apply(model)

    assert onnx_file.operators(model) == before


@pytest.mark.parametrize("name", passes.CATALOGUE.names())
def test_inputs_and_outputs_keep_names_types_and_shapes(name: str, model: ir.Model) -> None:
    before = onnx_file.specs(tuple(model.graph.inputs)), onnx_file.specs(tuple(model.graph.outputs))

    passes.CATALOGUE.get(name).apply(model)

    assert (onnx_file.specs(tuple(model.graph.inputs)), onnx_file.specs(tuple(model.graph.outputs))) == before


@pytest.mark.parametrize("name", passes.CATALOGUE.names())
def test_metadata_of_the_file_stays(name: str, model: ir.Model) -> None:
    before = dict(model.metadata_props)

    passes.CATALOGUE.get(name).apply(model)

    assert model.metadata_props == before


@pytest.mark.parametrize("name", passes.CATALOGUE.names())
def test_graph_never_grows(name: str, model: ir.Model) -> None:
    nodes, macs = onnx_file.nodes(model), onnx_file.macs(model)

    passes.CATALOGUE.get(name).apply(model)

    assert onnx_file.nodes(model) <= nodes
    assert onnx_file.macs(model) <= macs


@pytest.mark.parametrize("name", passes.CATALOGUE.names())
def test_promise_is_small_enough_to_mean_something(name: str) -> None:
    assert 0 <= passes.CATALOGUE.get(name).promise <= 1e-5


def test_evaluator_of_this_contract_notices_a_bias_that_is_off_by_a_thousandth() -> None:
    model, x = tiny_graphs.exported_model(), tiny_graphs.images()
    (before,) = tiny_graphs.evaluate(model, x)
    bias = model.graph.initializers["classifier.bias"]
    array = bias.const_value.numpy().copy()
    array[0] *= np.float32(1.001)
    bias.const_value = ir.tensor(array, name="classifier.bias")

    (after,) = tiny_graphs.evaluate(model, x)

    assert metrics.relative_difference(before, after) > 1e-5


def test_unknown_pass_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no graph pass is called 'fold_batchnorms'") as caught:
        passes.CATALOGUE.get("fold_batchnorms")

    assert caught.value.hint == "did you mean 'fold_batchnorm'?"
