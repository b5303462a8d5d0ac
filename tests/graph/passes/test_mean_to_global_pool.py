"""Tests of the pass `mean_to_global_pool`: a mean over all pixels, however its axes are written, and nothing else."""

import numpy as np
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs
import torch

from deploy_kit.graph import passes
from deploy_kit.graph.passes import fold_constants, mean_to_global_pool

DOUBLE = 1e-13  # float64 sums in another order
X = np.random.default_rng(8).standard_normal((2, 3, 5, 4)).astype(np.float32) + np.float32(0.3)


def parse(axes: str, attributes: str = "", *, opset: int, shape: str = "[2,3,5,4]", out: str = "[A,B,C,D]") -> ir.Model:
    """Read a mean whose axes are an attribute before operator set 18, an initializer from there on."""
    n_axes = axes.count(",") + 1
    if opset < 18:
        attributes = ", ".join(filter(None, [f"axes=[{axes}]", attributes]))
        return tiny_graphs.parse(f"g (float{shape} x) => (float{out} y) {{ y = ReduceMean<{attributes}>(x) }}", opset)
    mean = f"ReduceMean<{attributes}>(x, k)" if attributes else "ReduceMean(x, k)"
    text = f"g (float{shape} x) => (float{out} y) <int64[{n_axes}] k = {{{axes}}}> {{ y = {mean} }}"
    return tiny_graphs.parse(text, opset)


@pytest.mark.parametrize("attributes", ["", "keepdims=1"])
@pytest.mark.parametrize("axes", ["2, 3", "-1, -2", "3, 2", "2, -1"])
@pytest.mark.parametrize("opset", [13, 17, 18, 21, 22])
def test_mean_over_the_pixels_is_a_global_pool(opset: int, axes: str, attributes: str) -> None:
    model = parse(axes, attributes, opset=opset)

    done = rewriting.rewrite(mean_to_global_pool, model, X)

    assert (done.outcome.fired, done.outcome.refused) == (1, ())
    assert done.operators == ["GlobalAveragePool"]
    assert done.difference <= DOUBLE


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize(
    ("shape", "axes", "out"),
    [("[2,3,7]", "2", "[A,B,C]"), ("[2,3,2,3,4]", "2, 3, 4", "[A,B,C,D,E]")],
    ids=["1-D", "3-D"],
)
def test_other_ranks_are_rewritten(shape: str, axes: str, out: str, opset: int) -> None:
    model = parse(axes, opset=opset, shape=shape, out=out)
    x = np.random.default_rng(9).standard_normal([int(side) for side in shape.strip("[]").split(",")])

    done = rewriting.rewrite(mean_to_global_pool, model, x)

    assert (done.operators, done.outcome.fired) == (["GlobalAveragePool"], 1)
    assert done.difference <= DOUBLE


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize(
    ("axes", "attributes", "out", "reason"),
    [
        ("2", "", "[A,B,C,D]", "it does not average over the pixels alone"),
        ("1, 2, 3", "", "[A,B,C,D]", "it does not average over the pixels alone"),
        ("1, 2", "", "[A,B,C,D]", "it does not average over the pixels alone"),
        ("0, 2, 3", "keepdims=0", "[A]", "it does not average over the pixels alone"),
        ("2, 3", "keepdims=0", "[A,B]", "it drops the axes"),
    ],
    ids=["one axis", "channels too", "NHWC", "batch too", "axes dropped"],
)
def test_refusal_gives_its_reason_and_leaves_the_graph(
    axes: str, attributes: str, out: str, reason: str, opset: int
) -> None:
    done = rewriting.rewrite(mean_to_global_pool, parse(axes, attributes, opset=opset, out=out), X)

    assert (done.outcome.fired, done.outcome.refused, done.operators) == (0, ((reason, 1),), ["ReduceMean"])


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2,3,5,4] x) => (float[A,B,C,D] y) { y = ReduceMean(x) }",
        "g (float[2,3,5,4] x) => (float[A,B,C,D] y) { y = ReduceMean<noop_with_empty_axes=1>(x) }",
        "g (float[6,4] x) => (float[A,B] y) <int64[1] k = {1}> { y = ReduceMean(x, k) }",
    ],
    ids=["all axes", "no axis", "rank 2"],
)
def test_mean_without_pixels_of_its_own_stays(text: str) -> None:
    model = tiny_graphs.parse(text)
    x = X if len(model.graph.inputs[0].shape) == 4 else X.reshape(-1)[:24].reshape(6, 4)

    done = rewriting.rewrite(mean_to_global_pool, model, x)

    assert done.outcome.refused == (("it does not average over the pixels alone", 1),)


