"""Tests of what the passes share: names that are free, the affine form of a BN, neighbors that change places."""

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
import torch

from deploy_kit.graph import edit

CHAIN = "g (float[1,3,4,4] x) => (float[1,3,2,2] y) { r = Relu(x) y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) }"


def node(text: str, index: int = 0, opset: int = 19, **weights: np.ndarray) -> ir.Node:
    return tiny_graphs.parse(text, opset, **weights).graph[index]


@pytest.mark.parametrize(
    ("name", "free"),
    [("w", "w.1"), ("y", "y.1"), ("x", "x.1"), ("new", "new"), ("a.weight", "a.weight.1")],
    ids=["a weight has it", "an output has it", "an input has it", "free", "a value between has it"],
)
def test_new_constant_takes_a_name_that_nothing_has(name: str, free: str) -> None:
    text = 'g (float[4] x) => (float[4] y) { "a.weight" = Add(x, w) y = Relu("a.weight") z = Relu(x) }'
    model = tiny_graphs.parse(text, w=np.ones(4))

    value = edit.initializer(model, name, np.ones(4), ir.DataType.FLOAT)

    model.graph[-1].replace_input_with(0, value)
    assert value.name == free
    assert free in tiny_graphs.reread(model).graph.initializers


def test_constants_of_one_name_are_numbered() -> None:
    model = tiny_graphs.parse("g (float[4] x) => (float[4] y) { y = Relu(x) }")

    names = [edit.initializer(model, "w", np.ones(2), ir.DataType.FLOAT).name for _ in range(3)]

    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (ir.DataType.FLOAT16, np.float16),
        (ir.DataType.FLOAT, np.float32),
        (ir.DataType.DOUBLE, np.float64),
    ],
)
def test_constant_has_the_type_and_shape_asked_for(dtype: ir.DataType, wanted: type) -> None:
    model = tiny_graphs.parse("g (float[4] x) => (float[4] y) { y = Relu(x) }")

    value = edit.initializer(model, "w", np.full((2, 3), 1 / 3), dtype)

    assert (value.dtype, list(value.shape)) == (dtype, [2, 3])
    assert value.const_value.numpy().dtype == wanted
    assert (value.const_value.numpy() == wanted(1 / 3)).all()


@pytest.mark.parametrize("epsilon", ["", "<epsilon = 0.015625>"])
def test_affine_form_is_what_torch_normalizes_with(epsilon: str) -> None:
    generator = np.random.default_rng(31)
    parts = {name: generator.standard_normal(3) for name in "gbm"} | {"v": np.array([1e-6, 1.0, 30.0])}
    norm = node(f"g (float[1,3,2] x) => (float[1,3,2] y) {{ y = BatchNormalization{epsilon}(x, g, b, m, v) }}", **parts)
    exact = {name: torch.from_numpy(array.astype(np.float32)).double() for name, array in parts.items()}
    x = torch.from_numpy(generator.standard_normal((1, 3, 2)))

    scale, shift = edit.affine(norm)

    # The file holds ε as a float32, 1e-5 is not one.
    eps = 0.015625 if epsilon else float(np.float32(1e-5))
    wanted = torch.nn.functional.batch_norm(x, exact["m"], exact["v"], exact["g"], exact["b"], eps=eps).numpy()
    np.testing.assert_allclose(scale[:, None] * x.numpy() + shift[:, None], wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("(float[4] y) { r = Relu(x) y = Neg(r) }", True),
        ("(float[4] y) { r = Relu(x) y = Add(r, r) }", False),
        ("(float[4] y, float[4] z) { r = Relu(x) y = Neg(r) z = Abs(r) }", False),
        ("(float[4] y, float[4] r) { r = Relu(x) y = Neg(r) }", False),
        ("(float[4] r) { r = Relu(x) }", False),
        ("(float[4] y) { r = Relu(x) y = Neg(x) }", False),
    ],
    ids=["one reader", "one reader, twice", "two readers", "an output too", "an output", "nothing"],
)
def test_value_is_alone_with_one_reader(text: str, wanted: bool) -> None:
    assert edit.alone(node(f"g (float[4] x) => {text}").outputs[0]) is wanted


