"""Layer groups that stay in float: what is integer and what is not, and that the numbers follow."""

import numpy as np
import onnx_ir as ir
import pytest
from dense_graphs import Sketch, quantized, run

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import UnknownNameError
from deploy_kit.graph import layer_names, onnx_file
from deploy_kit.quantization.schemes import int8_portable, int8_tensorrt

LAYERS = ("denseblock1.denselayer1", "denseblock1.denselayer2", "denseblock1.denselayer3")
EVERYTHING = ("stem", "denseblock1", "head")
PORTABLE = {"max": {}, "depthwise": {"form": "depthwise"}}
TENSORRT = {
    "all": {"convolutions": "all", "concats": True, "rest": "fp32"},
    "behind norms": {"rest": "fp32"},
}  # fmt: skip


def network() -> tuple[Sketch, ir.Model]:
    sketch = Sketch()
    return sketch, sketch.model(sketch.head(sketch.norm(sketch.block(sketch.stem(), 3))))


def on_integers(model: ir.Model) -> list[str]:
    """Name the groups that hold integer weights."""
    found = []
    for group in layer_names.layer_groups(model):
        weights = [node.inputs[1].producer() for node in group.weighted if node.inputs[1] is not None]
        if any(weight is not None and weight.op_type == "DequantizeLinear" for weight in weights):
            found.append(group.name)
    return found


def sqnr(model: ir.Model, candidate: ir.Model, x: np.ndarray) -> float:
    return metrics.sqnr_db(run(model, x, optimize=False)[0], run(candidate, x, optimize=False)[0])


@pytest.mark.parametrize("form", PORTABLE)
@pytest.mark.parametrize("kept", [(), ("stem",), LAYERS[:1], LAYERS[1:2], LAYERS[2:], LAYERS[:2], ("head",)])
def test_exactly_the_kept_groups_have_float_weights(form: str, kept: tuple[str, ...]) -> None:
    sketch, model = network()

    found = quantized(model, sketch.images(8), int8_portable, keep=kept, **PORTABLE[form])

    assert on_integers(found) == [name for name in ("stem", *LAYERS, "head") if name not in kept]


@pytest.mark.parametrize("form", TENSORRT)
@pytest.mark.parametrize("kept", [LAYERS[:1], LAYERS[1:2], LAYERS[1:]])
def test_tensorrt_keeps_them_too(form: str, kept: tuple[str, ...]) -> None:
    sketch, model = network()
    everything = on_integers(quantized(model, sketch.images(8), int8_tensorrt, **TENSORRT[form]))

    found = quantized(model, sketch.images(8), int8_tensorrt, keep=kept, **TENSORRT[form])

    assert on_integers(found) == [name for name in everything if name not in kept]


@pytest.mark.parametrize("form", PORTABLE)
def test_a_block_whose_layers_are_all_kept_has_no_integers(form: str) -> None:
    sketch, model = network()

    found = quantized(model, sketch.images(8), int8_portable, keep=("denseblock1",), **PORTABLE[form])

    places = layer_names.named_locations(found)
    inside = [node for node in found.graph if places[str(node.outputs[0].name)].region in LAYERS]
    assert sum(node.op_type in ("Conv", "Concat") for node in inside) == 9
    assert not {value.dtype for node in inside for value in node.outputs} & {ir.DataType.UINT8, ir.DataType.INT8}
    assert on_integers(found) == ["stem", "head"]


def test_layers_kept_at_the_end_of_a_block_let_the_others_concatenate_integers() -> None:
    sketch, model = network()

    found = quantized(model, sketch.images(8), int8_portable, keep=LAYERS[2:])

    concats = [node.outputs[0].dtype for node in found.graph if node.op_type == "Concat"]
    assert concats == [ir.DataType.UINT8] * 3


def test_layers_kept_at_the_beginning_of_a_block_concatenate_floats() -> None:
    sketch, model = network()

    found = quantized(model, sketch.images(8), int8_portable, keep=LAYERS[:2])

    concats = [node.outputs[0].dtype for node in found.graph if node.op_type == "Concat"]
    assert concats == [ir.DataType.FLOAT, ir.DataType.FLOAT, ir.DataType.UINT8]


@pytest.mark.parametrize(("scheme", "options"), [(int8_portable, {}), (int8_tensorrt, TENSORRT["all"])])
def test_with_everything_kept_the_graph_is_float_and_the_same_function(scheme, options) -> None:  # type: ignore[no-untyped-def]
    sketch, model = network()
    x = sketch.images(8)

    found = quantized(model, x, scheme, keep=EVERYTHING, **options)

    assert onnx_file.precision(found) == "fp32"
    assert sqnr(model, found, x) > 100


@pytest.mark.parametrize("form", PORTABLE)
def test_a_kept_reader_takes_the_inverse_of_the_equalization(form: str) -> None:
    sketch, model = network()
    x = sketch.images(16)

    def left(*kept: str) -> float:
        plain = {"rounding": "nearest", "method": "minmax", **PORTABLE[form]}
        return sqnr(model, quantized(model, x, int8_portable, keep=kept, **plain), x)

    # A stem in float still writes to the grid of its block, whose rounding is most of the noise.
    assert left("head") - 1 < left("stem", "head") < left("stem", "head", *LAYERS[:2])
    assert left("head") + 3 < left(*LAYERS, "head")


def test_without_equalization_a_kept_group_is_float_too() -> None:
    sketch, model = network()
    x = sketch.images(16)

    def left(*kept: str) -> float:
        return sqnr(model, quantized(model, x, int8_portable, equalize=False, keep=kept), x)

    assert left("stem", "head", *LAYERS[:2]) > left("stem", "head") + 3


def test_a_part_can_be_kept() -> None:
    sketch, model = network()

    found = quantized(model, sketch.images(8), int8_portable, keep=(f"{LAYERS[1]}.conv2",))

    second = next(group for group in layer_names.layer_groups(found) if group.name == LAYERS[1])
    makers = [node.inputs[1].producer() for node in second.weighted if node.inputs[1] is not None]
    assert [maker is not None for maker in makers] == [True, False]


@pytest.mark.parametrize("scheme", [int8_portable, int8_tensorrt])
def test_an_unknown_group_is_refused_with_the_nearest(scheme) -> None:  # type: ignore[no-untyped-def]
    sketch, model = network()

    with pytest.raises(UnknownNameError, match="no layer group is called") as caught:
        quantized(model, sketch.images(8), scheme, keep=("denseblock1.denselayer4",))

    assert "denseblock1.denselayer" in caught.value.hint


@pytest.mark.slow
def test_one_plan_writes_many_graphs_each_as_if_it_were_the_only_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from dense_graphs import calibration

    sketch, model = network()
    x = sketch.images(8)
    onnx_file.save(model, tmp_path / "source.onnx")
    for scheme, options in ((int8_portable, {}), (int8_tensorrt, {"rest": "fp32"})):
        planned = scheme.SCHEME.planned(tmp_path / "source.onnx", scheme.SCHEME.options(**options), calibration(x))
        assert [name for name, macs in planned.groups if macs] == ["stem", *LAYERS, "head"]
        for number, kept in enumerate(((), LAYERS[:1], LAYERS[1:], ())):
            planned.write(tmp_path / f"{number}.onnx", kept)
            scheme.SCHEME.apply(
                tmp_path / "source.onnx",
                tmp_path / "alone.onnx",
                scheme.SCHEME.options(keep=kept, **options),
                calibration(x),
            )
            assert (tmp_path / f"{number}.onnx").read_bytes() == (tmp_path / "alone.onnx").read_bytes()
