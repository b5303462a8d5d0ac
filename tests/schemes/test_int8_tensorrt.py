"""Tests of the scheme `int8_tensorrt`: the tiny DenseNet and the demo, and a plan that TensorRT-RTX builds of it."""

from pathlib import Path

import demo_graph
import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
import torch
from conftest import tiny_model
from dense_graphs import in_openvino, nodes, quantized, run
from dense_networks import FLOOR_DB, quantized_network

from deploy_kit import codec, graph, metrics
from deploy_kit.devices import Connection
from deploy_kit.lazy import install_line, present
from deploy_kit.records import Proof
from deploy_kit.schemes import BLOCKS_KEY, int8_tensorrt

with_tensorrt_rtx = pytest.mark.skipif(not present("tensorrt_rtx"), reason=install_line("tensorrt_rtx"))


@pytest.fixture(scope="module", params=[True, False], ids=["concats quantized", "concats float"])
def tiny(request: pytest.FixtureRequest) -> ir.Model:
    """The tiny DenseNet, quantized."""
    x = tiny_graphs.images(24, seed=3)
    return quantized(tiny_graphs.simplified_model(), x, int8_tensorrt, concats=request.param)


def wanted(x: np.ndarray) -> np.ndarray:
    """Give torch's own logits of the tiny DenseNet."""
    return tiny_model()(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("optimize", [False, True], ids=["as it stands", "optimized"])
def test_logits_are_near_torchs_own_in_onnx_runtime(optimize: bool, tiny: ir.Model) -> None:
    x = tiny_graphs.images(12)

    assert metrics.sqnr_db(wanted(x), run(tiny, x, optimize=optimize)[0]) > FLOOR_DB


def test_logits_are_near_torchs_own_in_openvino(tiny: ir.Model, link: Connection, tmp_path: Path) -> None:
    x = tiny_graphs.images(12)

    assert metrics.sqnr_db(wanted(x), in_openvino(link, tiny, x, tmp_path)) > FLOOR_DB


def test_norms_and_concatenations_stay(tiny: ir.Model) -> None:
    assert (len(nodes(tiny, "BatchNormalization")), len(nodes(tiny, "Concat"))) == (6, 4)


def built(link: Connection, model: ir.Model, folder: Path) -> Proof:
    """Build a plan in a worker and give what it proves."""
    graph.save(model, folder / "graph.onnx")
    with link.worker() as child:
        paths = {"onnx": str(folder / "graph.onnx"), "folder": str(folder)}
        options = {"compute_capabilities": ["8.9"]}
        return codec.from_json(
            Proof, child.ask("build", "graph", engine="tensorrt_rtx", options=options, **paths)["proof"]
        )


@with_tensorrt_rtx
def test_tensorrt_rtx_builds_it_with_int8_activations(tiny: ir.Model, link: Connection, tmp_path: Path) -> None:
    proof = built(link, tiny, tmp_path)

    assert proof.share("int8", of="activation") > 0


@with_tensorrt_rtx
@pytest.mark.parametrize("name", ["ReLU inside a concatenation", "grouped convolutions", "new maps first"])
def test_tensorrt_rtx_builds_other_networks(name: str, link: Connection, tmp_path: Path) -> None:
    proof = built(link, quantized_network(name, "tensorrt")[1], tmp_path)

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
    assert tiny.metadata_props.keys() - before.keys() == {BLOCKS_KEY}


def test_demo_keeps_its_answers() -> None:
    sqnr_db, agreement = demo_graph.kept(int8_tensorrt)

    assert sqnr_db > 28
    assert agreement >= 0.985


def test_demo_gains_from_equalization() -> None:
    without, _ = demo_graph.kept(int8_tensorrt, equalize=False)
    equalized, _ = demo_graph.kept(int8_tensorrt)

    assert equalized > without + 4


def test_demo_does_not_collapse_on_sixteen_images() -> None:
    sqnr_db, agreement = demo_graph.kept(int8_tensorrt, n_images=16)

    assert sqnr_db > 25
    assert agreement >= 0.97
