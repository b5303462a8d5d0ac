"""Coordinates found by structure, held against the module paths that torch's exporters write into names."""

import re

import onnx_ir as ir
import pytest
import tiny_graphs
from dense_graphs import FORMS, Sketch, quantized

from deploy_kit.base.errors import UnknownNameError
from deploy_kit.graph import layer_location, layer_names

TINY = [
    "stem", "denseblock1.denselayer1", "denseblock1.denselayer2", "transition1", "denseblock2.denselayer1",
    "denseblock2.denselayer2", "head",
]  # fmt: skip


def by_path(name: str) -> str:
    """Read a coordinate from torch's module path, e.g. ``features.denseblock1.denselayer2.conv1.weight``."""
    found = re.search(r"(denseblock\d+\.denselayer\d+|transition\d+)", name)
    return found[1] if found else "stem" if "conv0" in name or "pool0" in name else "head"


def names(model: ir.Model) -> list[str]:
    return [group.name for group in layer_names.layer_groups(model)]


def works(model: ir.Model) -> dict[str, int]:
    """Count the nodes with weights by coordinate."""
    return {group.name: len(group.weighted) for group in layer_names.layer_groups(model)}


@pytest.mark.parametrize("dynamic", [False, True])
def test_weights_stand_where_torch_says(dynamic: bool) -> None:
    model = tiny_graphs.exported_model(dynamic=dynamic)

    for group in layer_names.layer_groups(model):
        assert group.weighted
        assert {by_path(str(node.inputs[1].name)) for node in group.weighted if node.inputs[1]} == {group.name}


def test_every_node_of_a_module_stands_where_its_path_says() -> None:
    model = tiny_graphs.exported_model("torchscript")
    found = {node: group.name for group in layer_names.layer_groups(model) for node in group.nodes}

    inside = [node for node in model.graph if re.search(r"denselayer\d+/|transition\d+/", str(node.name))]
    wanted = {
        node: found[node] for node in inside if node.op_type != "Concat"
    }  # torch puts a concatenation before the layer that reads it
    assert len(wanted) == 24
    assert all(by_path(str(node.name).replace("/", ".").replace("..", ".")) == name for node, name in wanted.items())


@pytest.mark.parametrize(
    "model",
    [tiny_graphs.exported_model, lambda: tiny_graphs.exported_model("torchscript"), tiny_graphs.simplified_model],
)
def test_a_network_has_the_same_groups_in_every_graph(model) -> None:  # type: ignore[no-untyped-def]
    assert names(model()) == TINY


@pytest.mark.parametrize("form", FORMS)
def test_a_quantized_graph_has_the_groups_of_its_float_graph(form: str) -> None:
    sketch = Sketch()
    model = sketch.model(sketch.network())
    scheme, options = FORMS[form]
    wanted = works(model)

    assert works(quantized(model, sketch.images(8), scheme, **options)) == wanted


@pytest.mark.parametrize("new_first", [False, True])
def test_layers_are_numbered_in_their_order(new_first: bool) -> None:
    sketch = Sketch()
    model = sketch.model(sketch.head(sketch.norm(sketch.block(sketch.stem(), 11, new_first=new_first))))

    assert names(model) == ["stem", *(f"denseblock1.denselayer{n}" for n in range(1, 12)), "head"]


def test_concatenations_that_list_every_map_give_the_same_layers() -> None:
    sketch = Sketch()
    maps = [sketch.stem()]
    for _ in range(3):
        maps.append(sketch.layer(sketch.concat(*maps) if len(maps) > 1 else maps[0]))
    model = sketch.model(sketch.head(sketch.norm(sketch.concat(*maps))))

    assert works(model) == {"stem": 1, **{f"denseblock1.denselayer{n}": 2 for n in (1, 2, 3)}, "head": 1}


def test_a_layer_begins_with_its_norm_and_ends_with_its_concatenation() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.network())

    second = layer_names.layer_groups(model)[2]

    wanted = ["BatchNormalization", "Relu", "Conv", "Relu", "Conv", "Concat"]
    assert [node.op_type for node in second.nodes] == wanted


def test_parts_of_a_layer_are_its_two_convolutions_each_with_what_stands_before_it() -> None:
    sketch = Sketch()
    first, second = layer_names.layer_groups(sketch.model(sketch.network()))[1].parts

    assert (first.name, second.name) == ("denseblock1.denselayer1.conv1", "denseblock1.denselayer1.conv2")
    assert [node.op_type for node in first.nodes] == ["BatchNormalization", "Relu", "Conv"]
    assert [node.op_type for node in second.nodes] == ["Relu", "Conv", "Concat"]
    assert layer_names.layer_groups(sketch.model(sketch.network()))[0].parts == ()


def test_without_a_dense_block_each_node_with_weights_is_a_group() -> None:
    sketch = Sketch()
    stem = sketch.stem()
    model = sketch.model(sketch.head(sketch.norm(sketch.conv(sketch.norm(stem), 4))))

    found = layer_names.layer_groups(model)

    assert [group.by_structure for group in found] == [False] * 3
    assert [len(group.weighted) for group in found] == [1, 1, 1]
    assert found[0].name == stem
    assert [node.op_type for node in found[1].nodes] == ["BatchNormalization", "Relu", "Conv"]


def test_a_coordinate_of_a_block_stands_for_its_layers() -> None:
    known = layer_names.layer_groups(tiny_graphs.exported_model())

    found = layer_names.find_groups(known, ["denseblock2", "stem", "denseblock1.denselayer2.conv1"])

    wanted = ["stem", "denseblock1.denselayer2.conv1", "denseblock2.denselayer1", "denseblock2.denselayer2"]
    assert [group.name for group in found] == wanted


def test_an_unknown_coordinate_names_the_nearest() -> None:
    known = layer_names.layer_groups(tiny_graphs.exported_model())

    with pytest.raises(UnknownNameError, match="no layer group") as caught:
        layer_names.find_groups(known, ["denseblok1.denselayer1"])

    assert str(caught.value) == "no layer group is called 'denseblok1.denselayer1' here"
    assert caught.value.hint == "did you mean 'denseblock1.denselayer1'?"


def test_places_tell_the_coordinate_for_nodes_and_values() -> None:
    model = tiny_graphs.exported_model()
    places = layer_names.named_locations(model)

    for node in model.graph:
        if layer_location.kind_of(node) == "conv":
            assert (
                places[str(node.name)].region
                == places[str(node.outputs[0].name)].region
                == by_path(str(node.inputs[1].name))
            )
