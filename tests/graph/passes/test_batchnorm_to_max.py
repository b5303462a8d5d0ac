"""Tests of the pass `batchnorm_to_max`: its equation in float64 for slopes of every kind, and each reason to refuse."""

import numpy as np
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs
import torch

from deploy_kit.graph.passes import batchnorm_to_max

BOUND = 1e-6  # threshold, weight and bias are rounded to float32 once each: 3 · 2^-24, and sums of eight of them
EPS = 2.0**-6  # the file holds a float32: exact
NORM = f"BatchNormalization<epsilon = {EPS}>"
HEAD = f"n = {NORM}(x, g, b, m, v) r = Relu(n)"
BOTH = np.array([1.5, -0.7, 0.3, -2.0, 1.0, -1.0, 0.01, -0.01])
FORMS = {
    "plain": ("[2,8,5,5]", "y = Conv(r, w)"),
    "bias": ("[2,8,5,5]", "y = Conv(r, w, c)"),
    "strides": ("[2,8,5,5]", "y = Conv<strides=[2,2]>(r, w, c)"),
    "valid": ("[2,8,5,5]", 'y = Conv<auto_pad="VALID">(r, w, c)'),
    "pool": ("[2,8,6,6]", "p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(r) y = Conv(p, w, c)"),
    "padded pool that does not count": (
        "[2,8,6,6]", "p = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r) y = Conv(p, w, c)",
    ),
    "pool with a ceiling": (
        "[2,8,5,5]", "p = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(r) y = Conv(p, w, c)",
    ),
    "counting pool, nothing padded": (
        "[2,8,6,6]", "p = AveragePool<kernel_shape=[2,2], strides=[2,2], count_include_pad=1>(r) y = Conv(p, w, c)",
    ),
    "1-D": ("[2,8,9]", "y = Conv(r, w, c)"),
    "3-D": ("[1,8,3,4,5]", "y = Conv(r, w, c)"),
}  # fmt: skip


def dims_of(shape: str) -> list[int]:
    return [int(side) for side in shape.strip("[]").split(",")]


def drawn(*dims: int) -> np.ndarray:
    return np.random.default_rng(11).standard_normal(dims).astype(np.float32) * 3


def weights(rank: int = 4, kernel: int = 1, **others: np.ndarray) -> dict[str, np.ndarray]:
    """Draw a BN of 8 channels with slopes of both signs, and a convolution to 6."""
    generator = np.random.default_rng(12)
    return {
        "g": BOTH,
        "b": generator.standard_normal(8),
        "m": generator.standard_normal(8),
        "v": np.array([0.5, 3.0, 1e-6, 10.0, 1.0, 0.2, 0.1, 2.0]),
        "w": generator.standard_normal((6, 8, *[kernel] * (rank - 2))),
        "c": generator.standard_normal(6),
    } | others


def parse(text: str, shape: str = "[2,8,5,5]", opset: int = 18, kernel: int = 1, **others: np.ndarray) -> ir.Model:
    rank = len(dims_of(shape))
    used = {k: v for k, v in weights(rank, kernel, **others).items() if k != "c" or "w, c" in text}
    axes = ",".join("NCHWD"[:rank])
    return tiny_graphs.parse(f"g (float{shape} x) => (float[{axes}] y) {{ {HEAD} {text} }}", opset, **used)


@pytest.mark.parametrize(("shape", "text"), FORMS.values(), ids=FORMS)
def test_rewritten_graph_computes_what_it_did(shape: str, text: str) -> None:
    done = rewriting.rewrite(batchnorm_to_max, parse(text, shape), drawn(*dims_of(shape)))

    assert (done.outcome.fired, done.outcome.refused) == (1, ())
    assert done.operators == ["Max", "Min", *(["AveragePool"] if "Pool" in text else []), "Conv"]
    assert done.difference <= BOUND


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 22])
def test_every_operator_set_is_rewritten(opset: int) -> None:
    done = rewriting.rewrite(batchnorm_to_max, parse(FORMS["bias"][1], opset=opset), drawn(2, 8, 5, 5))

    assert done.operators == ["Max", "Min", "Conv"]
    assert done.difference <= BOUND


def test_kernel_of_three_pixels_is_rewritten_where_nothing_is_padded() -> None:
    done = rewriting.rewrite(batchnorm_to_max, parse("y = Conv(r, w, c)", kernel=3), drawn(2, 8, 5, 5))

    assert done.operators == ["Max", "Min", "Conv"]
    assert done.difference <= BOUND


