"""Tests of the pass `chain_concats`: the same bytes from concatenations of two, in every order in which nets grow."""

import numpy as np
import pytest
import rewriting
import tiny_graphs
from concat_chains import SHAPE, drawn, parse, read

from deploy_kit.graph.passes import chain_concats, fold_constants

CASES = {
    "new ones behind": ("x = Concat<axis=1>(a, b) y = Concat<axis=1>(a, b, c) z = Concat<axis=1>(a, b, c, d)",
                        "xyz", ["ab", "xc", "yd"]),
    "new ones before": ("x = Concat<axis=1>(b, a) y = Concat<axis=1>(c, b, a) z = Concat<axis=1>(d, c, b, a)",
                        "xyz", ["ba", "cx", "dy"]),
    "longest beginning": ("x = Concat<axis=1>(a, b) y = Concat<axis=1>(a, b, c) z = Concat<axis=1>(a, b, c, d, d)",
                          "xyz", ["ab", "xc", "ydd"]),
    "longest is the ending": ("x = Concat<axis=1>(a, b) y = Concat<axis=1>(b, c, d) z = Concat<axis=1>(a, b, c, d)",
                              "xyz", ["ab", "bcd", "ay"]),
    "beginning and ending": ("x = Concat<axis=1>(a, b) y = Concat<axis=1>(c, d) z = Concat<axis=1>(a, b, c, d)",
                             "xyz", ["ab", "cd", "xy"]),
    "nested": ("x = Concat<axis=1>(a, b) y = Concat<axis=1>(x, c) z = Concat<axis=1>(a, b, c, d)",
               "xyz", ["ab", "xc", "yd"]),
    "repeated inputs": ("x = Concat<axis=1>(a, a) y = Concat<axis=1>(a, a, a) z = Concat<axis=1>(a, a, a, b)",
                        "xyz", ["aa", "xa", "yb"]),
    "through one of one": ("s = Concat<axis=1>(a) x = Concat<axis=1>(s, b) z = Concat<axis=1>(a, b, c)",
                           "xz", ["a", "sb", "xc"]),
}  # fmt: skip


@pytest.mark.parametrize(("body", "outputs", "wanted"), CASES.values(), ids=CASES)
def test_concatenation_is_built_on_the_longest_one_before_it(body: str, outputs: str, wanted: list[str]) -> None:
    inputs = drawn(5)
    model = parse(body, inputs, outputs)
    n_before = len("".join(read(model)))

    done = rewriting.rewrite(chain_concats, model, *inputs)

    assert read(model) == wanted
    assert (done.difference, done.outcome.refused) == (0, ())
    assert done.outcome.fired > 0
    assert len("".join(wanted)) < n_before


@pytest.mark.parametrize("axis", [0, 2, 3, -1, -3])
def test_other_axes_are_chained_too(axis: int) -> None:
    inputs = drawn(3, axis=axis % 4)
    model = parse(f"x = Concat<axis={axis}>(a, b) y = Concat<axis={axis}>(a, b, c)", inputs, "xy")

    done = rewriting.rewrite(chain_concats, model, *inputs)

    assert read(model) == ["ab", "xc"]
    assert (done.outcome.fired, done.difference) == (1, 0)


def test_concatenation_along_another_axis_is_another_value() -> None:
    inputs = [np.full(SHAPE, value, np.float32) for value in (1, 2, 3)]
    model = parse("x = Concat<axis=2>(a, b) y = Concat<axis=1>(a, b, c)", inputs, "xy")

    done = rewriting.rewrite(chain_concats, model, *inputs)

    assert (read(model), done.outcome.fired) == (["ab", "abc"], 0)


def test_parts_along_another_axis_are_not_parts() -> None:
    """Shapes without pixels let both orders be valid: (a over b) beside c has other bytes than a, b, c side by side."""
    inputs = [np.ones((1, 2, 0, 4), np.float32)] * 3
    body = "x = Concat<axis=2>(a, b) y = Concat<axis=1>(x, c) z = Concat<axis=1>(a, b, c, d)"
    model = parse(body, [*inputs, inputs[0]], "yz")

    chain_concats.apply(model)

    assert read(model) == ["ab", "xc", "abcd"]
    tiny_graphs.reread(model)


