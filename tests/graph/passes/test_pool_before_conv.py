"""Tests of the pass `pool_before_conv`: its equation in float64, what it saves, each reason not to swap."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs
import torch
from onnx import helper

from deploy_kit.accuracy import metrics
from deploy_kit.graph import edit, onnx_file
from deploy_kit.graph.passes import pool_before_conv

DOUBLE = 1e-13  # the weights stay as they are: only float64 sums are taken in another order
FORMS = {
    "plain": ("[1,4,6,6]", "c = Conv(x, w) y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)"),
    "bias": ("[1,4,6,6]", "c = Conv(x, w, b) y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)"),
    "groups": ("[1,8,6,6]", "c = Conv<group=2>(x, w, b) y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)"),
    "overlapping": ("[1,4,7,7]", "c = Conv(x, w, b) y = AveragePool<kernel_shape=[3,3], strides=[2,2]>(c)"),
    "padding not counted": (
        "[1,4,6,6]", "c = Conv(x, w, b) y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(c)",
    ),
    "padding counted, no bias": (
        "[1,4,6,6]",
        "c = Conv(x, w) "
        "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>(c)",
    ),
    "counting, nothing padded": (
        "[1,4,6,6]", "c = Conv(x, w, b) y = AveragePool<kernel_shape=[2,2], strides=[2,2], count_include_pad=1>(c)",
    ),
    "ceiling": ("[1,4,7,7]", "c = Conv(x, w, b) y = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(c)"),
    "automatic": (
        "[1,4,7,7]",
        'c = Conv<auto_pad="VALID">(x, w, b) '
        'y = AveragePool<kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_UPPER">(c)',
    ),
    "kernel and strides stated": (
        "[1,4,6,6]",
        "c = Conv<kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1]>(x, w, b) "
        "y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)",
    ),
    "one stride": ("[1,4,6,6]", "c = Conv(x, w, b) y = AveragePool<kernel_shape=[2,2]>(c)"),
    "global": ("[1,4,6,6]", "c = Conv(x, w, b) y = GlobalAveragePool(c)"),
    "1-D": ("[2,4,9]", "c = Conv(x, w, b) y = AveragePool<kernel_shape=[3], strides=[3]>(c)"),
    "1-D global": ("[2,4,9]", "c = Conv(x, w, b) y = GlobalAveragePool(c)"),
    "3-D": ("[1,4,4,6,5]", "c = Conv(x, w, b) y = AveragePool<kernel_shape=[2,3,1], strides=[2,3,1]>(c)"),
    "3-D global": ("[1,4,4,6,5]", "c = Conv(x, w, b) y = GlobalAveragePool(c)"),
}  # fmt: skip
PLAIN = (
    "g (float[1,4,6,6] x) => (float[N,C,H,W] y) "
    "{ c = Conv(x, w, b) p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c) y = Relu(p) }"
)


def dims_of(shape: str) -> list[int]:
    return [int(side) for side in shape.strip("[]").split(",")]


def weights(rank: int = 4, kernel: int = 1) -> dict[str, np.ndarray]:
    """Draw a convolution from 4 channels (of each group) to 6."""
    generator = np.random.default_rng(3)
    return {
        "w": generator.standard_normal((6, 4, *[kernel] * (rank - 2)), np.float32),
        "b": generator.standard_normal(6, np.float32) * 3,
    }


def drawn(*dims: int) -> np.ndarray:
    return np.random.default_rng(4).standard_normal(dims).astype(np.float32)


def parse(body: str, shape: str = "[1,4,6,6]", opset: int = 18, kernel: int = 1) -> ir.Model:
    rank = len(dims_of(shape))
    open_shape = ",".join("NCHWD"[:rank])
    used = {k: v for k, v in weights(rank, kernel).items() if k != "b" or "w, b" in body}
    return tiny_graphs.parse(f"g (float{shape} x) => (float[{open_shape}] y) {{ {body} }}", opset, **used)


@pytest.mark.parametrize(("shape", "body"), FORMS.values(), ids=FORMS)
def test_swapped_graph_computes_what_it_did(shape: str, body: str) -> None:
    model = parse(body, shape)

    done = rewriting.rewrite(pool_before_conv, model, drawn(*dims_of(shape)))

    assert (done.outcome.fired, done.outcome.refused) == (1, ())
    assert done.operators == ["GlobalAveragePool" if "Global" in body else "AveragePool", "Conv"]
    assert done.difference <= DOUBLE


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 22])
def test_every_operator_set_is_rewritten(opset: int) -> None:
    model = parse(FORMS["bias"][1], opset=opset)

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 6, 6))

    assert done.operators == ["AveragePool", "Conv"]
    assert done.difference <= DOUBLE


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_graph_of_another_float_type_stays_exact(dtype: type) -> None:
    model = rewriting.typed(PLAIN, dtype, **weights())
    before = rewriting.constants(model)

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 6, 6))

    assert done.operators == ["AveragePool", "Conv", "Relu"]
    assert done.difference <= DOUBLE
    assert all(np.array_equal(before[name], array) for name, array in rewriting.constants(model).items())


def test_swapped_graph_computes_what_torch_does() -> None:
    x, parts = drawn(2, 4, 6, 6), {name: torch.from_numpy(array) for name, array in weights().items()}
    wanted = torch.nn.functional.avg_pool2d(torch.nn.functional.conv2d(torch.from_numpy(x), parts["w"], parts["b"]), 2)
    model = parse(FORMS["bias"][1], "[2,4,6,6]")

    pool_before_conv.apply(model)

    (found,) = rewriting.by_onnxruntime(model, x)
    assert metrics.relative_difference(wanted.numpy(), found) < 1e-6


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("pixels", [4, 10])
def test_open_batch_and_pixels_stay_open(batch: int, pixels: int) -> None:
    text = "g (float[N,4,H,W] x) => (float[N,6,P,Q] y) {" + FORMS["bias"][1] + "}"
    model = tiny_graphs.parse(text, **weights())

    done = rewriting.rewrite(pool_before_conv, model, drawn(batch, 4, pixels, pixels))

    assert done.outcome.fired == 1
    assert done.difference <= DOUBLE
    assert [str(dim) for dim in model.graph[0].outputs[0].shape][:2] == ["N", "4"]


def test_pools_output_is_recorded_with_the_convolutions_input_channels() -> None:
    model = parse(FORMS["bias"][1])

    pool_before_conv.apply(model)

    pool, conv = model.graph
    assert [list(pool.outputs[0].shape), list(conv.outputs[0].shape)] == [[1, 4, 3, 3], [1, 6, 3, 3]]


def test_swap_that_makes_the_graphs_output_keeps_its_name() -> None:
    model = parse(FORMS["bias"][1])

    pool_before_conv.apply(model)

    assert [value.name for value in model.graph.outputs] == ["y"]
    assert model.graph[-1].outputs[0].name == "y"
    assert model.graph[0].outputs[0].name == "c"


def test_result_that_is_read_and_an_output_too_is_both_afterwards() -> None:
    model = tiny_graphs.parse(
        "g (float[1,4,6,6] x) => (float[1,6,3,3] z, float[1,6,3,3] p, float[1,6,3,3] y) { "
        "c = Conv(x, w, b) p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c) y = Relu(p) z = Add(p, p) }",
        **weights(),
    )

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 6, 6))

    assert done.operators == ["AveragePool", "Conv", "Relu", "Add"]
    assert [value.name for value in model.graph.outputs] == ["z", "p", "y"]
    assert done.difference <= DOUBLE


def test_pool_climbs_over_convolutions_in_a_row() -> None:
    model = tiny_graphs.parse(
        "g (float[1,4,6,6] x) => (float[1,4,3,3] y) { c = Conv(x, w, b) d = Conv(c, back) "
        "y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(d) }",
        **weights(),
        back=drawn(4, 6, 1, 1),
    )

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 6, 6))

    assert done.operators == ["AveragePool", "Conv", "Conv"]
    assert done.outcome.fired == 2
    assert done.difference <= DOUBLE


def test_convolution_sinks_below_pools_in_a_row() -> None:
    model = parse("c = Conv(x, w, b) p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c) y = GlobalAveragePool(p)")

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 6, 6))

    assert done.operators == ["AveragePool", "GlobalAveragePool", "Conv"]
    assert done.outcome.fired == 2


def test_computed_weight_is_still_computed_before_it_is_read() -> None:
    model = tiny_graphs.parse(
        "g (float[1,4,6,6] x, float[6,4,1,1] v) => (float[1,6,3,3] y) { w = Abs(v) c = Conv(x, w) "
        "y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c) }"
    )

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 6, 6), drawn(6, 4, 1, 1))

    assert done.operators == ["Abs", "AveragePool", "Conv"]


REFUSED = {
    "3×3": ("c = Conv<pads=[1,1,1,1]>(x, w3)", "", "the convolution is not 1×1"),
    "padded": ("c = Conv<pads=[1,1,1,1]>(x, w, b)", "", "the convolution pads or strides"),
    "strided": ("c = Conv<strides=[2,2]>(x, w, b)", "", "the convolution pads or strides"),
    "counted padding and a bias": (
        "c = Conv(x, w, b)", ", pads=[1,1,1,1], count_include_pad=1",
        "the pool averages padding in, and the bias would be scaled with it",
    ),
    "counted automatic padding and a bias": (
        "c = Conv(x, w, b)", ', auto_pad="SAME_UPPER", count_include_pad=1',
        "the pool averages padding in, and the bias would be scaled with it",
    ),
    "counted ceiling and a bias": (
        "c = Conv(x, w, b)", ", ceil_mode=1, count_include_pad=1",
        "the pool averages padding in, and the bias would be scaled with it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("conv", "pool", "reason"), REFUSED.values(), ids=REFUSED)
def test_refusal_gives_its_reason_and_leaves_the_graph(conv: str, pool: str, reason: str) -> None:
    body = f"{conv} y = AveragePool<kernel_shape=[2,2], strides=[2,2]{pool}>(c)"
    model = parse(body.replace("w3", "w"), "[1,4,5,5]", kernel=3 if "w3" in body else 1)

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 5, 5))

    assert (done.outcome.fired, done.outcome.refused) == (0, ((reason, 1),))
    assert done.operators == ["Conv", "AveragePool"]


@pytest.mark.parametrize(
    "text",
    [
        "g (float[1,4,6,6] x) => (float[1,6,3,3] y, float[1,6,6,6] z) { c = Conv(x, w, b) z = Relu(c) ",
        "g (float[1,4,6,6] x) => (float[1,6,3,3] y, float[1,6,6,6] c) { c = Conv(x, w, b) ",
    ],
    ids=["two readers", "an output"],
)
def test_convolution_that_others_need_stays(text: str) -> None:
    model = tiny_graphs.parse(f"{text} y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c) }}", **weights())

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 6, 6))

    assert (done.outcome.fired, done.outcome.refused) == (0, (("the convolution feeds others too", 1),))


@pytest.mark.parametrize("pads", ["pads=[1,1,1,1]", "pads=[0,0,1,1], strides=[1,1]", 'auto_pad="SAME_LOWER"'])
def test_padded_pool_of_stride_one_saves_nothing_and_stays(pads: str) -> None:
    model = parse(f"c = Conv(x, w) y = AveragePool<kernel_shape=[2,2], {pads}>(c)")

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 6, 6))

    assert (done.outcome.fired, done.outcome.refused) == (0, (("the pool leaves as many pixels", 1),))


def test_dilated_pool_that_may_read_padding_alone_stays_behind_a_bias() -> None:
    """ONNX Runtime gives 0 for such a window: before the convolution that would become the bias."""
    pool = "y = AveragePool<kernel_shape=[2,2], dilations=[2,2], strides=[2,2], pads=[1,1,1,1]>(c)"
    model = parse(f"c = Conv(x, w, b) {pool}", "[1,4,1,1]", opset=19)

    outcome = pool_before_conv.apply(model)

    reason = "the pool averages padding in, and the bias would be scaled with it"
    assert (outcome.fired, outcome.refused) == (0, ((reason, 1),))


@pytest.mark.parametrize("kernel", [(1, 3), (3, 1)])
def test_kernel_of_several_pixels_on_one_axis_stays(kernel: tuple[int, int]) -> None:
    body = "c = Conv(x, w) y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)"
    model = tiny_graphs.parse(f"g (float[1,4,6,6] x) => (float[N,C,H,W] y) {{ {body} }}", w=drawn(6, 4, *kernel))

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 6, 6))

    assert (done.outcome.fired, done.outcome.refused) == (0, (("the convolution is not 1×1", 1),))


@pytest.mark.parametrize("body", ["y = MaxPool<kernel_shape=[2,2]>(c)", "r = Relu(c) y = GlobalAveragePool(r)"])
def test_what_does_not_commute_is_not_looked_at(body: str) -> None:
    model = parse(f"c = Conv(x, w, b) {body}")
    before = tiny_graphs.operators(model)

    done = rewriting.rewrite(pool_before_conv, model, drawn(1, 4, 6, 6))

    assert (done.outcome.fired, done.outcome.refused, done.operators) == (0, (), before)


@pytest.mark.parametrize("case", ["padded", "counted padding and a bias", "counted automatic padding and a bias"])
def test_swap_that_is_refused_would_have_been_noticed(case: str) -> None:
    conv, pool, _ = REFUSED[case]
    x = drawn(1, 4, 5, 5)
    model = parse(f"{conv} y = AveragePool<kernel_shape=[2,2], strides=[2,2]{pool}>(c)", "[1,4,5,5]")
    before = rewriting.by_onnxruntime(model, x)
    first, second = model.graph

    edit.swap(model, first, second, None)

    after = rewriting.by_onnxruntime(onnx_file.reread(model), x)
    assert before[0].shape != after[0].shape or rewriting.differences(before, after)[0] > 1e-2


def test_comparison_notices_a_weight_that_is_off_by_a_thousandth() -> None:
    model, x = parse(FORMS["bias"][1]), drawn(1, 4, 6, 6)
    before = tiny_graphs.evaluate(model, x)
    pool_before_conv.apply(model)
    value = model.graph.initializers["w"]
    array = value.const_value.numpy().copy()
    array[0, 0] *= np.float32(1.001)
    value.const_value = ir.tensor(array, name="w")

    after = tiny_graphs.evaluate(model, x)

    assert rewriting.differences(before, after)[0] > pool_before_conv.PASS.promise


# Layers of each block, growth and stem width: Huang et al., CVPR 2017, table 1. Multiply-accumulates: torchvision's
# documentation of its weights, "GFLOPS" (a multiply-accumulate counts once there), to two digits.
DENSENETS = {
    "121": ((6, 12, 24, 16), 32, 64, 2.83e9, 0.082),
    "169": ((6, 12, 32, 32), 32, 64, 3.36e9, 0.082),
    "201": ((6, 12, 48, 32), 32, 64, 4.29e9, 0.091),
    "161": ((6, 12, 36, 24), 48, 96, 7.73e9, 0.087),
}


def densenet(layers: tuple[int, ...], growth: int, width: int) -> ir.Model:
    """Write a DenseNet at 224×224 as shapes alone: its weights are inputs, without numbers."""
    nodes, inputs = [], [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 224, 224])]

    def node(operator: str, *sources: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, list(sources), [f"v{len(nodes)}"], **attributes))
        return f"v{len(nodes) - 1}"

    def weight(*dims: int) -> str:
        inputs.append(helper.make_tensor_value_info(f"w{len(inputs)}", onnx.TensorProto.FLOAT, dims))
        return inputs[-1].name

    x = node("Conv", "x", weight(width, 3, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3])
    x = node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for block, count in enumerate(layers):
        for _ in range(count):
            squeezed = node("Conv", node("Relu", x), weight(4 * growth, width, 1, 1))
            new = node("Conv", squeezed, weight(growth, 4 * growth, 3, 3), pads=[1, 1, 1, 1])
            x, width = node("Concat", x, new, axis=1), width + growth
        if block < len(layers) - 1:
            x, width = node("Conv", node("Relu", x), weight(width // 2, width, 1, 1)), width // 2
            x = node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    flat = node("Flatten", node("GlobalAveragePool", x))
    y = node("Gemm", flat, weight(1000, width), transB=1)
    output = helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, [1, 1000])
    whole = helper.make_graph(nodes, "densenet", inputs, [output])
    proto = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


@pytest.mark.parametrize(("layers", "growth", "width", "published", "_saved"), DENSENETS.values(), ids=DENSENETS)
def test_densenets_cost_what_is_published(
    layers: tuple[int, ...], growth: int, width: int, published: float, _saved: float
) -> None:
    assert onnx_file.macs(densenet(layers, growth, width)) == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize(("layers", "growth", "width", "_published", "saved"), DENSENETS.values(), ids=DENSENETS)
def test_densenets_save_three_quarters_of_their_transitions(
    layers: tuple[int, ...], growth: int, width: int, _published: float, saved: float
) -> None:
    model = densenet(layers, growth, width)
    before = onnx_file.macs(model)

    outcome = pool_before_conv.apply(model)

    after = onnx_file.macs(tiny_graphs.reread(model))
    assert outcome.fired == 3
    assert 1 - after / before == pytest.approx(saved, abs=0.0005)
