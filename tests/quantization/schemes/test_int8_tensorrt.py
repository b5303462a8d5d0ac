"""Tests of the scheme `int8_tensorrt`: the tiny DenseNet and the demo, and a plan that TensorRT-RTX builds of it."""

from pathlib import Path

import demo_graph
import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
import torch
from dense_graphs import SATURATES, array, in_openvino, nodes, quantized, run
from dense_networks import FLOOR_DB, quantized_network
from tiny_densenet import tiny_model

from deploy_kit.accuracy import metrics
from deploy_kit.base.lazy import install_line, present
from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file
from deploy_kit.graph.channel_affine import UNITS_KEY
from deploy_kit.quantization.schemes import BLOCKS_KEY, fp16, int8_tensorrt
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Proof

with_tensorrt_rtx = pytest.mark.skipif(not present("tensorrt_rtx"), reason=install_line("tensorrt_rtx"))


OLD = {"convolutions": "all", "concats": True, "rest": "fp32"}
"""A quantizer wherever one can stand."""

PLACEMENTS: dict[str, dict[str, object]] = {
    "behind norms": {},
    "and concatenations": {"concats": True},
    "blocks": {"convolutions": "blocks"},
    "everything, float32": OLD,
}


@pytest.fixture(scope="module", params=PLACEMENTS.values(), ids=PLACEMENTS)
def tiny(request: pytest.FixtureRequest) -> ir.Model:
    """The tiny DenseNet, quantized."""
    x = tiny_graphs.images(24, seed=3)
    return quantized(tiny_graphs.simplified_model(), x, int8_tensorrt, **request.param)


def wanted(x: np.ndarray) -> np.ndarray:
    """Give torch's own logits of the tiny DenseNet."""
    return tiny_model()(torch.from_numpy(x)).numpy()


@pytest.mark.slow
def test_logits_are_near_torchs_own_in_onnx_runtime(tiny: ir.Model) -> None:
    """All of its optimizer but the pass that `test_ort_half_bias` is about."""
    x = tiny_graphs.images(12)

    for found in (run(tiny, x, optimize=False)[0], run(tiny, x, without=("WeightBiasQuantization",))[0]):
        assert metrics.sqnr_db(wanted(x), found) > FLOOR_DB


@pytest.mark.parametrize("options", [{}, {"concats": True}, OLD], ids=["default", "and concatenations", "float32"])
def test_onnx_runtimes_whole_optimizer_keeps_the_logits(options: dict[str, object]) -> None:
    x = tiny_graphs.images(12)
    model = quantized(tiny_graphs.simplified_model(), tiny_graphs.images(24, seed=3), int8_tensorrt, **options)

    assert metrics.sqnr_db(wanted(x), run(model, x)[0]) > FLOOR_DB


@pytest.mark.slow
@pytest.mark.skipif(SATURATES, reason="OpenVINO's sums of 8-bit weights saturate on this processor")
def test_logits_are_near_torchs_own_in_openvino(tiny: ir.Model, connection: Connection, tmp_path: Path) -> None:
    x = tiny_graphs.images(12)

    assert metrics.sqnr_db(wanted(x), in_openvino(connection, tiny, x, tmp_path)) > FLOOR_DB


def test_norms_and_concatenations_stay(tiny: ir.Model) -> None:
    assert (len(nodes(tiny, "BatchNormalization")), len(nodes(tiny, "Concat"))) == (6, 4)


def built(connection: Connection, model: ir.Model, folder: Path) -> Proof:
    """Build a plan in a worker and give what it proves."""
    onnx_file.save(model, folder / "graph.onnx")
    with connection.worker() as child:
        paths = {"onnx": str(folder / "graph.onnx"), "folder": str(folder)}
        options = {"compute_capabilities": ["8.9"]}
        return codec.from_json(
            Proof, child.ask("build", "graph", engine="tensorrt_rtx", options=options, **paths)["proof"]
        )


