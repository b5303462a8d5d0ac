"""Which activations share one grid, and which nodes belong to the node before them."""

import numpy as np
import onnx_ir as ir
import pytest
from dense_graphs import Sketch, nodes, value

from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.scale_groups import ScaleGroup


def group_of(model: ir.Model, name: str) -> ScaleGroup | None:
    return grouping.find_scale_groups(model).of.get(value(model, name))


def together(model: ir.Model, *members: str) -> bool:
    """Whether activations share one group."""
    groups = grouping.find_scale_groups(model).of
    return len({id(groups[value(model, name)]) for name in members}) == 1


def names(values: tuple[ir.Value, ...]) -> set[str]:
    return {str(v.name) for v in values}


def test_a_dense_block_is_one_group_with_every_layers_map_as_a_source() -> None:
    sketch = Sketch()
    stem = sketch.stem()
    one = sketch.layer(stem)
    first = sketch.concat(stem, one)
    two = sketch.layer(first)
    second = sketch.concat(first, two)
    model = sketch.model(sketch.head(sketch.norm(second)))

    group = group_of(model, second)

    assert group is not None
    assert names(group.values) == {stem, one, first, two, second}
    assert (names(group.sources), group.concats) == ({stem, one, two}, 2)


def test_two_blocks_have_two_groups_and_the_pool_belongs_to_the_second() -> None:
    sketch = Sketch()
    block = sketch.block(sketch.stem())
    reduced = sketch.conv(sketch.norm(block), 6)
    pool = sketch.node("AveragePool", reduced, kernel_shape=[2, 2], strides=[2, 2])
    model = sketch.model(sketch.head(sketch.norm(sketch.block(pool))))

    assert together(model, pool, reduced)
    assert not together(model, block, pool)


@pytest.mark.parametrize(
    "limit", [0.5, [[[[0.5]]]], [[[[1.0]], [[2.0]], [[3.0]], [[4.0]]]]], ids=["scalar", "one", "per channel"]
)
def test_a_maximum_against_constants_keeps_the_grid(limit: object) -> None:
    sketch = Sketch()
    stem = sketch.stem(4)
    top = sketch.node("Max", stem, sketch.constant(limit))
    model = sketch.model(sketch.conv(top, 3))

    assert together(model, top, stem)


@pytest.mark.parametrize("wrong", ["per pixel", "of two activations", "constant first"])
def test_any_other_maximum_does_not(wrong: str) -> None:
    sketch = Sketch()
    stem = sketch.stem(4)
    pixels = sketch.constant([[[list(range(8))]]])
    inputs = {
        "per pixel": (stem, pixels),
        "of two activations": (stem, sketch.stem(4)),
        "constant first": (pixels, stem),
    }
    top = sketch.node("Max", *inputs[wrong], channels=4)
    model = sketch.model(sketch.conv(top, 3))

    group = group_of(model, top)

    assert group is not None
    assert names(group.values) == {top}


def test_a_relu_behind_a_convolution_alone_belongs_to_it() -> None:
    sketch = Sketch()
    c = sketch.stem()
    relu = sketch.node("Relu", c)
    model = sketch.model(sketch.conv(relu, 3))
    conv, node = nodes(model, "Conv")[0], nodes(model, "Relu")[0]

    assert (grouping.fused_into(node), grouping.fused_relu(conv)) == (conv, node)
    assert group_of(model, c) is None
    assert names(group_of(model, relu).sources) == {relu}


def test_a_relu_beside_another_reader_moves_values() -> None:
    sketch = Sketch()
    c = sketch.stem()
    model = sketch.model(sketch.conv(sketch.node("Relu", c, output="r"), 3), sketch.conv(c, 3))

    assert grouping.fused_into(nodes(model, "Relu")[0]) is None
    assert together(model, "r", c)


def test_a_relu_behind_a_pool_moves_values() -> None:
    sketch = Sketch()
    pool = sketch.node("MaxPool", sketch.stem(), kernel_shape=[2, 2])
    model = sketch.model(sketch.conv(sketch.node("Relu", pool, output="r"), 3))

    assert grouping.shares_grid(nodes(model, "Relu")[0])


def test_a_relu_of_a_value_that_is_an_output_is_not_fused() -> None:
    sketch = Sketch()
    c = sketch.stem()
    model = sketch.model(sketch.conv(sketch.node("Relu", c), 3), c)

    assert grouping.fused_into(nodes(model, "Relu")[0]) is None


