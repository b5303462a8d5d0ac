"""Tests of the pass `relu_after_pool`: bit for bit the same in every form of max pool, and each reason not to swap."""

import numpy as np
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs
import torch

from deploy_kit.accuracy import metrics
from deploy_kit.graph import edit
from deploy_kit.graph.passes import relu_after_pool

FORMS = {
    "plain": ("[1,3,6,6]", "MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)"),
    "one stride": ("[1,3,6,6]", "MaxPool<kernel_shape=[2,2]>(r)"),
    "padded": ("[1,3,6,6]", "MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r)"),
    "padded on one side": ("[1,3,6,6]", "MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[0,0,2,2]>(r)"),
    "automatic": ("[1,3,7,7]", 'MaxPool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_LOWER">(r)'),
    "ceiling": ("[1,3,7,7]", "MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(r)"),
    "dilated": ("[1,3,7,7]", "MaxPool<kernel_shape=[2,2], dilations=[2,2]>(r)"),
    "undilated, stated": ("[1,3,6,6]", "MaxPool<kernel_shape=[2,2], dilations=[1,1], pads=[1,1,1,1]>(r)"),
    "storage order": ("[1,3,6,6]", "MaxPool<kernel_shape=[2,2], strides=[2,2], storage_order=1>(r)"),
    "global": ("[1,3,6,6]", "GlobalMaxPool(r)"),
    "1-D": ("[2,3,9]", "MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>(r)"),
    "1-D global": ("[2,3,9]", "GlobalMaxPool(r)"),
    "3-D": ("[1,3,4,6,5]", "MaxPool<kernel_shape=[2,3,1], strides=[2,3,1]>(r)"),
}


def drawn(*dims: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(dims).astype(np.float32) + np.float32(shift)


def parse(pool: str, shape: str = "[1,3,6,6]", opset: int = 18) -> ir.Model:
    axes = ",".join("NCHWD"[: shape.count(",") + 1])
    return tiny_graphs.parse(f"g (float{shape} x) => (float[{axes}] y) {{ r = Relu(x) y = {pool} }}", opset)


@pytest.mark.parametrize("shift", [0.0, -1.5], ids=["around zero", "mostly negative"])
@pytest.mark.parametrize(("shape", "pool"), FORMS.values(), ids=FORMS)
def test_swapped_graph_computes_the_same_bits(shape: str, pool: str, shift: float) -> None:
    x, model = drawn(*map(int, shape.strip("[]").split(",")), shift=shift), parse(pool, shape)
    (before,) = rewriting.by_onnxruntime(model, x)

    done = rewriting.rewrite(relu_after_pool, model, x)

    assert (done.outcome.fired, done.outcome.refused) == (1, ())
    assert done.operators == [pool.split("Pool")[0] + "Pool", "Relu"]
    assert done.difference == 0
    assert np.array_equal(before, rewriting.by_onnxruntime(model, x)[0])


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 22])
def test_every_operator_set_is_rewritten(opset: int) -> None:
    done = rewriting.rewrite(relu_after_pool, parse(FORMS["padded"][1], opset=opset), drawn(1, 3, 6, 6))

    assert (done.operators, done.difference) == (["MaxPool", "Relu"], 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_graph_of_another_float_type_is_rewritten(dtype: type) -> None:
    text = "g (float[1,3,6,6] x) => (float[1,3,5,5] y) { r = Relu(x) y = MaxPool<kernel_shape=[2,2]>(r) }"

    done = rewriting.rewrite(relu_after_pool, rewriting.typed(text, dtype), drawn(1, 3, 6, 6))

    assert (done.operators, done.difference) == (["MaxPool", "Relu"], 0)


def test_swapped_graph_computes_what_torch_does() -> None:
    x, model = drawn(1, 3, 6, 6), parse(FORMS["padded"][1])

    relu_after_pool.apply(model)

    wanted = torch.nn.functional.max_pool2d(torch.relu(torch.from_numpy(x)), 3, 2, 1)
    assert np.array_equal(wanted.numpy(), rewriting.by_onnxruntime(model, x)[0])


@pytest.mark.parametrize(("batch", "pixels"), [(1, 4), (3, 9)])
def test_open_batch_and_pixels_stay_open(batch: int, pixels: int) -> None:
    model = tiny_graphs.parse(
        "g (float[N,3,H,W] x) => (float[N,3,P,Q] y) { r = Relu(x) y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) }"
    )

    done = rewriting.rewrite(relu_after_pool, model, drawn(batch, 3, pixels, pixels))

    assert (done.outcome.fired, done.difference) == (1, 0)


def test_relu_climbs_down_past_pools_in_a_row() -> None:
    model = tiny_graphs.parse(
        "g (float[1,3,6,6] x) => (float[1,3,1,1] y) { r = Relu(x) p = MaxPool<kernel_shape=[2,2]>(r) "
        "y = GlobalMaxPool(p) }"
    )

    done = rewriting.rewrite(relu_after_pool, model, drawn(1, 3, 6, 6))

    assert done.operators == ["MaxPool", "GlobalMaxPool", "Relu"]
    assert (done.outcome.fired, done.difference) == (2, 0)


def test_pool_climbs_over_relus_in_a_row() -> None:
    model = tiny_graphs.parse(
        "g (float[1,3,6,6] x) => (float[1,3,1,1] y) { a = Relu(x) b = Relu(a) y = GlobalMaxPool(b) }"
    )

    done = rewriting.rewrite(relu_after_pool, model, drawn(1, 3, 6, 6))

    assert done.operators == ["GlobalMaxPool", "Relu", "Relu"]
    assert done.outcome.fired == 2


def test_swap_keeps_the_names_of_the_output_and_of_the_value_between() -> None:
    model = parse(FORMS["plain"][1])

    relu_after_pool.apply(model)

    assert [value.name for value in model.graph.outputs] == ["y"]
    assert [node.outputs[0].name for node in model.graph] == ["r", "y"]


def test_result_that_is_an_output_in_the_middle_and_read_too_stays_both() -> None:
    model = tiny_graphs.parse(
        "g (float[1,3,6,6] x) => (float[1,3,1,1] z, float[1,3,1,1] p, float[1,3,6,6] q) "
        "{ r = Relu(x) p = GlobalMaxPool(r) z = Neg(p) q = Abs(x) }"
    )

    done = rewriting.rewrite(relu_after_pool, model, drawn(1, 3, 6, 6))

    assert done.operators == ["GlobalMaxPool", "Relu", "Neg", "Abs"]
    assert (done.outcome.fired, done.difference) == (1, 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "(float[1,3,3,3] y, int64[1,3,3,3] i) { r = Relu(x) y, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) }",
            "the pool gives indices too",
        ),
        ("(float[1,3,1,1] y, float[1,3,6,6] z) { r = Relu(x) y = GlobalMaxPool(r) z = Neg(r) }",
         "the ReLU feeds others too"),
        ("(float[1,3,1,1] y, float[1,3,6,6] r) { r = Relu(x) y = GlobalMaxPool(r) }", "the ReLU feeds others too"),
        (
            "(float[1,3,3,3] y) "
            "{ r = Relu(x) y = MaxPool<kernel_shape=[2,2], dilations=[5,5], pads=[1,1,1,1]>(r) }",
            "a window of the pool may hold padding alone",
        ),
    ],
    ids=["indices", "two readers", "an output", "dilated padding"],
)  # fmt: skip
def test_refusal_gives_its_reason_and_leaves_the_graph(text: str, reason: str) -> None:
    model = tiny_graphs.parse(f"g (float[1,3,6,6] x) => {text}")
    before = tiny_graphs.operators(model)

    done = rewriting.rewrite(relu_after_pool, model, drawn(1, 3, 6, 6))

    assert (done.outcome.fired, done.outcome.refused, done.operators) == (0, ((reason, 1),), before)


