"""What can be compared, how it is found, and what is refused; and real engines in workers of their own."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir
import pytest
import tiny_graphs
import torch
from command_line import deploykit
from dense_graphs import Sketch
from planted import weights_of
from segmentation_networks import made, state
from stage_inputs import images_of

from deploy_kit.analysis import difference
from deploy_kit.analysis.difference import points
from deploy_kit.base.errors import BuildError, InputError, RequestError, UnknownNameError
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.engines import CATALOGUE
from deploy_kit.graph import onnx_file, passes
from deploy_kit.graph.channel_affine import UNITS_KEY
from deploy_kit.records.artifacts import Artifact
from deploy_kit.store import Store

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from planted import Find, Forms
    from tiny_line import Line

pytest_plugins = ["small_forms", "tiny_line"]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "reference"])
def test_an_engine_shows_what_is_within_it(engine: str, line: "Line") -> None:
    built = line.built("fp32", engine)
    pair = [difference.find_subject(name, line.store, line.recipe.source) for name in ("checkpoint", built.label)]

    found, _ = difference.find_difference(
        *pair, Context(store=line.store, connection=line.connection), images=images_of(line.recipe.check.images)
    )

    assert found.computed_by == ("torch", engine)
    assert found.part == ""
    assert len(found.points) == 12
    assert all(row.undisturbed_db == math.inf for row in found.points)


def test_openvino_says_that_a_tensor_is_not_there(line: "Line") -> None:
    path = line.store.path(line.built("fp32", "openvino"))
    observe, options = CATALOGUE.get("openvino").observe, CATALOGUE.get("openvino").options()
    assert observe is not None

    with pytest.raises(BuildError, match="OpenVINO finds no tensor to observe: "):
        next(observe(path, options, ("nowhere",), [line.inputs()[:1]]))


def test_int8_of_two_engines_is_the_same(line: "Line") -> None:
    labels = [line.built("int8", engine).label for engine in ("onnxruntime", "openvino")]
    pair = [difference.find_subject(label.replace(" · ", " "), line.store, line.recipe.source) for label in labels]

    found, _ = difference.find_difference(
        *pair, Context(store=line.store, connection=line.connection), images=images_of(line.recipe.check.images)
    )

    assert [found.first, found.second] == labels
    assert found.part == ""


def test_unknown_name_lists_what_is_there(line: "Line") -> None:
    with pytest.raises(UnknownNameError, match=r"no file, engine or graph of .* is called 'fp23'") as caught:
        difference.find_subject("fp23", line.store, line.recipe.source)

    assert caught.value.hint == "did you mean 'fp32'?"


def test_engine_without_a_graph_is_refused(line: "Line", store: Store, tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net/>")

    with pytest.raises(InputError, match=r"model.xml: an engine of which .* has no graph") as caught:
        difference.find_subject(str(tmp_path / "model.xml"), store, line.recipe.source)

    assert caught.value.hint == "build it here, and give its label"


def test_engine_whose_graph_is_gone_is_refused(line: "Line", kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    label = line.built("fp32", "openvino").label
    monkeypatch.setattr(line.store, "all", lambda cls, stage: Store.all(line.store, cls, stage) * (stage == "build"))

    with pytest.raises(InputError, match="the graph it was built from is gone"):
        difference.find_subject(label, line.store, line.recipe.source)


def test_engine_that_shows_nothing_names_its_graph(line: "Line", monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Artifact(**vars(line.built("fp32", "onnxruntime")) | {"engine": "tensorrt"})
    monkeypatch.setattr(line.store, "all", lambda cls, stage: [engine] * (stage == "build"))

    with pytest.raises(RequestError, match="engine 'tensorrt' does not show what is within it") as caught:
        difference.find_subject(engine.label, line.store, line.recipe.source)

    assert caught.value.hint == f"compare its graph, which ONNX Runtime computes: '{engine.name}'"


def test_two_networks_are_refused(forms: "Forms", store: Store, tmp_path: Path, connection: Connection) -> None:
    other = tmp_path / "tiny.onnx"
    onnx_file.save(tiny_graphs.simplified_model(), other)
    pair = [
        difference.find_subject(str(file), store, forms.recipe.source) for file in (forms.file("simplified"), other)
    ]

    with pytest.raises(InputError, match="not forms of one network: they have 14 and 8 convolutions in dense blocks"):
        difference.find_difference(
            *pair, Context(store=store, connection=connection), images=images_of(forms.recipe.check.images)
        )


def test_other_inputs_are_refused(forms: "Forms", store: Store, tmp_path: Path, connection: Connection) -> None:
    sketch = Sketch()
    onnx_file.save(sketch.model(sketch.network()), tmp_path / "sketch.onnx")
    files = (forms.file("simplified"), tmp_path / "sketch.onnx")
    pair = [difference.find_subject(str(file), store, forms.recipe.source) for file in files]

    with pytest.raises(InputError, match=r"model\.onnx and sketch\.onnx take other inputs: 1×16×16 and 3×8×8"):
        difference.find_difference(
            *pair, Context(store=store, connection=connection), images=images_of(forms.recipe.check.images)
        )


def test_equalized_file_without_units_is_refused(forms: "Forms") -> None:
    model = onnx_file.load(forms.file("portable"))
    del model.metadata_props[UNITS_KEY]

    with pytest.raises(InputError, match="a file: it is equalized, and does not say in which units its numbers are"):
        points.points_of(model, "a file")


def test_plain_layers_are_points_by_their_own_name() -> None:
    sketch = Sketch()
    x = sketch.stem()
    for _ in range(2):
        x = sketch.concat(x, sketch.conv(sketch.norm(x), 4, 3, pad=1))

    found = points.points_of(sketch.model(sketch.head(sketch.norm(x))), "plain")

    layers = ["denseblock1.denselayer1", "denseblock1.denselayer2"]
    assert [point.name for point in found] == ["stem", *layers, "features", "logits"]


def test_without_dense_blocks_values_of_one_name_are_compared(store: Store, tmp_path: Path, forms: "Forms") -> None:
    sketch = Sketch()
    x = sketch.node("Relu", sketch.conv(sketch.node("Relu", sketch.stem()), 6, 3, pad=1))
    flat = sketch.node("Flatten", sketch.node("Relu", x))
    weight = sketch.constant(np.ones((6 * 64, 5)) / 100)
    model = sketch.model(sketch.node("Gemm", flat, weight, sketch.constant(np.zeros(5))))
    onnx_file.save(model, tmp_path / "one.onnx")
    for node in model.graph:
        if node.op_type == "Conv":
            node.outputs[0].name = f"other {node.outputs[0].name}"
    onnx_file.save(model, tmp_path / "other.onnx")

    alike = forms.difference(tmp_path / "one.onnx", tmp_path / "one.onnx", store)
    renamed = forms.difference(tmp_path / "one.onnx", tmp_path / "other.onnx", store)

    assert [row.point for row in alike.points][-1] == "logits"
    assert len(alike.points) == 3
    assert [row.point for row in renamed.points] == ["logits"]
    assert renamed.verdict.endswith("no dense block was found in it: the logits alone were compared")


def test_a_norm_that_was_folded_into_its_convolution_is_no_difference(
    store: Store, tmp_path: Path, forms: "Forms"
) -> None:
    sketch = Sketch()
    x = sketch.node("Relu", sketch.norm(sketch.conv(sketch.node("Relu", sketch.stem()), 6, 3, pad=1)))
    x = sketch.norm(sketch.conv(x, 6, 3, pad=1))
    flat = sketch.node("Flatten", x)
    weight = sketch.constant(np.ones((6 * 64, 5)) / 100)
    model = sketch.model(sketch.node("Gemm", flat, weight, sketch.constant(np.zeros(5))))
    onnx_file.save(model, tmp_path / "norms.onnx")
    assert passes.CATALOGUE.get("fold_batchnorm").apply(model).fired == 2
    onnx_file.save(model, tmp_path / "folded.onnx")

    found = forms.difference(tmp_path / "norms.onnx", tmp_path / "folded.onnx", store)

    assert len(found.points) == 4
    assert (found.part, found.unlike) == ("", ())


def test_sizes_that_an_exporter_concatenates_are_no_block(tmp_path: Path) -> None:
    sketch = Sketch()
    x = sketch.stem()
    joined = sketch.concat(x, sketch.conv(sketch.norm(x), 4, 3, pad=1))
    model = sketch.model(sketch.head(sketch.norm(joined)))
    concat = next(node for node in model.graph if node.op_type == "Concat")

    assert not points._one_axis(concat)
    concat.inputs[0].shape = onnx_ir.Shape([4])
    assert points._one_axis(concat)


def test_command_names_the_layer_and_ends_with_0(forms: "Forms", tmp_path: Path) -> None:
    def fault(proto: onnx.ModelProto, find: "Find") -> None:
        name = weights_of(proto, find("denseblock2.denselayer2.conv2"))[1]
        tensor = next(one for one in proto.graph.initializer if one.name == name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(4 * onnx.numpy_helper.to_array(tensor), name))

    files, store = (forms.file("simplified"), forms.faulty("portable", fault)), tmp_path / "store"
    said = deploykit("check", "--layers", *files, "--store", store, "--images", forms.recipe.check.images)
    record = deploykit("check", "--layers", *files, "--store", store, "--images", forms.recipe.check.images, "--json")

    assert said.code == record.code == 0, said.err
    assert "verdict  they part at denseblock2.denselayer2.conv2: " in said.out
    assert "denseblock2.denselayer2.conv2 ←" in said.out
    assert "the ends of blocks, and the layers of the block that is off" in said.out
    assert '"part": "denseblock2.denselayer2.conv2"' in record.out


def test_command_says_that_a_healthy_pair_is_one(line: "Line", kept: Store) -> None:
    said = deploykit("check", "--layers", "checkpoint", "fp32", "--store", kept.root)

    assert said.code == 0, said.err
    assert "verdict  no place: they differ by float's own rounding, " in said.out


def test_checkpoint_with_a_decoder_is_compared_by_its_graph(tmp_path: Path, store: Store, line: "Line") -> None:
    torch.save(state(made()), tmp_path / "net.pth")

    with pytest.raises(InputError, match="a checkpoint with a decoder") as refused:
        difference.find_subject(str(tmp_path / "net.pth"), store, line.recipe.source)

    assert "'exported'" in refused.value.hint
