"""Pairs of weights against what engines compute: integers that would saturate in 16 bits, on processors that add so.

Processors with VNNI add in 32 bits; there the same files must be right, too, and nothing can be seen to saturate.
"""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from dense_graphs import SATURATES
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tiny_graphs import parse

from deploy_kit.base import file_notes
from deploy_kit.graph import onnx_file, sums_of_two

openvino = pytest.importorskip("openvino")


def test_neighbours_are_those_of_each_tap_and_of_all_taps_in_turn() -> None:
    # Three channels of two taps, in ONNX's order a0 a1 b0 b1 c0 c1, are taken as a0 b0 c0 a1 b1 c1.
    found = {tuple(sorted(pair)) for pair in sums_of_two.pairs(3, 2).tolist()}

    assert found == {(0, 2), (1, 4), (3, 5), (1, 3)}


@pytest.mark.parametrize(
    ("inputs", "taps", "n"), [(4, 9, 18), (1, 9, 4), (1, 1, 0), (64, 1, 32), (3, 49, 73 + 49 - 24 - 1)]
)
def test_an_even_number_of_channels_has_one_order(inputs: int, taps: int, n: int) -> None:
    assert len(sums_of_two.pairs(inputs, taps)) == n
    assert not len(sums_of_two.pairs(inputs, taps, depthwise=True))


def bounded(rows: np.ndarray, paired: np.ndarray) -> np.ndarray:
    """Cut integers (outputs, …) until each pair is within the bound, as little as that takes."""
    flat = rows.reshape(len(rows), -1).copy()
    for first, second in paired:
        flat[:, second] = flat[:, second].clip(-sums_of_two.MOST - flat[:, first], sums_of_two.MOST - flat[:, first])
    return flat.reshape(rows.shape)


def written(path: Path, whole: np.ndarray, node: onnx.NodeProto, shape: tuple[int, ...], step: float) -> Path:
    """Write uint8 activations of step 1, int8 weights, and outputs of a wide step as Q/DQ pairs."""
    constants = {
        "one": np.float32(1), "zero": np.uint8(0), "w": whole.astype(np.int8), "none": np.int8(0),
        "wide": np.float32(step), "middle": np.uint8(128),
    }  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["read"]),
            helper.make_node("DequantizeLinear", ["w", "one", "none"], ["weight"]),
            node,
            helper.make_node("QuantizeLinear", ["made", "wide", "middle"], ["qy"]),
            helper.make_node("DequantizeLinear", ["qy", "wide", "middle"], ["y"]),
        ],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def by_onnxruntime(path: Path, x: np.ndarray, *, plainly: bool = False) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if plainly:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def by_openvino(path: Path, x: np.ndarray) -> np.ndarray:
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled([x])[0])


def steps_off(path: Path, shape: tuple[int, ...], step: float) -> dict[str, float]:
    """Compute images of 0 and 255, and how many of the output's steps each engine is off float arithmetic."""
    found = {"onnxruntime": 0.0, "openvino": 0.0}
    for seed, share in enumerate((0.5, 0.8, 1.1)):
        x = ((np.random.default_rng(seed).random(shape) < share) * 255).astype(np.float32)
        exact = by_onnxruntime(path, x, plainly=True)
        for name, other in (("onnxruntime", by_onnxruntime(path, x)), ("openvino", by_openvino(path, x))):
            found[name] = max(found[name], float(np.abs(other - exact).max()) / step)
    return found