def test_one_made_later_is_not_read_before_it_exists() -> None:
    inputs = drawn(3)
    model = parse("y = Concat<axis=1>(a, b, c) x = Concat<axis=1>(a, b)", inputs, "xy")

    done = rewriting.rewrite(chain_concats, model, *inputs)

    assert (read(model), done.outcome.fired) == (["abc", "ab"], 0)


@pytest.mark.parametrize(
    "body",
    [
        "x = Concat<axis=1>(a, b) y = Concat<axis=1>(b, a, c)",
        "x = Concat<axis=1>(a, c) y = Concat<axis=1>(a, b, c)",
        "x = Concat<axis=1>(b, c) y = Concat<axis=1>(a, b, c, a)",
        "x = Concat<axis=1>(a, b) y = Concat<axis=1>(a, b)",
        "x = Concat<axis=1>(a) y = Concat<axis=1>(a, b)",
    ],
    ids=["another order", "a gap", "in the middle", "the same one", "one of one"],
)
def test_what_no_beginning_or_ending_makes_stays(body: str) -> None:
    inputs = drawn(3)
    model = parse(body, inputs, "xy")
    before = read(model)

    done = rewriting.rewrite(chain_concats, model, *inputs)

    assert (read(model), done.outcome.fired) == (before, 0)


def test_open_batch_and_pixels_stay_open() -> None:
    model = tiny_graphs.parse(
        "g (float[N,2,H,W] a, float[N,3,H,W] b, float[N,1,H,W] c) => (float[N,5,H,W] x, float[N,6,H,W] y) "
        "{ x = Concat<axis=1>(a, b) y = Concat<axis=1>(a, b, c) }"
    )
    inputs = [np.random.default_rng(size).standard_normal((3, size, 5, 4)).astype(np.float32) for size in (2, 3, 1)]

    done = rewriting.rewrite(chain_concats, model, *inputs)

    assert (read(model), done.difference) == (["ab", "xc"], 0)


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 22])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_type_and_operator_set_is_rewritten(dtype: type, opset: int) -> None:
    inputs = drawn(2)
    text = (
        "g (float[1,2,3,4] a, float[1,3,3,4] b) => (float[1,5,3,4] x, float[1,7,3,4] y) "
        "{ x = Concat<axis=1>(a, b) y = Concat<axis=1>(a, b, a) }"
    )

    done = rewriting.rewrite(chain_concats, rewriting.typed(text, dtype, opset), *inputs)

    assert (done.outcome.fired, done.difference) == (1, 0)


def test_dense_block_of_torch_reads_two_tensors_at_a_time() -> None:
    """The block's input comes first; each of its layers reads all maps before it."""
    model, x = tiny_graphs.exported_model(), tiny_graphs.images()
    fold_constants.apply(model)
    (before,) = tiny_graphs.evaluate(model, x)

    outcome = chain_concats.apply(model)

    widths = [len(node.inputs) for node in model.graph if node.op_type == "Concat"]
    assert (outcome.fired, widths) == (2, [2, 2] * 2)
    assert np.array_equal(before, tiny_graphs.evaluate(tiny_graphs.reread(model), x)[0])


def test_comparison_notices_two_parts_that_changed_places() -> None:
    inputs = [np.full(SHAPE, value, np.float32) for value in (1, 2, 3)]
    model = parse("x = Concat<axis=1>(a, b) y = Concat<axis=1>(a, b, c)", inputs, "xy")
    before = tiny_graphs.evaluate(model, *inputs)
    chain_concats.apply(model)
    last = model.graph[-1]
    first, second = last.inputs
    last.replace_input_with(0, second)
    last.replace_input_with(1, first)

    after = tiny_graphs.evaluate(model, *inputs)

    assert rewriting.differences(before, after)[1] > 0.1
