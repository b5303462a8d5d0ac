"""Tests of the passes that prepare moves and clips for integers: each equation, by ONNX's evaluator and by torch."""

import numpy as np
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs
import torch
from torch.nn import functional

from deploy_kit.accuracy import metrics
from deploy_kit.graph.passes import (
    clip_to_bounds,
    divide_sliced_convolutions,
    fold_constants,
    shuffle_to_gather,
    split_to_slices,
    transposed_to_convolution,
)

GENERATOR = np.random.default_rng(5)


def drawn(*shape: int) -> np.ndarray:
    """Draw numbers that float32 holds exactly."""
    return GENERATOR.standard_normal(shape).astype(np.float32).astype(np.float64)


def applied(which: object, model: ir.Model, x: np.ndarray) -> tuple[ir.Model, list[float], int]:
    """Apply a pass: the graph read again, the differences of its outputs, and how often the pass fired."""
    before = rewriting.evaluate(model, x)
    outcome = which.apply(model)  # type: ignore[attr-defined]
    again = tiny_graphs.reread(model)
    rewriting.verify_shapes(again, x)
    return again, rewriting.differences(before, rewriting.evaluate(again, x)), outcome.fired


def parse(text: str, opset: int = 18, **weights: np.ndarray) -> ir.Model:
    return tiny_graphs.parse(f"g (float[{text}", opset, **weights)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "more", "group"),
    [
        (2, 2, 0, 0, 1),
        (3, 2, 0, 0, 1),
        (3, 2, 1, 1, 1),
        (4, 2, 1, 0, 1),
        (5, 3, 2, 2, 2),
        (3, 1, 1, 0, 1),
        (2, 4, 0, 3, 4),
    ],
)
@pytest.mark.parametrize("biased", [False, True])
def test_transposed_convolution_is_what_torch_computes(
    kernel: int, stride: int, padding: int, more: int, group: int, biased: bool
) -> None:
    x, w, b = drawn(2, 4, 5, 6), drawn(4, 3, kernel, kernel), drawn(3 * group)
    given = {"w": w, "b": b} if biased else {"w": w}
    moves = f"strides=[{stride},{stride}], pads=[{', '.join([str(padding)] * 4)}], output_padding=[{more},{more}]"
    node = f"y = ConvTranspose<{moves}, group={group}>({', '.join(['x', *given])})"
    model = parse(f"2,4,5,6] x) => (float[] y) {{ {node} }}", **given)

    outcome = transposed_to_convolution.apply(model)

    again = tiny_graphs.reread(model)
    rewriting.verify_shapes(again, x)
    expected = functional.conv_transpose2d(
        torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b) if biased else None,
        stride, padding, more, group,
    ).numpy()  # fmt: skip
    assert outcome.fired == 1
    assert "ConvTranspose" not in tiny_graphs.operators(again)
    assert metrics.relative_difference(expected, rewriting.evaluate(again, x)[0]) < 1e-13


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,4,5] x) => (float[] y) { y = ConvTranspose<strides=[2]>(x, w) }", "DepthToSpace has two axes of pixels"),
        (
            "1,4,5,5] x) => (float[] y) { y = ConvTranspose<strides=[2,1]>(x, w) }",
            "its strides differ, or it is dilated",
        ),
        (
            '1,4,5,5] x) => (float[] y) { y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(x, w) }',
            "its padding or size is not stated",
        ),
    ],
)
def test_transposed_convolution_that_stays_says_why(text: str, reason: str) -> None:
    model = parse(text, w=drawn(4, 3, *[3] * (text.partition("]")[0].count(",") - 1)))

    outcome = transposed_to_convolution.apply(model)

    assert outcome.refused == ((reason, 1),)


