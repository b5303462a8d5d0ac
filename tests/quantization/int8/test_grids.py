"""Integers against ONNX's own QuantizeLinear and DequantizeLinear, and weights whose biases fit int32."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from deploy_kit.graph import sums_of_two
from deploy_kit.quantization.int8.grids import (
    ChosenGrid,
    Grid,
    asymmetric_grid,
    channel_scales,
    quantize_weights,
    symmetric_grid,
)

GRIDS = [
    asymmetric_grid(-1, 1),
    asymmetric_grid(-0.3, 5.7),
    asymmetric_grid(0, 6),
    asymmetric_grid(-9, 0),
    asymmetric_grid(2, 7),
    asymmetric_grid(-7, -2),
    symmetric_grid(1),
    symmetric_grid(0.02),
]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.scale:.3g}@{grid.zero}")
generator = np.random.default_rng(0)


def by_onnx(operator: str, x: np.ndarray, grid: Grid) -> np.ndarray:
    """Compute one node of ONNX's on a grid."""
    kind = np.int8 if grid.signed else np.uint8
    constants = {"scale": np.array(grid.scale, np.float32), "zero": np.array(grid.zero, kind)}
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "scale", "zero"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.UNDEFINED, x.shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])).run(
        None, {"x": x}
    )[0]


@every_grid
def test_integers_are_those_of_onnx(grid: Grid) -> None:
    x = np.linspace(-12, 12, 997).astype(np.float32)

    wanted = by_onnx("QuantizeLinear", x, grid)

    # ONNX divides in float32, the grid in float64: they may round a tie to different sides, and nothing else.
    off = np.abs(grid.quantize(x) - wanted.astype(np.float64))
    ties = np.abs(np.abs(x / grid.scale - np.rint(x / grid.scale)) - 0.5) < 1e-3
    assert off[~ties].max() == 0
    assert off.max() <= 1


@every_grid
def test_numbers_of_integers_are_those_of_onnx(grid: Grid) -> None:
    q = np.arange(grid.low, grid.high + 1)

    wanted = by_onnx("DequantizeLinear", q.astype(np.int8 if grid.signed else np.uint8), grid)

    np.testing.assert_allclose(grid.real(q), wanted, rtol=1e-7)


def test_halves_are_rounded_to_even_as_in_onnx() -> None:
    grid = Grid(scale=1.0, zero=0)
    x = np.array([0.5, 1.5, 2.5, 3.5], np.float32)

    assert grid.quantize(x).tolist() == by_onnx("QuantizeLinear", x, grid).tolist() == [0, 2, 2, 4]


@every_grid
def test_zero_is_exact(grid: Grid) -> None:
    assert grid.real(grid.quantize(np.zeros(1)))[0] == 0


@every_grid
def test_scale_is_a_float32(grid: Grid) -> None:
    assert grid.scale == float(np.float32(grid.scale))


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-0.3, 5.7), (0, 6), (-9, 0), (2, 7), (-7, -2), (-1e-4, 1e3)])
def test_range_and_zero_lie_on_the_grid_within_half_a_step(low: float, high: float) -> None:
    grid = asymmetric_grid(low, high)

    ends = np.array([min(low, 0), max(high, 0)])

    assert np.abs(grid.real(grid.quantize(ends)) - ends).max() <= 0.501 * grid.scale
    assert 0 <= grid.zero <= 255


@pytest.mark.parametrize("grid", [asymmetric_grid(0, 0), symmetric_grid(0)])
def test_activation_that_is_always_zero_has_a_grid(grid: Grid) -> None:
    assert grid.scale > 0
    assert grid.real(grid.quantize(np.zeros(3))).tolist() == [0, 0, 0]


def test_raw_integers_go_beyond_the_grid() -> None:
    assert asymmetric_grid(-1, 1).raw(np.array([10.0, -10.0])).tolist() == [1402, -1148]


def drawn(outputs: int = 6, inputs: int = 5) -> np.ndarray:
    """Weights whose outputs differ a thousandfold."""
    return generator.standard_normal((outputs, inputs, 3, 3)) * np.geomspace(0.01, 10, outputs).reshape(-1, 1, 1, 1)


def test_weights_are_within_half_a_step_of_their_output() -> None:
    array = drawn()

    whole = quantize_weights(array, np.zeros(6), 0.01)

    half = 0.5001 * whole.scales.reshape(-1, 1, 1, 1)
    assert (np.abs(whole.values - array) <= half).all()
    assert np.abs(whole.integers.astype(int)).max((1, 2, 3)).tolist() == [127] * 6


