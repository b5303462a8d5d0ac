"""Tests of the pass `fold_batchnorm_into_next`: its equation in float64, and each reason not to fold."""

import numpy as np
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs
import torch

from deploy_kit.graph import passes
from deploy_kit.graph.passes import fold_batchnorm_into_next

BOUND = 1e-6  # weight and bias are rounded to float32 once each: 2 · 2^-24, and sums of four to 36 of them
EPS = 2.0**-6  # the file holds a float32: exact
NORM = f"BatchNormalization<epsilon = {EPS}>"
PLAIN = "y = Conv(n, w)"
BIASED = "y = Conv(n, w, c)"
CONVS = {
    "plain": ("[2,4,5,5]", PLAIN, 1),
    "bias": ("[2,4,5,5]", BIASED, 1),
    "no bias by an empty name": ("[2,4,5,5]", 'y = Conv(n, w, "")', 1),
    "3×3": ("[2,4,5,5]", BIASED, 3),
    "strides and dilations": ("[2,4,7,7]", "y = Conv<strides=[2,2], dilations=[2,2]>(n, w, c)", 3),
    "valid": ("[2,4,5,5]", 'y = Conv<auto_pad="VALID">(n, w, c)', 3),
    "pads stated as none": ("[2,4,5,5]", "y = Conv<pads=[0,0,0,0], group=1>(n, w, c)", 3),
    "1-D": ("[2,4,7]", BIASED, 3),
    "3-D": ("[1,4,3,4,5]", BIASED, 2),
}


def dims_of(shape: str) -> list[int]:
    return [int(side) for side in shape.strip("[]").split(",")]


def drawn(*dims: int) -> np.ndarray:
    return np.random.default_rng(21).standard_normal(dims).astype(np.float32)


def weights(rank: int = 4, kernel: int = 1, **others: np.ndarray) -> dict[str, np.ndarray]:
    """Draw a BN of 4 channels, one of slope zero and one of a variance near zero, and a convolution to 6."""
    generator = np.random.default_rng(22)
    return {
        "g": np.array([1.5, -0.7, 0.0, 2.0]),
        "b": generator.standard_normal(4),
        "m": generator.standard_normal(4),
        "v": np.array([0.5, 3.0, 1.0, 1e-6]),
        "w": generator.standard_normal((6, 4, *[kernel] * (rank - 2))),
        "c": generator.standard_normal(6),
    } | others


def text_of(body: str, shape: str = "[2,4,5,5]") -> str:
    axes = ",".join("NCHWD"[: len(dims_of(shape))])
    return f"g (float{shape} x) => (float[{axes}] y) {{ n = {NORM}(x, g, b, m, v) {body} }}"


def parse(body: str, shape: str = "[2,4,5,5]", kernel: int = 1, opset: int = 18, **others: np.ndarray) -> ir.Model:
    used = {
        name: array
        for name, array in weights(len(dims_of(shape)), kernel, **others).items()
        if name != "c" or "w, c" in body
    }
    return tiny_graphs.parse(text_of(body, shape), opset, **used)


@pytest.mark.parametrize(("shape", "body", "kernel"), CONVS.values(), ids=CONVS)
def test_folded_convolution_computes_what_both_did(shape: str, body: str, kernel: int) -> None:
    done = rewriting.rewrite(fold_batchnorm_into_next, parse(body, shape, kernel), drawn(*dims_of(shape)))

    assert (done.outcome.fired, done.outcome.refused, done.operators) == (1, (), ["Conv"])
    assert done.difference <= BOUND


GEMMS = {
    "transposed": ("y = Gemm<transB=1>(n, w, c)", (6, 4), (6,)),
    "as it is": ("y = Gemm(n, w, c)", (4, 6), (6,)),
    "no bias": ("y = Gemm(n, w)", (4, 6), None),
    "factors of one": ("y = Gemm<alpha=1.0, beta=1.0, transA=0>(n, w, c)", (4, 6), (6,)),
    "one number as bias": ("y = Gemm(n, w, c)", (4, 6), ()),
    "one number as a vector": ("y = Gemm(n, w, c)", (4, 6), (1,)),
    "a row as bias": ("y = Gemm(n, w, c)", (4, 6), (1, 6)),
    "a column as bias": ("y = Gemm<transB=1>(n, w, c)", (6, 4), (3, 1)),
    "a bias for each image": ("y = Gemm(n, w, c)", (4, 6), (3, 6)),
}