@pytest.mark.parametrize(
    ("gamma", "wanted"),
    [
        (np.abs(BOTH), ["Max", "Conv"]),
        (-np.abs(BOTH), ["Min", "Conv"]),
        (np.where(BOTH > 0, BOTH, 0), ["Max", "Conv"]),
        (np.where(BOTH > 0, BOTH, -0.0), ["Max", "Conv"]),
        (np.where(BOTH > 0, 0, BOTH), ["Min", "Conv"]),
        (np.where(np.arange(8) < 3, 0, BOTH), ["Max", "Min", "Conv"]),
        (BOTH * 1e-3, ["Max", "Min", "Conv"]),
        (BOTH * 1e-12, ["Max", "Min", "Conv"]),
        (BOTH * 1e12, ["Max", "Min", "Conv"]),
    ],
    ids=[
        "positive", "negative", "zero or positive", "minus zero or positive", "zero or negative", "all three", "small",
        "tiny: thresholds of 1e12", "huge",
    ],
)  # fmt: skip
def test_slopes_of_every_kind_keep_the_outputs(gamma: np.ndarray, wanted: list[str]) -> None:
    done = rewriting.rewrite(batchnorm_to_max, parse("y = Conv(r, w, c)", g=gamma), drawn(2, 8, 5, 5))

    assert done.operators == wanted
    assert done.difference <= BOUND


@pytest.mark.parametrize("gamma", [0.0, -0.0, 1e-37, -1e-37, 1e-40, -1e-40])
def test_channels_that_never_reach_their_threshold_are_constants(gamma: float) -> None:
    """With thresholds above 1e30 a channel gives relu(b): a bias of the convolution, and nothing to compare with."""
    model = parse("y = Conv(r, w, c)", g=np.full(8, gamma), m=np.zeros(8))

    done = rewriting.rewrite(batchnorm_to_max, model, drawn(2, 8, 5, 5))

    parts = weights()
    wanted = parts["c"] + parts["w"][:, :, 0, 0] @ np.maximum(parts["b"], 0)
    assert done.operators == ["Conv"]
    assert done.difference <= BOUND
    np.testing.assert_allclose(model.graph.initializers["y.bias"].const_value.numpy(), wanted, rtol=1e-6)
    assert not model.graph.initializers["y.weight"].const_value.numpy().any()


def test_no_bound_and_no_weight_is_infinite_or_not_a_number() -> None:
    gamma = np.array([0, -0.0, 1e-40, 1e-29, -1e-29, 1e30, 1, -1])
    model = parse("y = Conv(r, w, c)", g=gamma, b=np.array([0, 0, 0, 1, -1, 1, 0, 0]), m=np.zeros(8))

    done = rewriting.rewrite(batchnorm_to_max, model, drawn(2, 8, 5, 5))

    assert done.difference <= BOUND
    assert all(np.isfinite(array).all() for array in rewriting.constants(model).values())


def test_bounds_and_weights_are_those_of_the_equation_but_for_one_rounding() -> None:
    parts = {name: array.astype(np.float32).astype(np.float64) for name, array in weights().items()}
    slope = parts["g"] / np.sqrt(parts["v"] + EPS)
    offset = parts["b"] - slope * parts["m"]
    threshold, moved = -offset / slope, parts["w"][:, :, 0, 0] @ offset
    model = parse("y = Conv(r, w, c)")

    batchnorm_to_max.apply(model)

    found, never, half_an_ulp = rewriting.constants(model), np.float32(batchnorm_to_max.NEVER), 1.01 * 2.0**-24
    lower, upper = np.where(slope > 0, threshold, -never), np.where(slope < 0, threshold, never)
    np.testing.assert_allclose(found["n.max"].ravel(), lower, rtol=half_an_ulp)
    np.testing.assert_allclose(found["n.min"].ravel(), upper, rtol=half_an_ulp)
    np.testing.assert_allclose(found["y.weight"], parts["w"] * slope[:, None, None], rtol=half_an_ulp)
    np.testing.assert_allclose(found["y.bias"], parts["c"] + moved, rtol=half_an_ulp)
    assert found["n.max"].shape == (1, 8, 1, 1)


def test_thresholds_themselves_and_both_zeros_are_met() -> None:
    """μ = 0 and β = 0 put the threshold at zero, of either sign; pixels of both zeros lie on it."""
    model = parse("y = Conv(r, w, c)", b=np.zeros(8), m=np.zeros(8))
    x = np.resize(np.array([0.0, -0.0, 1.0, -1.0, 2.0], np.float32), (2, 8, 5, 5))

    done = rewriting.rewrite(batchnorm_to_max, model, x)

    assert done.difference <= BOUND
    (dark,) = rewriting.by_onnxruntime(model, np.copysign(np.zeros_like(x), -1))
    np.testing.assert_allclose(dark, np.broadcast_to(weights()["c"][:, None, None], dark.shape), rtol=1e-6)