def test_computed_axes_are_not_known() -> None:
    model = tiny_graphs.parse("g (float[2,3,5,4] x, int64[2] k) => (float[A,B,C,D] y) { y = ReduceMean(x, k) }")

    outcome = mean_to_global_pool.apply(model)

    assert (outcome.fired, outcome.refused) == (0, (("it does not average over the pixels alone", 1),))


def test_mean_of_integers_stays() -> None:
    """ReduceMean takes integers, GlobalAveragePool does not; ONNX's checker would not notice."""
    model = tiny_graphs.parse(
        "g (int32[2,3,5,4] x) => (int32[A,B,C,D] y) <int64[2] k = {2, 3}> { y = ReduceMean(x, k) }"
    )

    outcome = mean_to_global_pool.apply(model)

    assert (outcome.fired, outcome.refused) == (0, (("the pool does not take its type", 1),))
    rewriting.by_onnxruntime(model, X)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_graph_of_another_float_type_is_rewritten(dtype: type) -> None:
    text = "g (float[2,3,5,4] x) => (float[2,3,1,1] y) <int64[2] k = {2, 3}> { y = ReduceMean(x, k) }"

    done = rewriting.rewrite(mean_to_global_pool, rewriting.typed(text, dtype), X)

    assert (done.outcome.fired, done.operators) == (1, ["GlobalAveragePool"])
    assert done.difference <= DOUBLE


@pytest.mark.parametrize(("batch", "pixels"), [(1, 3), (4, 8)])
def test_open_batch_and_pixels_stay_open(batch: int, pixels: int) -> None:
    text = "g (float[N,3,H,W] x) => (float[N,3,1,1] y) <int64[2] k = {2, 3}> { y = ReduceMean(x, k) }"
    x = np.random.default_rng(pixels).standard_normal((batch, 3, pixels, pixels))

    done = rewriting.rewrite(mean_to_global_pool, tiny_graphs.parse(text), x)

    assert done.outcome.fired == 1
    assert done.difference <= DOUBLE


def test_mean_that_is_an_output_and_read_too_keeps_its_name_and_its_readers() -> None:
    model = tiny_graphs.parse(
        "g (float[2,3,5,4] x) => (float[2,3,1,1] z, float[2,3,1,1] m, float[2,3] f) <int64[2] k = {2, 3}> "
        "{ m = ReduceMean(x, k) z = Neg(m) f = Flatten(m) }"
    )

    done = rewriting.rewrite(mean_to_global_pool, model, X)

    assert done.operators == ["GlobalAveragePool", "Neg", "Flatten"]
    assert [value.name for value in model.graph.outputs] == ["z", "m", "f"]
    assert done.difference <= DOUBLE


def test_axes_that_another_node_reads_stay() -> None:
    model = tiny_graphs.parse(
        "g (float[2,3,5,4] x) => (float[2,3,1,1] y, float[2,3,1,1] z) <int64[2] k = {2, 3}> "
        "{ y = ReduceMean(x, k) z = ReduceMax(x, k) }"
    )

    done = rewriting.rewrite(mean_to_global_pool, model, X)

    assert done.operators == ["GlobalAveragePool", "ReduceMax"]


def test_global_pool_computes_what_torch_does() -> None:
    model = parse("2, 3", opset=18)

    mean_to_global_pool.apply(model)

    wanted = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(X), 1).numpy()
    assert rewriting.differences([wanted], rewriting.by_onnxruntime(model, X))[0] < 1e-6


@pytest.mark.slow
def test_end_of_a_densenet_is_rewritten() -> None:
    """Both of torch's exporters write a mean."""
    models = [tiny_graphs.exported_model(exporter) for exporter in ("dynamo", "torchscript")]
    for model in models:
        fold_constants.apply(model)

    assert [mean_to_global_pool.apply(model).fired for model in models] == [1, 1]


def test_comparison_notices_a_mean_of_one_pixel_less() -> None:
    model = parse("2, 3", opset=18)
    before = tiny_graphs.evaluate(model, X)
    mean_to_global_pool.apply(model)

    after = tiny_graphs.evaluate(model, X[..., :-1])

    assert rewriting.differences(before, after)[0] > 1e-2


def test_default_passes_turn_a_mean_into_a_pool_before_they_swap_pools() -> None:
    order = passes.default_passes()

    assert order.index("mean_to_global_pool") < order.index("pool_before_conv")
