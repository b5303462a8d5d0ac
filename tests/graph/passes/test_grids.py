"""Tests of the passes on Q/DQ pairs: each is exact on files of other programs, and keeps out where it would not be."""

from pathlib import Path

import foreign_grids
import numpy as np
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs

from deploy_kit.graph import integer_grids, onnx_file, passes

EXACT = (
    "settle_grids", "grids_to_uint8", "grids_to_int8", "relu_behind_grid", "grids_before_concats", "float_biases",
    "own_zero_points",
)  # fmt: skip
FORMS = (
    "onnxruntime: int8 both", "onnxruntime: uint8 both", "no zero point, operator set 21", "Brevitas QCDQ",
    "TensorFlow, weights transposed", "int32 biases",
)  # fmt: skip


def read(form: str, folder: Path) -> ir.Model:
    """Read a file of another program as `simplify` has it when the passes on pairs run."""
    model = onnx_file.load(foreign_grids.FORMS[form](folder))
    passes.apply_passes(model, ("fold_constants",))
    return onnx_file.reread(model)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("form", FORMS)
def test_pass_is_exact_on_files_of_other_programs(form: str, name: str, tmp_path: Path) -> None:
    model, x = read(form, tmp_path), foreign_grids.inputs(4, seed=5)
    (before,) = rewriting.by_onnxruntime(model, x)

    passes.CATALOGUE.get(name).apply(model)

    again = rewriting.inferred(model)
    np.testing.assert_array_equal(rewriting.by_onnxruntime(again, x)[0], before)
    assert passes.CATALOGUE.get(name).apply(again).fired == 0


@pytest.mark.parametrize(
    ("form", "name", "fired"),
    [
        ("no zero point, operator set 21", "settle_grids", 33),
        ("TensorFlow, weights transposed", "settle_grids", 8),
        ("onnxruntime: int8 both", "grids_to_uint8", 16),
        ("int32 biases", "float_biases", 9),
        ("int32 biases", "relu_behind_grid", 4),
    ],
)
def test_pass_fires_in_every_place(form: str, name: str, fired: int, tmp_path: Path) -> None:
    assert passes.CATALOGUE.get(name).apply(read(form, tmp_path)).fired == fired


def test_weights_that_share_a_zero_point_get_their_own(tmp_path: Path) -> None:
    model = read("onnxruntime: a scale per channel", tmp_path)
    passes.apply_passes(model, ("merge_duplicates",))

    readers = [node for node in model.graph if node.op_type == "DequantizeLinear"]
    stored = [(node, node.inputs[0].const_value) for node in readers]
    weights = [node for node, tensor in stored if tensor is not None and tensor.dtype == ir.DataType.INT8]
    n_different = len({node.inputs[2].name for node in weights})

    outcome = passes.CATALOGUE.get("own_zero_points").apply(model)

    assert (len(weights), n_different, outcome.fired) == (9, 3, 6)
    assert [len(node.inputs[2].uses()) for node in weights] == [1] * 9


def test_uint8_and_int8_are_each_others_inverse(tmp_path: Path) -> None:
    model = read("int32 biases", tmp_path)
    zeros = [integer_grids.zero_point(node) for node in model.graph if node.op_type == "QuantizeLinear"]

    passes.apply_passes(model, ("grids_to_uint8",))
    shifted = [integer_grids.zero_point(node) for node in model.graph if node.op_type == "QuantizeLinear"]
    passes.apply_passes(model, ("grids_to_int8",))

    assert {zero.dtype for zero in shifted} == {np.dtype(np.uint8)} and {int(zero) for zero in shifted} == {128}
    back = [integer_grids.zero_point(node) for node in model.graph if node.op_type == "QuantizeLinear"]
    assert [(zero.dtype, int(zero)) for zero in back] == [(zero.dtype, int(zero)) for zero in zeros]


def parse(body: str, constants: str = "float s = {0.1}, int8 z = {3}", output: str = "float[1,3,6,6]") -> ir.Model:
    return tiny_graphs.parse(f"g (float[1,3,6,6] x) => ({output} y) <{constants}> {{ {body} }}", opset=19)


PAIR = "q = QuantizeLinear(x, s, z) {} y = DequantizeLinear({}, s, z)"


