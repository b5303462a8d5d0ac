"""Tests of the scheme `int8_portable`: the tiny DenseNet and the demo, in both runtimes that it is for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import demo_graph
import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
import torch
from dense_graphs import SATURATES, in_openvino, nodes, quantized, run
from dense_networks import FLOOR_DB, quantized_network
from tiny_densenet import tiny_model

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import QuantizeError, RecipeError
from deploy_kit.base.file_notes import SUMS_FIT
from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file, sums_of_two
from deploy_kit.graph.channel_affine import UNITS_KEY
from deploy_kit.quantization.schemes import BLOCKS_KEY, int8_portable
from deploy_kit.quantization.schemes.int8_portable import Int8PortableOptions
from deploy_kit.records import codec

FORMS = ("max", "depthwise")
# What is chosen for the demo, stated: `tests/test_demo.py` lets images choose, and fits its biases.
STATED: dict[str, Any] = {"method": "mse", "rounding": "descent", "fit_biases": False, "n_images": 48}
either_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module")
def tiny() -> Callable[..., ir.Model]:
    """Quantize the tiny DenseNet, as it was exported, with given options."""
    done: dict[str, ir.Model] = {}

    def make(model: ir.Model | None = None, **options: Any) -> ir.Model:
        if model is not None:
            return quantized(model, tiny_graphs.images(24, seed=3), **options)
        if str(options) not in done:
            done[str(options)] = make(tiny_graphs.simplified_model(), **options)
        return done[str(options)]

    return make


def wanted(x: np.ndarray) -> np.ndarray:
    """Give torch's own logits of the tiny DenseNet."""
    return tiny_model()(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("optimize", [False, True], ids=["as it stands", "optimized"])
@either_form
def test_logits_are_near_torchs_own_in_onnx_runtime(form: str, optimize: bool, tiny: Callable[..., ir.Model]) -> None:
    x = tiny_graphs.images(12)

    found = run(tiny(form=form), x, optimize=optimize)[0]

    assert metrics.sqnr_db(wanted(x), found) > FLOOR_DB


@pytest.mark.slow
@either_form
def test_logits_are_near_torchs_own_in_openvino(
    form: str, tiny: Callable[..., ir.Model], connection: Connection, tmp_path: Path
) -> None:
    x = tiny_graphs.images(12)

    found = in_openvino(connection, tiny(form=form, reduce_range=SATURATES), x, tmp_path)

    assert metrics.sqnr_db(wanted(x), found) > FLOOR_DB


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "ReLU inside a concatenation", "ReLU behind the stem's pool", "average pool in ceil mode", "residual", "1-D",
        "grouped convolutions", "average and maximum concatenated in the head", "no bottleneck",
    ],
)  # fmt: skip
def test_openvino_and_onnx_runtime_agree(name: str, connection: Connection, tmp_path: Path) -> None:
    network, model = quantized_network(name, "narrow sums" if SATURATES else "max")
    x = network.sketch.images(6, seed=9)

    found = in_openvino(connection, model, x, tmp_path)

    assert metrics.sqnr_db(run(network.model(), x)[0], found) > FLOOR_DB - (10 if SATURATES else 4)  # a bit is 6 dB


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["batch of 1", "open batch"])
def test_graphs_of_each_exporter_come_as_they_are(exporter: str, dynamic: bool, tiny: Callable[..., ir.Model]) -> None:
    x = tiny_graphs.images(12)
    model = tiny(tiny_graphs.exported_model(exporter, dynamic))

    assert metrics.sqnr_db(wanted(x), run(model, x)[0]) > FLOOR_DB
    assert not nodes(model, "BatchNormalization")


@pytest.mark.parametrize(("form", "counted"), [("max", (2 + 2 + 1, 1)), ("depthwise", (0, 6))])
def test_form_decides_what_norms_become(form: str, counted: tuple[int, int], tiny: Callable[..., ir.Model]) -> None:
    model = tiny(form=form)

    norms = [node for node in nodes(model, "Conv") if node.attributes.get_int("group", 1) > 1]
    bounds = [node for node in nodes(model, "Max", "Min") if node.inputs[1].const_value.size > 1]

    # Four layers and a transition read concatenations through a convolution, the last BN through a pool; the
    # transition's average is a grouped convolution too, the stem's shifted ReLU a maximum.
    assert (len(bounds) - 1, len(norms) - 1) == counted


@pytest.mark.parametrize("rounding", ["nearest", "descent"])
def test_reduced_range_keeps_sums_of_two_in_sixteen_bits_and_says_so(
    rounding: str, tiny: Callable[..., ir.Model]
) -> None:
    narrow, wide = tiny(reduce_range=True, rounding=rounding), tiny(rounding=rounding)

    assert (sums_of_two.fit(narrow), sums_of_two.fit(wide)) == (True, False)
    assert (SUMS_FIT in narrow.metadata_props, SUMS_FIT in wide.metadata_props) == (True, False)
    weights = [n.inputs[1].producer().inputs[0].const_value.numpy() for n in nodes(narrow, "Conv", "Gemm")]
    assert max(int(np.abs(array.astype(int)).max()) for array in weights) > 64  # more than 7 bits


def test_without_equalization_other_scales_are_written(tiny: Callable[..., ir.Model]) -> None:
    scales = [
        {n.inputs[1].const_value.numpy().item() for n in nodes(model, "QuantizeLinear")}
        for model in (tiny(), tiny(equalize=False))
    ]

    assert any(scale == pytest.approx(2 / 255) for scale in scales[0])
    assert not any(scale == pytest.approx(2 / 255) for scale in scales[1])


def test_metadata_of_the_file_stays(tiny: Callable[..., ir.Model]) -> None:
    model = tiny_graphs.simplified_model()

    assert tiny().metadata_props.items() > model.metadata_props.items()
    assert tiny().metadata_props.keys() - model.metadata_props.keys() == {BLOCKS_KEY, UNITS_KEY}
    assert onnx_file.preprocess(tiny()) == onnx_file.preprocess(model) is not None


def test_activation_that_is_not_finite_is_named() -> None:
    x = tiny_graphs.images(4)
    x[2, 0, 3, 3] = np.nan

    with pytest.raises(QuantizeError, match=r"calibration: activation '.+' is not finite on these images"):
        quantized(tiny_graphs.simplified_model(), x)


def test_unknown_form_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="form") as caught:
        codec.from_json(Int8PortableOptions, {"form": "maximum"}, "scheme 'int8_portable'")

    assert "max" in caught.value.hint


@pytest.mark.slow
def test_demo_keeps_its_answers() -> None:
    sqnr_db, agreement = demo_graph.kept(int8_portable, **STATED)

    assert sqnr_db > FLOOR_DB
    assert agreement >= 0.99


@pytest.mark.slow
def test_demo_gains_from_equalization() -> None:
    without, _ = demo_graph.kept(int8_portable, equalize=False, **STATED)
    equalized, _ = demo_graph.kept(int8_portable, **STATED)

    assert equalized > without + 10


@pytest.mark.slow
def test_demo_does_not_collapse_on_sixteen_images() -> None:
    sqnr_db, agreement = demo_graph.kept(int8_portable, n_images=16)

    assert sqnr_db > 25
    assert agreement >= 0.97


@pytest.mark.slow
def test_demo_in_the_depthwise_form_keeps_its_answers() -> None:
    sqnr_db, agreement = demo_graph.kept(int8_portable, form="depthwise", **STATED)

    assert sqnr_db > FLOOR_DB
    assert agreement >= 0.99