@pytest.mark.parametrize(("body", "kernel", "bias"), GEMMS.values(), ids=GEMMS)
def test_folded_gemm_computes_what_both_did(body: str, kernel: tuple[int, ...], bias: tuple[int, ...] | None) -> None:
    parts = weights(w=np.random.default_rng(23).standard_normal(kernel))
    parts["c"] = np.random.default_rng(24).standard_normal(bias or ())
    used = {name: array for name, array in parts.items() if name != "c" or bias is not None}
    model = tiny_graphs.parse(text_of(body, "[3,4]"), **used)

    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(3, 4))

    assert (done.outcome.fired, done.operators) == (1, ["Gemm"])
    assert done.difference <= BOUND


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 22])
def test_every_operator_set_is_folded(opset: int) -> None:
    done = rewriting.rewrite(fold_batchnorm_into_next, parse(BIASED, opset=opset), drawn(2, 4, 5, 5))

    assert done.operators == ["Conv"]
    assert done.difference <= BOUND


@pytest.mark.parametrize("pads", ["pads=[1,1,1,1]", 'auto_pad="SAME_UPPER"'])
def test_padding_is_no_hindrance_where_nothing_is_added(pads: str) -> None:
    """With β = μ = 0 the BN maps 0 to 0, and so the border to itself."""
    model = parse(f"y = Conv<{pads}>(n, w, c)", kernel=3, b=np.zeros(4), m=np.zeros(4))

    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(2, 4, 5, 5))

    assert done.operators == ["Conv"]
    assert done.difference <= BOUND


def test_folded_weights_are_those_of_the_equation_but_for_one_rounding() -> None:
    parts = {name: array.astype(np.float32).astype(np.float64) for name, array in weights(kernel=3).items()}
    slope = parts["g"] / np.sqrt(parts["v"] + EPS)
    shift = parts["b"] - slope * parts["m"]
    model = parse(BIASED, kernel=3)

    fold_batchnorm_into_next.apply(model)

    found, half_an_ulp = rewriting.constants(model), 1.01 * 2.0**-24
    np.testing.assert_allclose(found["y.weight"], parts["w"] * slope[:, None, None], rtol=half_an_ulp)
    moved = np.einsum("oihw,i->o", parts["w"], shift)
    np.testing.assert_allclose(found["y.bias"], parts["c"] + moved, rtol=half_an_ulp)


def test_folded_graph_computes_what_torch_does() -> None:
    x, parts = (
        drawn(2, 4, 5, 5),
        {name: torch.from_numpy(array.astype(np.float32)) for name, array in weights().items()},
    )
    normed = torch.nn.functional.batch_norm(
        torch.from_numpy(x), parts["m"], parts["v"], parts["g"], parts["b"], eps=EPS
    )
    wanted = torch.nn.functional.conv2d(normed, parts["w"], parts["c"])
    model = parse(BIASED)

    fold_batchnorm_into_next.apply(model)

    assert rewriting.differences([wanted.numpy()], rewriting.by_onnxruntime(model, x))[0] < 1e-6


@pytest.mark.parametrize(("dtype", "bound"), [(np.float16, 2.0**-9), (np.float64, 1e-14)])
def test_graph_of_another_float_type_is_folded_to_its_own_precision(dtype: type, bound: float) -> None:
    model = rewriting.typed(text_of(BIASED), dtype, **weights())

    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(2, 4, 5, 5))

    assert done.operators == ["Conv"]
    assert done.difference <= bound


@pytest.mark.parametrize(("batch", "pixels"), [(1, 3), (4, 7)])
def test_open_batch_and_pixels_stay_open(batch: int, pixels: int) -> None:
    text = f"g (float[N,4,H,W] x) => (float[N,6,H,W] y) {{ n = {NORM}(x, g, b, m, v) {BIASED} }}"

    model = tiny_graphs.parse(text, **weights())
    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(batch, 4, pixels, pixels))

    assert (done.outcome.fired, done.difference <= BOUND) == (1, True)