def test_rewritten_graph_computes_what_torch_does() -> None:
    x, parts = (
        drawn(2, 8, 5, 5),
        {name: torch.from_numpy(array.astype(np.float32)) for name, array in weights().items()},
    )
    normed = torch.nn.functional.batch_norm(
        torch.from_numpy(x), parts["m"], parts["v"], parts["g"], parts["b"], eps=EPS
    )
    wanted = torch.nn.functional.conv2d(torch.relu(normed), parts["w"], parts["c"])
    model = parse("y = Conv(r, w, c)")

    batchnorm_to_max.apply(model)

    assert rewriting.differences([wanted.numpy()], rewriting.by_onnxruntime(model, x))[0] < 2e-6


def test_default_epsilon_is_that_of_onnx() -> None:
    text = f"g (float[2,8,5,5] x) => (float[2,6,5,5] y) {{ {HEAD} y = Conv(r, w, c) }}".replace(NORM, NORM[:18])
    model = tiny_graphs.parse(text, **weights())

    done = rewriting.rewrite(batchnorm_to_max, model, drawn(2, 8, 5, 5))

    assert done.outcome.fired == 1
    assert done.difference <= BOUND


def test_convolutions_that_share_the_relu_and_a_weight_are_each_rewritten() -> None:
    model = parse("p = Conv(r, w, c) q = Conv<strides=[1,1]>(r, w) s = Conv(r, w, c) y = Sum(p, q, s)")

    done = rewriting.rewrite(batchnorm_to_max, model, drawn(2, 8, 5, 5))

    assert done.operators == ["Max", "Min", "Conv", "Conv", "Conv", "Sum"]
    assert (done.outcome.fired, done.difference <= BOUND) == (1, True)


def test_weights_that_others_read_stay_as_they_are() -> None:
    """The same kernel and the same BN parameters serve a second place, where the pattern does not hold."""
    model = parse(f"p = Conv(r, w, c) k = {NORM}(x, g, b, m, v) q = Conv(k, w, c) y = Add(p, q)")
    before = rewriting.constants(model)

    done = rewriting.rewrite(batchnorm_to_max, model, drawn(2, 8, 5, 5))

    assert done.outcome.fired == 1
    assert done.outcome.refused == (("Conv follows it, not a ReLU", 1),)
    assert done.difference <= BOUND
    after = rewriting.constants(model)
    assert all(np.array_equal(array, after[name]) for name, array in before.items())


def test_names_that_the_graph_has_already_are_no_hindrance() -> None:
    text = '"n.max" = Neg(x) "n.max.out" = Abs("n.max") "y.bias" = Conv("n.max.out", w) z = Conv(r, w, c) '
    model = parse(text + 'y = Add(z, "y.bias")')

    done = rewriting.rewrite(batchnorm_to_max, model, drawn(2, 8, 5, 5))

    assert done.outcome.fired == 1
    assert done.difference <= BOUND


def test_source_that_others_read_or_that_is_an_output_stays_as_it_is() -> None:
    text = (
        f"g (float[2,8,5,5] z) => (float[2,8,5,5] t, float[2,6,5,5] y, float[2,8,5,5] x) "
        f"{{ x = Tanh(z) t = Neg(x) {HEAD} y = Conv(r, w, c) }}"
    )

    done = rewriting.rewrite(batchnorm_to_max, tiny_graphs.parse(text, **weights()), drawn(2, 8, 5, 5))

    assert done.operators == ["Tanh", "Neg", "Max", "Min", "Conv"]
    assert done.difference <= BOUND


@pytest.mark.parametrize(("batch", "pixels"), [(1, 3), (4, 7)])
def test_open_batch_and_pixels_stay_open(batch: int, pixels: int) -> None:
    text = f"g (float[N,8,H,W] x) => (float[N,6,H,W] y) {{ {HEAD} y = Conv(r, w, c) }}"

    done = rewriting.rewrite(batchnorm_to_max, tiny_graphs.parse(text, **weights()), drawn(batch, 8, pixels, pixels))

    assert (done.outcome.fired, done.difference <= BOUND) == (1, True)