def test_split_becomes_slices() -> None:
    model = parse(
        "1,6,4,4] x) => (float[] y) { sizes = Constant<value = int64[2] {2, 4}>() a, b = Split<axis = 1>(x, sizes)"
        " y = Concat<axis = 1>(b, a) }"
    )

    again, differences, fired = applied(split_to_slices, model, drawn(1, 6, 4, 4))

    assert fired == 1 and max(differences) == 0
    assert [name for name in tiny_graphs.operators(again) if name != "Constant"] == ["Slice", "Slice", "Concat"]


def shuffled(perm: str, *sizes: int) -> ir.Model:
    return parse(
        f"1,6,2,2] x) => (float[] y) {{ s = Constant<value = int64[5] {{{', '.join(map(str, sizes))}}}>() "
        "t = Constant<value = int64[4] {1, 6, 2, 2}>() a = Reshape(x, s) "
        f"b = Transpose<perm = [{perm}]>(a) y = Reshape(b, t) }}"
    )


def test_shuffle_becomes_a_gather() -> None:
    model, x = shuffled("0, 2, 1, 3, 4", 1, 2, 3, 2, 2), drawn(1, 6, 2, 2)

    again, differences, fired = applied(shuffle_to_gather, model, x)

    expected = functional.channel_shuffle(torch.from_numpy(x), 2).numpy()
    assert fired == 1 and max(differences) == 0
    assert "Gather" in tiny_graphs.operators(again)
    np.testing.assert_array_equal(rewriting.evaluate(again, x)[0], expected)


@pytest.mark.parametrize(("perm", "sizes"), [("0, 1, 2, 4, 3", (1, 2, 3, 2, 2)), ("0, 2, 1, 3, 4", (1, 2, 3, 4, 1))])
def test_other_transposes_stay(perm: str, sizes: tuple[int, ...]) -> None:
    assert shuffle_to_gather.apply(shuffled(perm, *sizes)).fired == 0


@pytest.mark.parametrize(
    ("low", "high", "kinds"),
    [("0", "6", ["Relu", "Min"]), ("-1", "1", ["Max", "Min"]), ("", "2", ["Min"]), ("0", "", ["Relu"])],
)
def test_clip_becomes_bounds(low: str, high: str, kinds: list[str]) -> None:
    numbers = {name: np.array(float(text)) for name, text in (("low", low), ("high", high)) if text}
    inputs = ", ".join(["x", "low" if low else '""', *(["high"] if high else [])])
    model = parse(f"1,3,4,4] x) => (float[] y) {{ y = Clip({inputs}) }}", **numbers)

    again, differences, fired = applied(clip_to_bounds, model, 4 * drawn(1, 3, 4, 4))

    assert fired == 1 and max(differences) == 0
    assert tiny_graphs.operators(again) == kinds


def sliced(last: str, end: int) -> ir.Model:
    ends = " ".join(
        f"{name} = Constant<value = int64[1] {{{n}}}>()" for name, n in {"i": 0, "j": 2, "e": end, "a": 1}.items()
    )
    return parse(
        f"1,3,4,4] x) => (float[] y) {{ {ends} c = Conv<pads = [1,1,1,1]>(x, w, b) p = Slice(c, i, j, a) "
        f"q = Slice(c, j, e, a) r = Relu(p) {last} }}", w=drawn(5, 3, 3, 3), b=drawn(5),
    )  # fmt: skip


@pytest.mark.parametrize("end", [5, 2**63 - 1])
def test_sliced_convolution_is_divided(end: int) -> None:
    model = sliced("y = Concat<axis = 1>(q, r)", end)
    fold_constants.apply(model)

    again, differences, fired = applied(divide_sliced_convolutions, model, drawn(1, 3, 4, 4))

    assert fired == 1 and max(differences) < 1e-15
    assert tiny_graphs.operators(again) == ["Conv", "Conv", "Relu", "Concat"]


def test_convolution_that_others_read_whole_is_not_divided() -> None:
    model = sliced("y = Concat<axis = 1>(c, q, r)", 5)
    fold_constants.apply(model)

    assert divide_sliced_convolutions.apply(model).fired == 0