@pytest.mark.parametrize(
    ("between", "last", "shape"),
    [
        ("m = MaxPool<kernel_shape=[2,2], pads=[1,1,1,1]>(q)", "m", "float[1,3,7,7]"),
        ("m = Transpose<perm=[0,2,3,1]>(q)", "m", "float[1,6,6,3]"),
        ("m = Max(q, c)", "m", "float[1,3,6,6]"),
        ("m = Clip(q, c)", "m", "float[1,3,6,6]"),
        ("m = Concat<axis=1>(q, q)", "m", "float[1,6,6,6]"),
    ],
)
def test_what_moves_the_integers_is_shifted_with_them(between: str, last: str, shape: str) -> None:
    model = parse(PAIR.format(between, last), "float s = {0.1}, int8 z = {3}, int8 c = {5}", shape)
    x = np.random.default_rng(3).standard_normal((1, 3, 6, 6)).astype(np.float32) * 9

    (before,) = rewriting.by_onnxruntime(model, x)

    outcome = passes.CATALOGUE.get("grids_to_uint8").apply(model)

    assert outcome.fired == 1
    np.testing.assert_array_equal(rewriting.by_onnxruntime(rewriting.inferred(model), x)[0], before)


def test_integers_that_are_computed_with_stay() -> None:
    model = parse("q = QuantizeLinear(x, s, z) a = Add(q, q) y = DequantizeLinear(a, s, z)")

    outcome = passes.CATALOGUE.get("grids_to_uint8").apply(model)

    assert (outcome.fired, outcome.refused) == (0, (("Add computes with the integers", 1),))


CONV = (
    "float s = {{0.1}}, int8 z = {{{zero}}}, float[3,3,1,1] w = {{1, -2, 3, -4, 5, -6, 7, -8, 9}}, "
    "float lo = {{-0.5}}, float hi = {{0.6}}"
)
BEHIND = "q = QuantizeLinear(r, s, z) y = DequantizeLinear(q, s, z)"


@pytest.mark.parametrize("zero", [-128, -7, 0, 127])
@pytest.mark.parametrize("bound", ["Relu(c)", "Clip(c, lo, hi)", 'Clip(c, "", hi)', "Clip(c, lo)"])
def test_rounding_is_monotone(bound: str, zero: int) -> None:
    body = f"c = Conv(x, w) r = {bound} q = QuantizeLinear(r, s, z) y = DequantizeLinear(q, s, z)"
    model = parse(body.replace('""', ""), CONV.format(zero=zero))
    x = np.random.default_rng(3).standard_normal((1, 3, 6, 6)).astype(np.float32)
    (before,) = rewriting.by_onnxruntime(model, x)

    passes.apply_passes(model, ("relu_behind_grid",))

    np.testing.assert_array_equal(rewriting.by_onnxruntime(rewriting.inferred(model), x)[0], before)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "c = Conv(x, w) r = Relu(c) q = QuantizeLinear(r, s, z) d = DequantizeLinear(q, s, z) y = Add(d, r)",
            "others read it too",
        ),
        (
            f"c = Conv(x, w) l = ReduceMin<keepdims=0>(x) r = Clip(c, l) {BEHIND}",
            "a bound is computed",
        ),
        (
            f"c = Conv(x, w) r = Relu(c) s = ReduceMax<keepdims=0>(x) {BEHIND}",
            "the grid is no single constant of float32",
        ),
    ],
)
def test_activation_that_cannot_be_moved_says_why(body: str, reason: str) -> None:
    constants = CONV.format(zero=0).replace("float s =", "float unread =" if "s = Reduce" in body else "float s =")
    outcome = passes.CATALOGUE.get("relu_behind_grid").apply(parse(body, constants))

    assert (outcome.fired, outcome.refused) == (0, ((reason, 1),))


@pytest.mark.parametrize(
    ("move", "reason"),
    [
        ("a = Transpose(w) b = Relu(w) y = Add(a, b)", "others read the weights too"),
        ("t = Reshape(w, shape) y = Transpose(t)", "channels do not stay whole"),
    ],
)
def test_weights_that_cannot_be_moved_say_why(move: str, reason: str) -> None:
    body = f"w = DequantizeLinear<axis=0>(i, s, z) m = Identity(x) {move}"
    integers = ",".join(map(str, range(16)))
    constants = (
        f"int8[4,4] i = {{{integers}}}, float[4] s = {{1,2,3,4}}, int8[4] z = {{0,0,0,0}}, int64[2] shape = {{2,8}}"
    )
    model = tiny_graphs.parse(f"g (float[1] x) => (float[a,b] y) <{constants}> {{ {body} }}")

    assert (reason, 1) in passes.CATALOGUE.get("settle_grids").apply(model).refused