@pytest.mark.parametrize("shape", ["[2,8,9]", "[1,8,3,4,5]"], ids=["1-D", "3-D"])
def test_type_and_rank_are_known_from_the_kernel_where_the_graph_records_neither(shape: str) -> None:
    axes = ",".join("NCHWD"[: len(dims_of(shape))])
    text = f"g (float{shape} z) => (float[{axes}] y) {{ x = Tanh(z) {HEAD} y = Conv(r, w, c) }}"
    model = rewriting.typed(text, np.float16, **weights(len(dims_of(shape))))
    for value in (node.outputs[0] for node in tuple(model.graph)[:-1]):
        value.shape = value.type = None

    batchnorm_to_max.apply(model)

    again = rewriting.inferred(tiny_graphs.reread(model))
    assert tiny_graphs.operators(again) == ["Tanh", "Max", "Min", "Conv"]
    assert list(again.graph[1].outputs[0].shape) == dims_of(shape)
    assert again.graph[1].outputs[0].dtype == ir.DataType.FLOAT16


def test_double_graph_is_rewritten_to_its_own_precision() -> None:
    text = f"g (float[2,8,5,5] x) => (float[2,6,5,5] y) {{ {HEAD} y = Conv(r, w, c) }}"

    done = rewriting.rewrite(batchnorm_to_max, rewriting.typed(text, np.float64, **weights()), drawn(2, 8, 5, 5))

    assert done.operators == ["Max", "Min", "Conv"]
    assert done.difference <= 1e-14


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5])
def test_half_precision_graph_keeps_finite_bounds(scale: float) -> None:
    """Thresholds beyond 65504 are beyond float16 too: those channels are constants."""
    text = f"g (float[2,8,5,5] x) => (float[2,6,5,5] y) {{ {HEAD} y = Conv(r, w, c) }}"
    model = rewriting.typed(text, np.float16, **weights(g=BOTH * scale))

    done = rewriting.rewrite(batchnorm_to_max, model, drawn(2, 8, 5, 5))

    assert done.difference <= 2.0**-8  # weights and thresholds of eleven bits, eight of them in a sum
    assert all(np.isfinite(array).all() for array in rewriting.constants(model).values())