def test_weights_as_floats_are_those_of_onnx() -> None:
    whole = quantize_weights(drawn(1), np.zeros(1), 0.01)

    wanted = by_onnx("DequantizeLinear", whole.integers, Grid(scale=float(whole.scales[0]), zero=0, signed=True))

    np.testing.assert_allclose(whole.values, wanted, rtol=1e-7)


@pytest.mark.parametrize("inputs", [1, 2, 5, 16])
def test_pairs_of_weights_leave_room_for_their_products_in_sixteen_bits(inputs: int) -> None:
    array = drawn(inputs=inputs)
    paired = sums_of_two.pairs(inputs, 9)

    whole = quantize_weights(array, np.zeros(6), 0.01, paired=paired)

    integers = whole.integers.astype(int).reshape(6, -1)
    sums = integers[:, paired[:, 0]] + integers[:, paired[:, 1]]
    assert 255 * sums.min() >= -(2**15) and 255 * sums.max() < 2**15
    free = quantize_weights(array, np.zeros(6), 0.01).integers.astype(int).reshape(6, -1)
    assert 255 * (free[:, paired[:, 0]] + free[:, paired[:, 1]]).max() >= 2**15  # what would saturate otherwise
    half = 0.5001 * whole.scales.reshape(-1, 1, 1, 1)
    assert (np.abs(whole.values - array) <= half).all()
    assert (np.maximum(np.abs(integers).max(1), np.abs(sums).max(1)) >= 126).all()  # no room is left


@pytest.mark.parametrize("input_scale", [1.0, 1e-3, 1e-12])
def test_bias_is_within_half_of_its_step(input_scale: float) -> None:
    bias = np.array([0.5, -3, 1e-3, 0, 20, -7])

    whole = quantize_weights(drawn(), bias, input_scale)

    steps = np.float32(input_scale) * whole.scales
    assert (np.abs(whole.bias * steps.astype(np.float64) - bias) <= 0.5001 * steps).all()


def test_huge_bias_with_tiny_weights_fits_int32_and_keeps_its_value() -> None:
    bias = np.array([1e4, -1e4, 3.0])
    array = np.full((3, 2, 1, 1), 1e-9)

    whole = quantize_weights(array, bias, 1e-4)

    reached = whole.bias * (np.float32(1e-4) * whole.scales).astype(np.float64)
    np.testing.assert_allclose(reached, bias, rtol=1e-6)
    # The products of 4096 inputs must still fit beside it.
    assert np.abs(whole.bias.astype(np.int64)).max() + 255 * 127 * 4096 < 2**31


def test_channel_that_is_constant_keeps_its_constant() -> None:
    array, bias = np.array([1.0, 1e-12]).reshape(2, 1, 1, 1), np.array([0.0, 0.75])

    whole = quantize_weights(array, bias, 0.01)

    assert whole.integers[1].item() == 0
    assert whole.bias[1] * float(np.float32(0.01) * whole.scales[1]) == pytest.approx(0.75, rel=1e-6)


@pytest.mark.parametrize("bias", [0.0, 2.5])
def test_weights_that_are_all_zero_stay_zero(bias: float) -> None:
    whole = quantize_weights(np.zeros((3, 2, 1, 1)), np.full(3, bias), 0.01)

    assert not whole.integers.any()
    assert (whole.scales > 0).all() and np.isfinite(whole.scales).all()
    np.testing.assert_allclose(whole.bias * (np.float32(0.01) * whole.scales).astype(float), bias, rtol=1e-6)


def test_types_are_those_of_onnx() -> None:
    whole = quantize_weights(drawn(), np.ones(6), 0.01)

    assert (whole.integers.dtype, whole.scales.dtype, whole.bias.dtype) == (np.int8, np.float32, np.int32)


def test_chosen_integers_are_taken_but_where_the_bias_needs_a_larger_scale() -> None:
    array, before, after = drawn(3), np.zeros(3), np.array([0.0, 1e9, 2.0])
    scales = channel_scales(array, before, 0.01, sums_of_two.NO_PAIRS)
    chosen = ChosenGrid(integers=np.full(array.shape, 5.0), scales=scales)

    whole = quantize_weights(array, after, 0.01, chosen=chosen)

    assert (whole.integers[[0, 2]] == 5).all()
    np.testing.assert_array_equal(whole.scales[[0, 2]], scales[[0, 2]].astype(np.float32))
    np.testing.assert_array_equal(whole.integers[1], quantize_weights(array, after, 0.01).integers[1])
    reached = whole.bias * (np.float32(0.01) * whole.scales).astype(np.float64)
    np.testing.assert_allclose(reached, after, rtol=1e-3, atol=1e-9)