@pytest.mark.parametrize(
    ("attributes", "pads", "misses", "averages_padding"),
    [
        ("", False, False, False),
        ("pads=[0,0]", False, False, False),
        ("pads=[0,1]", True, False, False),
        ('auto_pad="NOTSET"', False, False, False),
        ('auto_pad="VALID"', False, False, False),
        ('auto_pad="SAME_UPPER"', True, False, False),
        ('auto_pad="SAME_LOWER"', True, False, False),
        ("dilations=[2]", False, False, False),
        ("dilations=[1], pads=[1,1]", True, False, False),
        ("dilations=[2], pads=[1,1]", True, True, True),
        ("count_include_pad=1", False, False, False),
        ("count_include_pad=1, pads=[0,0]", False, False, False),
        ("count_include_pad=1, pads=[1,0]", True, False, True),
        ("count_include_pad=1, ceil_mode=1", False, False, True),
        ("ceil_mode=1", False, False, False),
        ('count_include_pad=1, auto_pad="SAME_UPPER"', True, False, True),
    ],
)
def test_what_a_pool_reads_is_known_by_its_attributes(
    attributes: str, pads: bool, misses: bool, averages_padding: bool
) -> None:
    stated = ", ".join(filter(None, ["kernel_shape=[2]", attributes]))
    pool = node(f"g (float[1,1,6] x) => (float[1,1,K] y) {{ y = AveragePool<{stated}>(x) }}")

    assert (edit.pads(pool), edit.misses(pool), edit.averages_padding(pool)) == (pads, misses, averages_padding)


@pytest.mark.parametrize(
    ("opset", "norm", "wanted"),
    [
        (18, "y = BatchNormalization", False),
        (18, "y = BatchNormalization<training_mode = 0>", False),
        (18, "y, i, j = BatchNormalization<training_mode = 1>", True),
        (13, "y = BatchNormalization", False),
        (13, "y, i, j, k, l = BatchNormalization", True),
    ],
)
def test_training_is_known_in_every_operator_set(opset: int, norm: str, wanted: bool) -> None:
    parts = {name: np.ones(3) for name in "gbmv"}
    text = f"g (float[1,3,2] x) => (float[1,3,2] y) {{ {norm}(x, g, b, m, v) }}"

    assert edit.trains(node(text, opset=opset, **parts)) is wanted


def test_neighbors_change_places_with_their_names_and_shapes() -> None:
    model = tiny_graphs.parse(CHAIN)
    relu, pool = model.graph

    edit.swap(model, relu, pool, ir.Shape([1, 3, 2, 2]))

    assert tiny_graphs.operators(tiny_graphs.reread(model)) == ["MaxPool", "Relu"]
    assert [value.name for value in (pool.inputs[0], pool.outputs[0], relu.inputs[0], relu.outputs[0])] == list("xrry")
    assert [list(value.shape) for value in (pool.outputs[0], relu.outputs[0])] == [[1, 3, 2, 2]] * 2
    assert model.graph.outputs[0] is relu.outputs[0]


def test_readers_of_the_second_read_the_first_after_the_swap() -> None:
    model = tiny_graphs.parse(
        CHAIN.replace("y = MaxPool", "p = MaxPool").replace("(r) }", "(r) a = Neg(p) b = Abs(p) y = Add(a, b) }")
    )
    relu, pool = model.graph[0], model.graph[1]

    edit.swap(model, relu, pool, pool.outputs[0].shape)

    assert tiny_graphs.operators(tiny_graphs.reread(model)) == ["MaxPool", "Relu", "Neg", "Abs", "Add"]
    assert {reader.op_type for reader, _ in relu.outputs[0].uses()} == {"Neg", "Abs"}
    assert [reader for reader, _ in pool.outputs[0].uses()] == [relu]


def test_array_of_a_constant_is_exact_in_float64() -> None:
    model = tiny_graphs.parse("g (float[2] x) => (float[2] y) { y = Add(x, w) }", w=np.array([0.1, 1e-40]))

    array = edit.array(model.graph.initializers["w"])

    assert array.dtype == np.float64
    assert array.tolist() == [float(np.float32(0.1)), float(np.float32(1e-40))]


def test_constant_is_there_and_known() -> None:
    add = node('g (float[2] x) => (float[2] y) { y = Clip(x, "", w) }', w=np.array(1.0))

    assert [edit.constant(value) for value in add.inputs] == [False, False, True]
