"""Regions found by structure, held against the module paths that torch's exporters write into names."""

import re
from collections import Counter

import onnx_ir as ir
import pytest
import tiny_graphs
from dense_graphs import FORMS, Sketch, quantized

from deploy_kit.graph import layer_location


def by_path(name: str) -> str:
    """Read a region from torch's module path, e.g. ``features.denseblock1.denselayer2.conv1``."""
    found = re.search(r"(denseblock|transition)(\d)", name)
    if found:
        return f"{found[1].removeprefix('dense')} {found[2]}"
    return "stem" if "conv0" in name or "pool0" in name else "head"


def convolutions(model: ir.Model) -> Counter[str]:
    """Count convolutions by region."""
    places = layer_location.locations(model)
    return Counter(places[node.outputs[0].name].region for node in model.graph if node.op_type == "Conv")


@pytest.mark.parametrize("dynamic", [False, True])
def test_convolutions_stand_where_their_weights_come_from(dynamic: bool) -> None:
    model = tiny_graphs.exported_model(dynamic=dynamic)
    places = layer_location.locations(model)

    for node in model.graph:
        if node.op_type == "Conv":
            assert places[node.name].region == by_path(node.inputs[1].name)


def test_every_node_of_a_module_stands_where_its_path_says() -> None:
    model = tiny_graphs.exported_model("torchscript")
    places = layer_location.locations(model)

    inside = [node for node in model.graph if "denselayer" in node.name or "transition" in node.name]
    assert len(inside) == 24
    assert [places[node.name].region for node in inside] == [by_path(node.name) for node in inside]


def test_passes_leave_every_convolution_in_its_region() -> None:
    assert convolutions(tiny_graphs.simplified_model()) == convolutions(tiny_graphs.exported_model())


@pytest.mark.parametrize("form", FORMS)
def test_quantizing_leaves_the_blocks(form: str) -> None:
    sketch = Sketch()
    model = sketch.model(sketch.network())
    scheme, options = FORMS[form]
    wanted = convolutions(model)

    found = quantized(model, sketch.images(8), scheme, **options)

    places = layer_location.locations(found)
    work = Counter(places[n.outputs[0].name].region for n in found.graph if layer_location.kind_of(n) == "conv")
    assert {region: n for region, n in work.items() if n} == dict(wanted)


def test_new_channels_may_come_first() -> None:
    sketch = Sketch()
    block = sketch.block(sketch.stem(), 3, new_first=True)

    assert convolutions(sketch.model(sketch.head(sketch.norm(block)))) == {"stem": 1, "block 1": 6}


def test_a_block_of_one_layer_is_a_block() -> None:
    sketch = Sketch()
    first = sketch.block(sketch.stem(), 1)
    second = sketch.block(sketch.conv(sketch.norm(first), 6), 1)

    found = convolutions(sketch.model(sketch.head(sketch.norm(second))))

    assert found == {"stem": 1, "block 1": 2, "transition 1": 1, "block 2": 2}


def test_concatenations_that_list_every_map_are_one_block() -> None:
    sketch = Sketch()
    maps = [sketch.stem()]
    for _ in range(3):
        joined = sketch.concat(*maps) if len(maps) > 1 else maps[0]
        maps.append(sketch.layer(joined))

    found = convolutions(sketch.model(sketch.head(sketch.norm(sketch.concat(*maps)))))

    assert found == {"stem": 1, "block 1": 6}


def test_a_head_that_joins_two_pools_is_no_block() -> None:
    sketch = Sketch()
    last = sketch.norm(sketch.block(sketch.stem()))
    joined = sketch.concat(sketch.node("GlobalAveragePool", last), sketch.node("GlobalMaxPool", last))
    model = sketch.model(sketch.node("Flatten", joined))

    places = layer_location.locations(model)

    assert {place.region for place in places.values()} == {"stem", "block 1", "head"}
    assert places[joined].region == "head"


def test_without_a_dense_block_nothing_has_a_region() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.head(sketch.norm(sketch.stem())))

    assert {place.region for place in layer_location.locations(model).values()} == {"unknown"}


def test_weights_on_their_way_stand_where_they_are_used() -> None:
    sketch = Sketch()
    model = quantized(sketch.model(sketch.network()), sketch.images(8))
    places = layer_location.locations(model)

    for node in model.graph:
        for value in node.inputs[1:2] if node.op_type == "Conv" else ():
            weight = value.producer()
            assert weight is not None
            assert places[weight.name].region == places[node.name].region


def test_a_name_that_two_regions_share_is_left_out() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.network())
    for node in model.graph:
        node.name = "same"

    places = layer_location.locations(model)

    assert "same" not in places
    assert len(places) == len(tuple(model.graph))


@pytest.mark.parametrize(
    ("kernel", "group", "strides", "kind"),
    [(1, 1, [1, 1], "conv"), (1, 6, [1, 1], "bn_relu"), (2, 6, [2, 2], "pool"), (3, 6, [1, 1], "conv")],
)
def test_depthwise_convolutions_are_called_what_they_stand_for(
    kernel: int, group: int, strides: list[int], kind: str
) -> None:
    sketch = Sketch()
    model = sketch.model(sketch.conv(sketch.stem(), 6, kernel, group=group, strides=strides))

    assert layer_location.kind_of(list(model.graph)[-1]) == kind


def test_a_relu_is_traced_to_the_work_it_ends() -> None:
    sketch = Sketch()
    behind_norm = sketch.norm(sketch.stem())
    behind_conv = sketch.node("Relu", sketch.conv(behind_norm, 4))
    places = layer_location.locations(sketch.model(behind_conv, behind_norm))

    assert (places[behind_conv].made_by, places[behind_norm].made_by) == ("conv", "bn_relu")
