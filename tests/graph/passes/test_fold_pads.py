"""Tests of the pass `fold_pads`: bit for bit what torch computes with the border apart, and each reason to refuse."""

import numpy as np
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs
import torch

from deploy_kit.graph.passes import fold_pads

POOL = "MaxPool<kernel_shape=[3,3], strides=[2,2]>(p)"
BEHIND_RELU = "r = Relu(x) p = Pad(r, border) y = {pool}"
CONV = "p = Pad(x, border) y = Conv<kernel_shape=[3,3], strides=[2,2]{more}>(p, w)"
AROUND = (0, 0, 1, 1, 0, 0, 1, 1)


def drawn(*dims: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(dims).astype(np.float32)


def parse(body: str, border: tuple[int, ...] = AROUND, opset: int = 18) -> ir.Model:
    values = ", ".join(map(str, border))
    held = f"<int64[{len(border)}] border = {{{values}}}>"
    weight = ", float[4,3,3,3] w" if "w)" in body else ""
    return tiny_graphs.parse(f"g (float[1,3,6,6] x{weight}) => (float[N,C,H,W] y) {held} {{ {body} }}", opset)


def inputs(model: ir.Model) -> list[np.ndarray]:
    return [drawn(1, 3, 6, 6), drawn(4, 3, 3, 3)][: len(model.graph.inputs)]


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_padded_convolution_gives_the_same_bits_as_torch(opset: int) -> None:
    model = parse(CONV.format(more=""), opset=opset)
    x, w = inputs(model)

    done = rewriting.rewrite(fold_pads, model, x, w)

    assert (done.outcome.fired, done.operators, done.difference) == (1, ["Conv"], 0)
    apart = torch.nn.functional.pad(torch.from_numpy(x), (1, 1, 1, 1))
    wanted = torch.nn.functional.conv2d(apart, torch.from_numpy(w), stride=2)
    np.testing.assert_allclose(rewriting.by_onnxruntime(model, x, w)[0], wanted, rtol=1e-5, atol=1e-6)


def test_border_adds_to_the_pads_of_the_reader_side_by_side() -> None:
    model = parse(CONV.format(more=", pads=[1,0,2,0]"), (0, 0, 0, 1, 0, 0, 2, 3))

    done = rewriting.rewrite(fold_pads, model, *inputs(model))

    assert (done.operators, done.difference) == (["Conv"], 0)
    (conv,) = model.graph
    assert conv.attributes["pads"].as_ints() == (1, 1, 4, 3)


def test_max_pool_behind_a_relu_gives_the_same_bits_as_torch() -> None:
    model = parse(BEHIND_RELU.format(pool=POOL))
    (x,) = inputs(model)

    done = rewriting.rewrite(fold_pads, model, x)

    assert (done.outcome.fired, done.operators, done.difference) == (1, ["Relu", "MaxPool"], 0)
    apart = torch.nn.functional.pad(torch.relu(torch.from_numpy(x)), (1, 1, 1, 1))
    wanted = torch.nn.functional.max_pool2d(apart, 3, 2).numpy()
    assert np.array_equal(wanted, rewriting.by_onnxruntime(model, x)[0])


@pytest.mark.parametrize("lowest", [-np.inf, np.finfo(np.float32).min], ids=["infinite", "the lowest number"])
def test_max_pool_of_any_numbers_takes_a_border_that_never_wins(lowest: float) -> None:
    text = """g (float[1,3,6,6] x) => (float[N,C,H,W] y) <int64[8] border = {0, 0, 0, 1, 0, 0, 1, 2}>
        { p = Pad(x, border, low) y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(p) }"""
    model = tiny_graphs.parse(text, 18, low=np.float32(lowest))
    x = drawn(1, 3, 6, 6) - 10

    done = rewriting.rewrite(fold_pads, model, x)

    assert (done.outcome.fired, done.operators, done.difference) == (1, ["MaxPool"], 0)
    apart = torch.nn.functional.pad(torch.from_numpy(x), (1, 2, 0, 1), value=float("-inf"))
    wanted = torch.nn.functional.max_pool2d(apart, 3, 2).numpy()
    assert np.array_equal(wanted, rewriting.by_onnxruntime(model, x)[0])


def test_convolution_takes_no_border_of_infinite_numbers() -> None:
    text = """g (float[1,3,6,6] x, float[4,3,3,3] w) => (float[N,C,H,W] y)
        <int64[8] border = {0, 0, 1, 1, 0, 0, 1, 1}> { p = Pad(x, border, low) y = Conv(p, w) }"""

    model = tiny_graphs.parse(text, 18, low=np.float32(-np.inf))

    assert fold_pads.apply(model).refused == (("it does not pad with zeros", 1),)


REFUSED = {
    "it does not pad with a constant": (CONV.replace("Pad(", 'Pad<mode="reflect">(').format(more=""), AROUND),
    "it cuts off, or pads images or channels": (CONV.format(more=""), (0, 0, -1, 1, 0, 0, 1, 1)),
    "its reader pads by a rule": (CONV.format(more=', auto_pad="SAME_UPPER"'), AROUND),
    "its max pool may read negative numbers": (f"p = Pad(x, border) y = {POOL}", AROUND),
    "a window of its max pool may hold padding alone": (BEHIND_RELU.format(pool=POOL), (0, 0, 3, 1, 0, 0, 1, 1)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_border_that_must_stay_is_refused_with_its_reason(reason: str) -> None:
    model = parse(*REFUSED[reason])
    before = [node.op_type for node in model.graph]

    outcome = fold_pads.apply(model)

    assert (outcome.fired, outcome.refused) == (0, ((reason, 1),))
    assert [node.op_type for node in model.graph] == before


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        ("MaxPool<kernel_shape=[3,3], dilations=[2,2]>(p)", "a window of its max pool may hold padding alone"),
        ("MaxPool<kernel_shape=[3,3], ceil_mode=1>(p)", "a window of its max pool may hold padding alone"),
    ],
)
def test_pool_with_windows_of_its_own_is_refused(pool: str, why: str) -> None:
    assert fold_pads.apply(parse(BEHIND_RELU.format(pool=pool))).refused == ((why, 1),)


def test_pool_that_gives_indices_is_refused() -> None:
    text = """g (float[1,3,6,6] x) => (float[N,C,H,W] y, int64[N,C,H,W] i) <int64[8] border = {0, 0, 1, 1, 0, 0, 1, 1}>
        { r = Relu(x) p = Pad(r, border) y, i = MaxPool<kernel_shape=[3,3]>(p) }"""

    assert fold_pads.apply(tiny_graphs.parse(text, 18)).refused == (("its max pool gives indices too", 1),)


def test_border_of_another_number_is_refused() -> None:
    text = """g (float[1,3,6,6] x, float[4,3,3,3] w) => (float[N,C,H,W] y)
        <int64[8] border = {0, 0, 1, 1, 0, 0, 1, 1}, float one = {1}> { p = Pad(x, border, one) y = Conv(p, w) }"""

    assert fold_pads.apply(tiny_graphs.parse(text, 18)).refused == (("it does not pad with zeros", 1),)


def test_border_stated_as_zero_folds() -> None:
    text = """g (float[1,3,6,6] x, float[4,3,3,3] w) => (float[N,C,H,W] y)
        <int64[8] border = {0, 0, 1, 1, 0, 0, 1, 1}, float zero = {0}> { p = Pad(x, border, zero) y = Conv(p, w) }"""

    done = rewriting.rewrite(fold_pads, tiny_graphs.parse(text, 18), drawn(1, 3, 6, 6), drawn(4, 3, 3, 3))

    assert (done.operators, done.difference) == (["Conv"], 0)


def test_border_for_some_axes_is_refused() -> None:
    text = """g (float[1,3,6,6] x, float[4,3,3,3] w) => (float[N,C,H,W] y)
        <int64[2] border = {1, 1}, int64[1] axes = {2}> { p = Pad(x, border, , axes) y = Conv(p, w) }"""

    assert fold_pads.apply(tiny_graphs.parse(text, 18)).refused == (
        ("its border is not known, or is given for some axes only", 1),
    )


@pytest.mark.parametrize(
    "reader", ["y = AveragePool<kernel_shape=[3,3]>(p)", "y = Conv(x, p)", "q = Relu(p) y = Conv(p, w)"]
)
def test_pad_with_another_reader_is_none_of_its_business(reader: str) -> None:
    text = f"""g (float[1,3,6,6] x, float[4,3,3,3] w) => (float[N,C,H,W] y)
        <int64[8] border = {{0, 0, 1, 1, 0, 0, 1, 1}}> {{ p = Pad(x, border) {reader} }}"""

    outcome = fold_pads.apply(tiny_graphs.parse(text, 18))

    assert (outcome.fired, outcome.refused) == (0, ())


def test_border_that_is_an_attribute_is_refused() -> None:
    text = """g (float[1,3,6,6] x, float[4,3,3,3] w) => (float[N,C,H,W] y)
        { p = Pad<pads=[0,0,1,1,0,0,1,1]>(x) y = Conv(p, w) }"""

    outcome = fold_pads.apply(tiny_graphs.parse(text, 10))

    assert outcome.refused == (("its border is an attribute, as before operator set 11", 1),)