def test_weights_that_others_read_stay_as_they_are() -> None:
    model = parse(f"p = Conv(n, w, c) q = Conv(x, w, c) k = {NORM}(q, a, a, a, a) y = Add(p, k)", a=np.ones(6))
    before = rewriting.constants(model)

    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(2, 4, 5, 5))

    after = rewriting.constants(model)
    assert done.operators == ["Conv", "Conv", "BatchNormalization", "Add"]
    assert done.outcome.refused == (("Add follows it, not a convolution", 1),)
    assert done.difference <= BOUND
    assert all(np.array_equal(array, after[name]) for name, array in before.items())


def test_norms_in_a_row_fold_from_the_last_on() -> None:
    model = parse(f"k = {NORM}(n, b, g, m, v) y = Conv(k, w, c)")

    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(2, 4, 5, 5))

    assert (done.outcome.fired, done.outcome.refused, done.operators) == (2, (), ["Conv"])
    assert done.difference <= BOUND


def test_source_and_result_that_are_outputs_keep_their_names() -> None:
    text = (
        f"g (float[2,4,5,5] z) => (float[2,4,5,5] x, float[2,6,5,5] y, float[2,6,5,5] t) "
        f"{{ x = Tanh(z) n = {NORM}(x, g, b, m, v) {BIASED} t = Neg(y) }}"
    )
    model = tiny_graphs.parse(text, **weights())

    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(2, 4, 5, 5))

    assert done.operators == ["Tanh", "Conv", "Neg"]
    assert [value.name for value in model.graph.outputs] == ["x", "y", "t"]
    assert done.difference <= BOUND


REFUSED = {
    "ReLU between": ("r = Relu(n) y = Conv(r, w)", "Relu follows it, not a convolution"),
    "two readers": ("p = Conv(n, w) q = Conv(n, w) y = Add(p, q)", "it does not feed one node alone"),
    "twice in one node": ("y = Add(n, n)", "it does not feed one node alone"),
    "nothing reads it": ("y = Conv(x, w)", "it does not feed one node alone"),
    "groups": ("y = Conv<group=2>(n, w2)", "the convolution has groups"),
    "padding": ("y = Conv<pads=[1,1,1,1]>(n, w3)", "the convolution pads"),
    "padding on one side": ("y = Conv<pads=[0,0,0,1]>(n, w3)", "the convolution pads"),
    "automatic padding": ('y = Conv<auto_pad="SAME_LOWER">(n, w3)', "the convolution pads"),
    "computed weights": ("h = Abs(w) y = Conv(n, h)", "a parameter is not a constant"),
    "computed bias": ("h = Abs(c6) y = Conv(n, w, h)", "a parameter is not a constant"),
    "transposed convolution": ("y = ConvTranspose(n, w4)", "ConvTranspose follows it, not a convolution"),
    "it is the kernel": ("y = Conv(k, n)", "Conv follows it, not a convolution"),
}


def refused_model(body: str) -> ir.Model:
    generator = np.random.default_rng(25)
    shapes = {"w2": (6, 2, 1, 1), "w3": (6, 4, 3, 3), "w4": (4, 6, 1, 1), "c6": (6,), "k": (1, 4, 5, 5)}
    more = {name: generator.standard_normal(shape) for name, shape in shapes.items()}
    used = {name: array for name, array in (weights() | more).items() if name != "c"}
    return tiny_graphs.parse(text_of(body), **used)


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED)
def test_refusal_gives_its_reason_and_leaves_the_graph(body: str, reason: str) -> None:
    model = refused_model(body)
    before = tiny_graphs.operators(model)

    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(2, 4, 5, 5))

    assert (done.outcome.fired, done.outcome.refused, done.operators) == (0, ((reason, 1),), before)


@pytest.mark.parametrize("attributes", ["alpha=0.5", "beta=2.0", "transA=1"])
def test_gemm_that_scales_or_transposes_stays(attributes: str) -> None:
    parts = weights(w=np.random.default_rng(23).standard_normal((4, 6)))
    model = tiny_graphs.parse(text_of(f"y = Gemm<{attributes}>(n, w, c)", "[4,4]"), **parts)

    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(4, 4))

    assert done.outcome.refused == (("the Gemm scales or transposes its input", 1),)


