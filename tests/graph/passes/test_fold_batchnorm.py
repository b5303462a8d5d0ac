"""Tests of the pass `fold_batchnorm`: its equation in float64, and each reason not to fold."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny_graphs
from onnx import numpy_helper

from deploy_kit.accuracy import metrics
from deploy_kit.graph.passes import fold_batchnorm, fold_constants

EPS = 2.0**-6  # the file holds a float32: exact
X = np.random.default_rng(7).standard_normal((1, 2, 5, 5)).astype(np.float32)
NORM = f"BatchNormalization<epsilon = {EPS}>"
PLAIN = (
    f"g (float[1,2,5,5] x) => (float[1,4,5,5] y) "
    f"{{ c = Conv<pads=[1,1,1,1]>(x, w) n = {NORM}(c, g, b, m, v) y = Relu(n) }}"
)
BIASED = PLAIN.replace("Conv<pads=[1,1,1,1]>(x, w)", "Conv<pads=[1,1,1,1]>(x, w, d)")
GROUPED = PLAIN.replace("Conv<pads=[1,1,1,1]>", "Conv<pads=[1,1,1,1], group=2>")

FORMS = [(PLAIN, 2), (BIASED, 2), (GROUPED, 1)]


def drawn(in_channels: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw a 3×3 convolution to 4 channels and its BN; gammas of both signs, a variance near zero."""
    generator = np.random.default_rng(seed)
    return {
        "w": generator.standard_normal((4, in_channels, 3, 3), np.float32),
        "d": generator.standard_normal(4, np.float32),
        "g": np.array([1.5, -0.7, 0.01, 2.0], np.float32),
        "b": generator.standard_normal(4, np.float32),
        "m": generator.standard_normal(4, np.float32),
        "v": np.array([0.5, 3.0, 1e-6, 10.0], np.float32),
    }


def parse(text: str, **weights: np.ndarray) -> ir.Model:
    used = {name: value for name, value in (drawn() | weights).items() if name != "d" or "w, d" in text}
    return tiny_graphs.parse(text, **used)


def folded(model: ir.Model) -> tuple[np.ndarray, np.ndarray]:
    """Give weight and bias of the first convolution as they stand in the file."""
    conv = next(node for node in tiny_graphs.reread(model).graph if node.op_type == "Conv")
    weight, bias = (value.const_value.numpy() for value in conv.inputs[1:])
    return weight, bias


@pytest.mark.parametrize(("text", "in_channels"), FORMS, ids=["plain", "biased", "grouped"])
def test_folded_weights_are_those_of_the_equation_but_for_one_rounding(text: str, in_channels: int) -> None:
    parts = {name: array.astype(np.float64) for name, array in drawn(in_channels).items()}
    bias = parts["d"] if text is BIASED else 0.0
    scale = parts["g"] / np.sqrt(parts["v"] + EPS)
    model = parse(text, **drawn(in_channels))

    fold_batchnorm.apply(model)

    weight, offset = folded(model)
    half_an_ulp = 2.0**-24
    np.testing.assert_allclose(weight, parts["w"] * scale[:, None, None, None], rtol=1.01 * half_an_ulp)
    np.testing.assert_allclose(offset, (bias - parts["m"]) * scale + parts["b"], rtol=1.01 * half_an_ulp)


@pytest.mark.parametrize(("text", "in_channels"), FORMS, ids=["plain", "biased", "grouped"])
def test_graph_computes_what_it_did(text: str, in_channels: int) -> None:
    model = parse(text, **drawn(in_channels))
    (before,) = tiny_graphs.evaluate(model, X)

    outcome = fold_batchnorm.apply(model)

    (after,) = tiny_graphs.evaluate(tiny_graphs.reread(model), X)
    assert outcome.fired == 1
    assert tiny_graphs.operators(model) == ["Conv", "Relu"]
    assert metrics.relative_difference(before, after) < 1e-6


def test_comparison_notices_one_folded_weight_that_is_off_by_a_thousandth() -> None:
    model = parse(PLAIN)
    (before,) = tiny_graphs.evaluate(model, X)
    fold_batchnorm.apply(model)
    value = next(node for node in model.graph if node.op_type == "Conv").inputs[1]
    array = value.const_value.numpy().copy()
    array[0, 0, 1, 1] *= np.float32(1.001)
    value.const_value = ir.tensor(array, name=value.name)

    (after,) = tiny_graphs.evaluate(model, X)

    assert metrics.relative_difference(before, after) > fold_batchnorm.PASS.promise


def test_default_epsilon_is_that_of_onnx() -> None:
    model = parse(PLAIN.replace(f"<epsilon = {EPS}>", ""))
    (before,) = tiny_graphs.evaluate(model, X)

    fold_batchnorm.apply(model)

    assert metrics.relative_difference(before, tiny_graphs.evaluate(model, X)[0]) < 1e-6