def test_pool_of_padding_alone_would_have_been_noticed() -> None:
    """ONNX Runtime gives the lowest float for a window without a pixel; a ReLU behind it would make that 0."""
    x = np.full((1, 1, 1, 1), -5, np.float32)
    model = parse("MaxPool<kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]>(r)", "[1,1,1,1]")
    (before,) = rewriting.by_onnxruntime(model, x)
    relu, pool = model.graph

    edit.swap(model, relu, pool, None)

    assert (before < -1e38).all()
    assert not rewriting.by_onnxruntime(model, x)[0].any()


@pytest.mark.parametrize("pool", ["AveragePool<kernel_shape=[2,2]>(r)", "GlobalAveragePool(r)"])
def test_average_does_not_commute_and_is_not_looked_at(pool: str) -> None:
    x, model = drawn(1, 3, 6, 6), parse(pool)
    before = rewriting.by_onnxruntime(model, x)

    done = rewriting.rewrite(relu_after_pool, model, x)
    edit.swap(model, model.graph[0], model.graph[1], None)

    assert (done.outcome.fired, done.outcome.refused) == (0, ())
    assert rewriting.differences(before, rewriting.by_onnxruntime(model, x))[0] > 0.1


def test_other_activation_is_not_looked_at() -> None:
    text = "g (float[1,3,6,6] x) => (float[1,3,1,1] y) { r = Abs(x) y = GlobalMaxPool(r) }"

    done = rewriting.rewrite(relu_after_pool, tiny_graphs.parse(text), drawn(1, 3, 6, 6))

    assert (done.outcome.fired, done.outcome.refused) == (0, ())


def test_tiny_densenet_swaps_the_stem() -> None:
    model, x = tiny_graphs.exported_model(), tiny_graphs.images()
    (before,) = tiny_graphs.evaluate(model, x)

    outcome = relu_after_pool.apply(model)

    assert outcome.fired == 1
    assert metrics.relative_difference(before, tiny_graphs.evaluate(tiny_graphs.reread(model), x)[0]) == 0