def test_a_relu_of_a_second_output_does_not_belong_to_the_node() -> None:
    sketch = Sketch()
    c = sketch.stem()
    sketch.lines.append(f"p, q = Split<axis = 1, num_outputs = 2>({c})")
    sketch.n_channels |= {"p": 3, "q": 3}
    model = sketch.model(sketch.conv(sketch.concat("p", sketch.node("Relu", "q")), 3))

    assert grouping.fused_into(nodes(model, "Relu")[0]) is None
    assert names(group_of(model, "q").sources) == {"p", "q"}


@pytest.mark.parametrize(("axis", "moves"), [(1, True), (-3, True), (2, False), (-1, False)])
def test_only_concatenations_of_channels_keep_the_grid(axis: int, moves: bool) -> None:
    sketch = Sketch()
    whole = sketch.node("Concat", sketch.stem(), sketch.stem(), axis=axis)
    model = sketch.model(whole)

    assert grouping.shares_grid(nodes(model, "Concat")[0]) is moves


def test_a_concatenation_with_a_constant_is_computed() -> None:
    sketch = Sketch()
    whole = sketch.node("Concat", sketch.stem(), sketch.constant(np.ones((1, 2, 8, 8))), axis=1, channels=8)
    model = sketch.model(sketch.conv(whole, 3))

    group = group_of(model, whole)

    assert group is not None
    assert names(group.sources) == {whole}


def test_a_max_pool_that_gives_indices_too_is_computed() -> None:
    sketch = Sketch()
    sketch.lines.append(f"p, i = MaxPool<kernel_shape = [2, 2]>({sketch.stem()})")
    sketch.n_channels["p"] = 6
    model = sketch.model(sketch.conv("p", 3))

    assert not grouping.shares_grid(nodes(model, "MaxPool")[0])


def test_what_no_integer_node_reads_has_no_group() -> None:
    sketch = Sketch()
    c = sketch.stem()
    model = sketch.model(sketch.node("Sigmoid", c, output="y"))

    assert group_of(model, c) is None
    assert group_of(model, "y") is None


def test_the_logits_have_no_group() -> None:
    sketch = Sketch()
    logits = sketch.network()

    assert group_of(sketch.model(logits), logits) is None


def test_shapes_that_are_computed_have_no_group() -> None:
    sketch = Sketch()
    stem = sketch.stem()
    pool = sketch.node("GlobalAveragePool", stem)
    sketch.lines += [
        f"whole = Shape({pool})", "n = Slice(whole, zero, one)", "wanted = Concat<axis = 0>(n, rest)",
        f"flat = Reshape({pool}, wanted)",
    ]  # fmt: skip
    sketch.lines += [
        "zero = Constant<value = int64[1] {0}>()", "one = Constant<value = int64[1] {1}>()",
        "rest = Constant<value = int64[1] {6}>()",
    ]  # fmt: skip
    sketch.lines.sort(key=lambda line: "Constant" not in line)
    sketch.n_channels["flat"] = 6
    model = sketch.model(sketch.node("Gemm", "flat", sketch.constant([[1.0]] * 6), output="y"))

    groups = grouping.find_scale_groups(model)

    assert {str(v.name) for v in groups.of} == {"x", stem, pool, "flat"}


@pytest.mark.parametrize(
    ("given", "computes"), [({}, True), ({"alpha": 2.0}, False), ({"beta": 0.5}, False), ({"transA": 1}, False)]
)
def test_a_gemm_that_scales_or_transposes_stays_float(given: dict[str, object], computes: bool) -> None:
    sketch = Sketch(channels=1, pixels=())
    out = sketch.node("Gemm", "x", sketch.constant([[1.0]]), sketch.constant([0.5]), **given)
    model = sketch.model(out)

    assert grouping.quantizable(nodes(model, "Gemm")[0]) is computes


def test_a_norm_without_pixels_stays_float() -> None:
    sketch = Sketch(channels=3, pixels=())
    model = sketch.model(sketch.norm("x"))

    assert not grouping.quantizable(nodes(model, "BatchNormalization")[0])


def test_a_norm_in_training_stays_float() -> None:
    sketch = Sketch()
    parts = ", ".join(sketch.constant([1.0] * 3) for _ in range(4))
    sketch.lines.append(f"y, mean, variance = BatchNormalization<training_mode = 1>(x, {parts})")
    model = sketch.model("y")

    assert not grouping.quantizable(nodes(model, "BatchNormalization")[0])


def test_a_convolution_whose_weights_are_computed_stays_float() -> None:
    sketch = Sketch()
    sketch.lines.append(f"w = Abs({sketch.constant([[[[1.0]], [[2.0]], [[3.0]]]])})")
    model = sketch.model(sketch.node("Conv", "x", "w", channels=1))

    assert not grouping.quantizable(nodes(model, "Conv")[0])