def test_weight_shared_by_two_convolutions_is_folded_for_each_on_its_own() -> None:
    model = parse(
        f"""g (float[1,2,5,5] x) => (float[1,4,5,5] y) {{
        c1 = Conv<pads=[1,1,1,1]>(x, w)  n1 = {NORM}(c1, g, b, m, v)
        c2 = Conv<pads=[1,1,1,1]>(x, w)  n2 = {NORM}(c2, b, g, m, v)
        y = Add(n1, n2) }}"""
    )
    (before,) = tiny_graphs.evaluate(model, X)

    outcome = fold_batchnorm.apply(model)

    assert outcome.fired == 2
    assert metrics.relative_difference(before, tiny_graphs.evaluate(tiny_graphs.reread(model), X)[0]) < 1e-6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            f"g (float[1,2,5,5] x) => (float[1,4,5,5] y) {{ k = Concat<axis=1>(x, x) y = {NORM}(k, g, b, m, v) }}",
            "it follows Concat, not a convolution",
        ),
        (
            f"g (float[1,4,5,5] x) => (float[1,4,4,4] y) "
            f"{{ p = AveragePool<kernel_shape=[2,2]>(x) y = {NORM}(p, g, b, m, v) }}",
            "it follows AveragePool, not a convolution",
        ),
        (
            f"g (float[1,4,5,5] x) => (float[1,4,5,5] y) {{ y = {NORM}(x, g, b, m, v) }}",
            "it follows the input, not a convolution",
        ),
        (
            f"g (float[1,2,5,5] x) => (float[1,4,5,5] y) "
            f"{{ c = Conv<pads=[1,1,1,1]>(x, w) n = {NORM}(c, g, b, m, v) y = Add(n, c) }}",
            "the convolution feeds others too",
        ),
        (
            f"g (float[1,2,5,5] x) => (float[1,4,5,5] y, float[1,4,5,5] c) "
            f"{{ c = Conv<pads=[1,1,1,1]>(x, w) y = {NORM}(c, g, b, m, v) }}",
            "the convolution feeds others too",
        ),
        (
            "g (float[1,2,5,5] x) => (float[1,4,5,5] y) { c = Conv<pads=[1,1,1,1]>(x, w) "
            "y, mean, variance = BatchNormalization<training_mode = 1>(c, g, b, m, v) }",
            "it is in training mode",
        ),
        (
            f"g (float[1,2,5,5] x) => (float[1,4,5,5] y) "
            f"{{ c = Conv<pads=[1,1,1,1]>(x, w) h = Abs(g) y = {NORM}(c, h, b, m, v) }}",
            "a parameter is not a constant",
        ),
    ],
    ids=["concat", "pool", "input", "two readers", "an output", "training", "computed gamma"],
)
def test_refusal_gives_its_reason_and_leaves_the_graph(text: str, reason: str) -> None:
    model = parse(text)
    before = tiny_graphs.operators(model)

    outcome = fold_batchnorm.apply(model)

    assert (outcome.fired, outcome.refused) == (0, ((reason, 1),))
    assert tiny_graphs.operators(model) == before


def test_training_is_known_by_further_outputs_before_operator_set_14() -> None:
    text = PLAIN.replace(f"n = {NORM}", "n, i, j, k, l = BatchNormalization")
    model = tiny_graphs.parse(text, 13, **{name: array for name, array in drawn().items() if name != "d"})

    assert fold_batchnorm.apply(model).refused == (("it is in training mode", 1),)


def test_same_reasons_are_counted_together() -> None:
    model = parse(
        f"""g (float[1,4,5,5] x) => (float[1,4,5,5] y) {{
        a = Relu(x)  n = {NORM}(a, g, b, m, v)  r = Relu(n)  y = {NORM}(r, g, b, m, v) }}"""
    )

    outcome = fold_batchnorm.apply(model)

    assert outcome.refused == (("it follows Relu, not a convolution", 2),)


def test_tiny_densenet_folds_the_stem_and_one_of_each_layer() -> None:
    model = tiny_graphs.exported_model()
    fold_constants.apply(model)

    outcome = fold_batchnorm.apply(model)

    assert outcome.fired == 1 + 4
    assert sum(places for _, places in outcome.refused) == 4 + 1 + 1


def test_output_of_the_graph_keeps_its_name() -> None:
    model = parse(
        f"g (float[1,2,5,5] x) => (float[1,4,5,5] y) {{ c = Conv<pads=[1,1,1,1]>(x, w) y = {NORM}(c, g, b, m, v) }}"
    )

    fold_batchnorm.apply(model)

    assert [value.name for value in model.graph.outputs] == ["y"]


def test_two_norms_in_a_row_both_fold() -> None:
    model = parse(
        f"""g (float[1,2,5,5] x) => (float[1,4,5,5] y) {{
        c = Conv<pads=[1,1,1,1]>(x, w)  n = {NORM}(c, g, b, m, v)  k = {NORM}(n, b, g, m, v)  y = Relu(k) }}"""
    )
    (before,) = tiny_graphs.evaluate(model, X)

    fold_batchnorm.apply(model)

    assert metrics.relative_difference(before, tiny_graphs.evaluate(tiny_graphs.reread(model), X)[0]) < 1e-6


def test_initializer_that_has_the_folded_weights_name_already_is_no_hindrance() -> None:
    text = PLAIN.replace("c = ", "conv = ").replace("(c,", "(conv,").replace("(x, w)", '(x, "conv.weight")')
    model = tiny_graphs.parse(text, **{"conv.weight" if k == "w" else k: v for k, v in drawn().items() if k != "d"})
    (before,) = tiny_graphs.evaluate(model, X)

    fold_batchnorm.apply(model)

    assert metrics.relative_difference(before, tiny_graphs.evaluate(tiny_graphs.reread(model), X)[0]) < 1e-6


def test_bias_left_out_by_an_empty_name_is_no_bias() -> None:
    model = parse(PLAIN.replace("(x, w)", '(x, w, "")'))

    outcome = fold_batchnorm.apply(model)

    assert outcome.fired == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_graph_of_another_float_type_stays_valid(dtype: type) -> None:
    word = {np.float16: "float16[", np.float64: "double["}[dtype]
    proto = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 18]>' + PLAIN.replace("float[", word))
    for name, array in drawn().items():
        if name != "d":
            proto.graph.initializer.append(numpy_helper.from_array(array.astype(dtype), name))
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True))

    fold_batchnorm.apply(model)

    tiny_graphs.reread(model)