CASES = {
    "1×1": ((1, 64, 9, 9), (32, 64, 1, 1), {}),
    "1×1, odd": ((1, 63, 9, 9), (32, 63, 1, 1), {}),
    "3×3": ((1, 32, 9, 9), (16, 32, 3, 3), {"pads": [1] * 4}),
    "3×3, odd, dilated": ((1, 9, 9, 9), (16, 9, 3, 3), {"pads": [2] * 4, "dilations": [2, 2]}),
    "colors": ((1, 3, 24, 24), (32, 3, 7, 7), {"pads": [3] * 4, "strides": [2, 2]}),
    "one channel": ((1, 1, 9, 9), (8, 1, 3, 3), {}),
    "grouped": ((1, 96, 6, 6), (96, 3, 3, 3), {"group": 32}),
    "depthwise, two of each": ((1, 8, 6, 6), (16, 1, 3, 3), {"group": 8}),
    "1-D": ((1, 33, 40), (16, 33, 3), {}),
    "3-D": ((1, 7, 6, 6, 6), (8, 7, 3, 3, 3), {}),
    "Gemm": ((4, 101), (30, 101), {"transB": 1}),
    "MatMul": ((4, 100), (100, 30), {}),
}


def case(name: str) -> tuple[tuple[int, ...], np.ndarray, onnx.NodeProto, np.ndarray]:
    """Give the input's shape, int8 weights drawn from all of −127 … 127, the node, and the weights as rows."""
    shape, weights, attributes = CASES[name]
    operator = name if name in ("Gemm", "MatMul") else "Conv"
    whole = np.random.default_rng(len(name)).integers(-127, 128, weights)
    node = helper.make_node(operator, ["read", "weight"], ["made"], **attributes)
    return shape, whole, node, whole.T if operator == "MatMul" else whole


@pytest.mark.parametrize("name", CASES)
def test_bounded_pairs_do_not_saturate_on_either_runtime(name: str, tmp_path: Path) -> None:
    shape, _, node, rows = case(name)
    paired = sums_of_two.pairs_of(rows, dict(CASES[name][2]).get("group", 1))
    cut = bounded(rows, paired)
    step = float(np.abs(cut).reshape(len(cut), -1).sum(1).max()) * 255 / 500

    path = written(tmp_path / "sums.onnx", cut.T if node.op_type == "MatMul" else cut, node, shape, step)

    assert sums_of_two.fit(onnx_file.load(path))
    assert np.abs(cut).max() > 120
    assert max(steps_off(path, shape, step).values()) <= 1.01  # a tie may be rounded either way


@pytest.mark.skipif(not SATURATES, reason="this processor adds products in 32 bits")
@pytest.mark.parametrize("name", CASES)
def test_free_weights_saturate(name: str, tmp_path: Path) -> None:
    shape, whole, node, rows = case(name)
    step = float(np.abs(rows).reshape(len(rows), -1).sum(1).max()) * 255 / 500

    path = written(tmp_path / "sums.onnx", whole, node, shape, step)

    assert not sums_of_two.fit(onnx_file.load(path))
    assert max(steps_off(path, shape, step).values()) > 3


def test_depthwise_weights_may_be_anything(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["read", "weight"], ["made"], group=16, pads=[1] * 4)
    whole = np.random.default_rng(0).choice([-127, 127], (16, 1, 3, 3))

    path = written(tmp_path / "sums.onnx", whole, node, (1, 16, 9, 9), 1000.0)

    assert sums_of_two.fit(onnx_file.load(path))
    assert max(steps_off(path, (1, 16, 9, 9), 1000.0).values()) <= 1.01


@pytest.mark.parametrize(
    ("node", "weights"),
    [
        (helper.make_node("ConvTranspose", ["read", "weight"], ["made"]), (8, 4, 2, 2)),
        (helper.make_node("Mul", ["read", "weight"], ["made"]), (1, 8, 6, 6)),
        (helper.make_node("Conv", ["weight", "read"], ["made"]), (1, 8, 6, 6)),
    ],
    ids=["ConvTranspose", "Mul", "as the activation"],
)
def test_weights_whose_order_is_not_known_must_be_small(
    node: onnx.NodeProto, weights: tuple[int, ...], tmp_path: Path
) -> None:
    def fits(largest: int) -> bool:
        path = written(tmp_path / "sums.onnx", np.full(weights, largest), node, (1, 8, 6, 6), 1.0)
        return sums_of_two.fit(onnx_file.load(path))

    assert (fits(64), fits(65)) == (True, False)