REFUSED = {
    "computed gamma": (f"h = Abs(g) n = {NORM}(x, h, b, m, v) r = Relu(n) y = Conv(r, w)",
                       "a parameter is not a constant"),
    "training": ("n, mean, variance = BatchNormalization<training_mode = 1>(x, g, b, m, v) r = Relu(n) y = Conv(r, w)",
                 "it is in training mode"),
    "two readers": (f"{HEAD} p = Conv(r, w) q = Conv(n, w) y = Add(p, q)", "it does not feed one node alone"),
    "no ReLU": (f"n = {NORM}(x, g, b, m, v) r = LeakyRelu(n) y = Conv(r, w)", "LeakyRelu follows it, not a ReLU"),
    "another reader": (f"{HEAD} p = Conv(r, w) q = Conv(x, w) s = ReduceMax(r) y = Sum(p, q, s)",
                       "ReduceMax reads its ReLU, not a convolution"),
    "global pool": (f"{HEAD} p = GlobalAveragePool(r) y = Conv(p, w)",
                    "GlobalAveragePool reads its ReLU, not a convolution"),
    "max pool": (f"{HEAD} p = MaxPool<kernel_shape=[2,2]>(r) y = Conv(p, w)",
                 "MaxPool reads its ReLU, not a convolution"),
    "pool that counts padding": (
        f"{HEAD} p = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>(r) y = Conv(p, w)",
        "AveragePool reads its ReLU, not a convolution",
    ),
    "pool that counts a ceiling": (
        f"{HEAD} p = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1, count_include_pad=1>(r) "
        "y = Conv(p, w)",
        "AveragePool reads its ReLU, not a convolution",
    ),
    "another reader behind the pool": (f"{HEAD} p = AveragePool<kernel_shape=[2,2]>(r) y = Neg(p)",
                                       "Neg reads its ReLU, not a convolution"),
    "groups": (f"{HEAD} y = Conv<group=2>(r, w2)", "the convolution behind it has groups or computed weights"),
    "computed weights": (f"{HEAD} h = Abs(w) y = Conv(r, h)",
                         "the convolution behind it has groups or computed weights"),
    "computed bias": (f"{HEAD} h = Abs(c6) y = Conv(r, w, h)",
                      "the convolution behind it has groups or computed weights"),
    "it is the kernel": (f"{HEAD} y = Conv(k, r)", "the convolution behind it has groups or computed weights"),
    "padding": (f"{HEAD} y = Conv<pads=[1,1,1,1]>(r, w)", "the convolution behind it pads"),
    "automatic padding": (f'{HEAD} y = Conv<auto_pad="SAME_UPPER">(r, w3)', "the convolution behind it pads"),
    "one of two pads": (f"{HEAD} p = Conv(r, w) q = Conv<pads=[1,1,1,1]>(r, w3) y = Add(p, q)",
                        "the convolution behind it pads"),
    "nothing reads it": (f"{HEAD} y = Conv(x, w)", "nothing reads it"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED)
def test_refusal_gives_its_reason_and_leaves_the_graph(body: str, reason: str) -> None:
    generator = np.random.default_rng(13)
    drawn_too = {name: generator.standard_normal(shape) for name, shape in
                 (("w2", (6, 4, 1, 1)), ("w3", (6, 8, 3, 3)), ("c6", (6,)), ("k", (1, 8, 5, 5)))}  # fmt: skip
    used = {k: v for k, v in (weights() | drawn_too).items() if k != "c"}
    text = f"g (float[2,8,5,5] x) => (float[N,C,H,W] y) {{ {body} }}"
    model = tiny_graphs.parse(text, **used)
    before = tiny_graphs.operators(model)

    outcome = batchnorm_to_max.apply(model)

    assert (outcome.fired, outcome.refused) == (0, ((reason, 1),))
    assert tiny_graphs.operators(tiny_graphs.reread(model)) == before


@pytest.mark.parametrize(
    ("outputs", "text", "reason"),
    [
        ("n", "y = Conv(r, w, c)", "it does not feed one node alone"),
        ("r", "y = Conv(r, w, c)", "its Relu makes an output of the graph"),
        (
            "p",
            "p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(r) y = Conv(p, w, c)",
            "its AveragePool makes an output of the graph",
        ),
    ],
    ids=["BN", "ReLU", "pool"],
)
def test_what_is_an_output_too_is_not_rewritten(outputs: str, text: str, reason: str) -> None:
    header = f"g (float[2,8,6,6] x) => (float[2,6,A,B] y, float[2,8,C,D] {outputs})"
    model = tiny_graphs.parse(f"{header} {{ {HEAD} {text} }}", **weights())

    done = rewriting.rewrite(batchnorm_to_max, model, drawn(2, 8, 6, 6))

    assert (done.outcome.fired, done.outcome.refused, done.difference) == (0, ((reason, 1),), 0)


def test_training_is_known_by_further_outputs_before_operator_set_14() -> None:
    text = "n, m2, v2, s, t = BatchNormalization(x, g, b, m, v) r = Relu(n) y = Conv(r, w)"
    parts = {name: array for name, array in weights().items() if name != "c"}
    model = tiny_graphs.parse(f"g (float[2,8,5,5] x) => (float[2,6,5,5] y) {{ {text} }}", 13, **parts)

    assert batchnorm_to_max.apply(model).refused == (("it is in training mode", 1),)


@pytest.mark.parametrize("case", ["padding", "pool that counts padding"])
def test_rewrite_that_is_refused_would_have_been_noticed(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy_kit.graph.edit.pads", lambda node: False)
    parts = {name: array for name, array in weights().items() if name != "c"}
    model = tiny_graphs.parse(f"g (float[2,8,5,5] x) => (float[N,C,H,W] y) {{ {REFUSED[case][0]} }}", **parts)
    before = rewriting.by_onnxruntime(model, drawn(2, 8, 5, 5))

    outcome = batchnorm_to_max.apply(model)

    assert outcome.fired == 1
    assert rewriting.differences(before, rewriting.by_onnxruntime(model, drawn(2, 8, 5, 5)))[0] > 1e-2


@pytest.mark.parametrize("name", ["n.max", "n.min", "y.weight", "y.bias"])
def test_comparison_notices_one_constant_that_is_off_by_a_thousandth(name: str) -> None:
    model, x = parse("y = Conv(r, w, c)"), drawn(2, 8, 5, 5)
    before = tiny_graphs.evaluate(model, x)
    batchnorm_to_max.apply(model)
    value = model.graph.initializers[name]
    array = value.const_value.numpy().copy()
    array.reshape(-1)[3 if name == "n.min" else 4] *= np.float32(1.001)
    value.const_value = ir.tensor(array, name=name)

    after = tiny_graphs.evaluate(model, x)

    assert rewriting.differences(before, after)[0] > batchnorm_to_max.PASS.promise
