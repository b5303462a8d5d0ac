"""Where channels can go, in any naming; and why not elsewhere."""

from dense_graphs import Sketch
from slim_graphs import resnet

from deploy_kit.slimming import bottlenecks


def found(sketch: Sketch, output: str) -> tuple[list[tuple[int, int]], dict[str, int]]:
    places, refused = bottlenecks.find_bottlenecks(sketch.model(output))
    return [(place.channels, place.macs) for place in places], dict(refused)


def test_each_dense_layer_is_a_place_and_stem_and_last_convolutions_are_none() -> None:
    sketch = Sketch()
    output = sketch.network()

    places, refused = found(sketch, output)

    pixels = 64
    assert places == [(8, pixels * (6 * 8 + 8 * 9 * 4)), (8, pixels * (10 * 8 + 8 * 9 * 4))]
    assert refused == {"Concat reads its channels": 2, "several nodes read its channels": 1}


def test_layers_are_named_as_everywhere() -> None:
    sketch = Sketch()
    output = sketch.network()

    places, _ = bottlenecks.find_bottlenecks(sketch.model(output))

    assert [place.name for place in places] == ["denseblock1.denselayer1", "denseblock1.denselayer2"]


def test_a_resnet_bottleneck_is_a_place_and_what_is_added_is_none() -> None:
    sketch = Sketch()
    output = sketch.head(resnet(sketch, sketch.stem(8)))

    places, refused = found(sketch, output)

    assert [channels for channels, _ in places] == [16]
    assert refused == {"Add reads its channels": 2, "several nodes read its channels": 1}


def test_a_convolution_belongs_to_one_place_and_the_larger_places_come_first() -> None:
    sketch = Sketch()
    x = sketch.conv("x", 5)
    for n in (6, 12):
        x = sketch.conv(sketch.node("Relu", x), n, 3, pad=1)

    places, _ = found(sketch, sketch.head(x))

    assert [channels for channels, _ in places] == [6]


def test_groups_are_refused() -> None:
    sketch = Sketch()
    inner = sketch.node("Relu", sketch.conv("x", 6))
    output = sketch.head(sketch.conv(inner, 6, 3, pad=1, group=3))

    places, refused = found(sketch, output)

    assert places == []
    assert refused == {"its reader has groups or computed weights": 1, "it has groups or computed weights": 1}


def test_an_operator_that_mixes_channels_is_refused() -> None:
    sketch = Sketch()
    output = sketch.conv(sketch.node("Softmax", sketch.conv("x", 6), axis=1), 4)

    places, refused = found(sketch, output)

    assert places == []
    assert refused["Softmax reads its channels"] == 1