@pytest.mark.parametrize("place", ["b", "c"])
def test_gemm_that_multiplies_with_it_or_adds_it_stays(place: str) -> None:
    parts = {name: array for name, array in weights().items() if name in "gbmv"}
    body = "y = Gemm(x, n)" if place == "b" else "y = Gemm(x, x, n)"
    model = tiny_graphs.parse(text_of(body, "[4,4]"), **parts)

    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(4, 4))

    assert done.outcome.refused == (("Gemm follows it, not a convolution", 1),)


def test_norm_that_is_an_output_too_stays() -> None:
    text = text_of(BIASED).replace("float[N,C,H,W] y", "float[N,C,H,W] y, float[N,D,H,W] n")
    model = tiny_graphs.parse(text, **weights())

    done = rewriting.rewrite(fold_batchnorm_into_next, model, drawn(2, 4, 5, 5))

    assert done.outcome.refused == (("it does not feed one node alone", 1),)


@pytest.mark.parametrize(
    ("opset", "norm"),
    [(18, "n, i, j = BatchNormalization<training_mode = 1>"), (13, "n, i, j, k, l = BatchNormalization")],
    ids=["attribute", "further outputs, before operator set 14"],
)
def test_norm_in_training_stays(opset: int, norm: str) -> None:
    text = text_of(PLAIN).replace(f"n = {NORM}", norm)
    model = tiny_graphs.parse(text, opset, **{name: array for name, array in weights().items() if name != "c"})

    outcome = fold_batchnorm_into_next.apply(model)

    assert (outcome.fired, outcome.refused) == (0, (("it is in training mode", 1),))


def test_computed_gamma_is_not_folded() -> None:
    text = text_of(PLAIN).replace("{ n = ", "{ h = Abs(g) n = ").replace("(x, g", "(x, h")
    model = tiny_graphs.parse(text, **{name: array for name, array in weights().items() if name != "c"})

    assert fold_batchnorm_into_next.apply(model).refused == (("a parameter is not a constant", 1),)


def test_fold_behind_padding_would_have_been_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy_kit.graph.edit.pads", lambda node: False)
    model, x = refused_model(REFUSED["padding"][0]), drawn(2, 4, 5, 5)
    before = rewriting.by_onnxruntime(model, x)

    outcome = fold_batchnorm_into_next.apply(model)

    assert outcome.fired == 1
    assert rewriting.differences(before, rewriting.by_onnxruntime(model, x))[0] > 1e-2


@pytest.mark.parametrize("name", ["y.weight", "y.bias"])
def test_comparison_notices_one_constant_that_is_off_by_a_thousandth(name: str) -> None:
    model, x = parse(BIASED), drawn(2, 4, 5, 5)
    before = rewriting.evaluate(model, x)
    fold_batchnorm_into_next.apply(model)
    value = model.graph.initializers[name]
    array = value.const_value.numpy().copy()
    array.reshape(-1)[0] *= np.float32(1.001)
    value.const_value = ir.tensor(array, name=name)

    assert rewriting.differences(before, rewriting.evaluate(model, x))[0] > fold_batchnorm_into_next.PASS.promise


def transition() -> ir.Model:
    """Write a transition without a ReLU: BN, 1×1 convolution, average pool."""
    return parse("c = Conv(n, w) y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)", "[1,4,8,8]")


def test_default_passes_fold_before_the_pool_of_a_transition_comes_between() -> None:
    model = transition()

    passes.apply_passes(model, passes.default_passes())

    assert sorted(node.op_type for node in model.graph) == ["AveragePool", "Conv"]


def test_fold_behind_the_swap_of_the_pool_would_have_come_too_late() -> None:
    model = transition()

    passes.apply_passes(model, ("pool_before_conv", "fold_batchnorm_into_next"))

    assert sorted(node.op_type for node in model.graph) == ["AveragePool", "BatchNormalization", "Conv"]