def integer_operator(name: str, whole: np.ndarray, step: float) -> onnx.ModelProto:
    """Make a graph whose weights an operator of integers reads itself, with uint8 activations of step 1."""
    constants = {
        "one": np.float32(1), "zero": np.uint8(0), "w": whole.astype(np.int8), "none": np.int8(0),
        "wide": np.float32(step), "middle": np.uint8(128),
    }  # fmt: skip
    if name.startswith("QLinear"):
        grids = ["q", "one", "zero", "w", "one", "none", "wide", "middle"]
        made = [
            helper.make_node(name, grids, ["qy"]),
            helper.make_node("DequantizeLinear", ["qy", "wide", "middle"], ["y"]),
        ]
    else:
        made = [
            helper.make_node(name, ["q", "w", "zero", "none"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["y"], to=TensorProto.FLOAT),
        ]
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]), *made],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64, 9, 9) if "Conv" in name else (4, 64))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("name", ["QLinearConv", "QLinearMatMul", "MatMulInteger"])
def test_weights_of_integer_operators_are_held_to_the_same_bound(name: str, tmp_path: Path) -> None:
    path = tmp_path / "sums.onnx"
    whole = np.random.default_rng(1).integers(-127, 128, (32, 64, 1, 1) if "Conv" in name else (64, 32))
    rows = whole if "Conv" in name else whole.T
    small = bounded(rows, sums_of_two.pairs_of(rows))
    x = ((np.random.default_rng(0).random((1, 64, 9, 9) if "Conv" in name else (4, 64)) < 0.9) * 255).astype(np.float32)
    step = float(np.abs(rows).reshape(32, -1).sum(1).max()) * 255 / 500 if name.startswith("QLinear") else 1.0
    found = []

    for weights in (small if "Conv" in name else small.T, whole):
        onnx.save(integer_operator(name, weights, step), path)
        exact = ReferenceEvaluator(str(path)).run(None, {"x": x})[0]
        off = float(np.abs(by_onnxruntime(path, x) - exact).max()) / step
        found.append((sums_of_two.fit(onnx_file.load(path)), off > 1.01))

    assert found == [(True, False), (False, SATURATES)]


def test_what_fits_is_noted_and_a_note_that_is_wrong_is_dropped(tmp_path: Path) -> None:
    _, whole, node, rows = case("1×1")
    for part, fits in ((bounded(rows, sums_of_two.pairs_of(rows)), True), (whole, False)):
        model = onnx_file.load(written(tmp_path / "sums.onnx", part, node, (1, 64, 9, 9), 1e4))
        model.metadata_props[file_notes.SUMS_FIT] = "1"

        sums_of_two.note(model)

        assert (file_notes.SUMS_FIT in model.metadata_props) is fits


def test_weights_that_are_not_stored_as_integers_are_not_known(tmp_path: Path) -> None:
    _, _, node, rows = case("1×1")
    small = bounded(rows, sums_of_two.pairs_of(rows))
    stored = onnx.load(written(tmp_path / "sums.onnx", small, node, (1, 64, 9, 9), 1e4))
    weights = next(tensor for tensor in stored.graph.initializer if tensor.name == "w")
    weights.CopyFrom(numpy_helper.from_array(small.astype(np.float32), "floats"))
    pair = helper.make_node("QuantizeLinear", ["floats", "one", "none"], ["w"])
    stored.graph.node.insert(0, pair)

    assert sums_of_two.fit(onnx_file.load(tmp_path / "sums.onnx"))
    assert not sums_of_two.fit(ir.serde.deserialize_model(stored))


def test_a_float_graph_is_not_noted() -> None:
    model = parse("g (float[1, 8] x) => (float[1, 8] y) { y = Relu(x) }")
    model.metadata_props[file_notes.SUMS_FIT] = "1"

    sums_of_two.note(model)

    assert file_notes.SUMS_FIT not in model.metadata_props