@pytest.mark.slow
@with_tensorrt_rtx
def test_tensorrt_rtx_builds_it_with_int8_activations(tiny: ir.Model, connection: Connection, tmp_path: Path) -> None:
    proof = built(connection, tiny, tmp_path)

    assert proof.share("int8", of="activation") > 0


def kernels(proof: Proof) -> int:
    return sum(n for kind, n in proof.kernels if kind.startswith("pointwise"))


@pytest.mark.slow
@with_tensorrt_rtx
def test_int8_behind_norms_needs_no_more_kernels_than_fp16(connection: Connection, tmp_path: Path) -> None:
    x, source = tiny_graphs.images(24, seed=3), tiny_graphs.simplified_model()
    half = built(connection, quantized(source, x, fp16), tmp_path)
    placed = built(connection, quantized(tiny_graphs.simplified_model(), x, int8_tensorrt), tmp_path)
    everywhere = built(connection, quantized(tiny_graphs.simplified_model(), x, int8_tensorrt, **OLD), tmp_path)

    assert kernels(placed) <= kernels(half) < kernels(everywhere)
    assert not placed.advice
    assert "int8 may not pay" in everywhere.advice


@pytest.mark.slow
@with_tensorrt_rtx
def test_no_activation_of_a_plan_behind_norms_is_float32_but_its_ends(connection: Connection, tmp_path: Path) -> None:
    model = quantized(tiny_graphs.simplified_model(), tiny_graphs.images(24, seed=3), int8_tensorrt)

    proof = built(connection, model, tmp_path)

    found = {dtype: n for kind, dtype, n in proof.counts if kind == "activation"}
    assert found["fp32"] <= 2  # the input and the logits
    assert found["int8"] == 4  # one for each convolution that reads a BN and ReLU


def test_scales_and_floats_are_half_precision() -> None:
    model = quantized(tiny_graphs.simplified_model(), tiny_graphs.images(24, seed=3), int8_tensorrt)

    assert onnx_file.opset(model) >= 19
    for node in nodes(model, "QuantizeLinear", "DequantizeLinear"):
        assert array(node.inputs[1]).dtype == np.float16
        assert not array(node.inputs[2]).any()


@pytest.mark.slow
@with_tensorrt_rtx
@pytest.mark.parametrize("name", ["ReLU inside a concatenation", "grouped convolutions", "new maps first"])
def test_tensorrt_rtx_builds_other_networks(name: str, connection: Connection, tmp_path: Path) -> None:
    proof = built(connection, quantized_network(name, "tensorrt")[1], tmp_path)

    assert proof.share("int8", of="activation") > 0


def test_same_images_give_the_same_bytes() -> None:
    x = tiny_graphs.images(8)

    one, two = (
        ir.serde.serialize_model(quantized(tiny_graphs.simplified_model(), x, int8_tensorrt)).SerializeToString()
        for _ in range(2)
    )

    assert one == two


def test_metadata_of_the_file_stays(tiny: ir.Model) -> None:
    before = tiny_graphs.simplified_model().metadata_props

    assert tiny.metadata_props.items() > before.items()
    half = {onnx_file.RANGES_KEY} if onnx_file.opset(tiny) >= 19 else set()
    assert tiny.metadata_props.keys() - before.keys() == {BLOCKS_KEY, UNITS_KEY, *half}


@pytest.mark.slow
def test_demo_keeps_its_answers() -> None:
    sqnr_db, agreement = demo_graph.kept(int8_tensorrt)

    assert sqnr_db > 40
    assert agreement >= 0.995


@pytest.mark.slow
def test_demo_gains_from_equalization_where_concatenations_are_quantized() -> None:
    stated = {"concats": True, "method": "mse", "rounding": "descent"}
    without, _ = demo_graph.kept(int8_tensorrt, n_images=48, equalize=False, **stated)
    equalized, _ = demo_graph.kept(int8_tensorrt, n_images=48, **stated)

    assert equalized > without + 4


@pytest.mark.slow
def test_demo_does_not_collapse_on_sixteen_images() -> None:
    sqnr_db, agreement = demo_graph.kept(int8_tensorrt, n_images=16)

    assert sqnr_db > 30
    assert agreement >= 0.98
