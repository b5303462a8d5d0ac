"""DenseNet's relatives in INT8: from torch's exporters, in both CPU engines, held against torch's own outputs.

What moves values must move integers; an unneeded quantizer shows in the counts.
"""

import warnings
from collections import Counter
from pathlib import Path

import classic_networks
import concat_networks
import numpy as np
import onnx_ir as ir
import pytest
import torch
from dense_graphs import SATURATES, in_openvino, quantized, run
from torch import nn

from deploy_kit.accuracy import metrics
from deploy_kit.devices.links import Connection
from deploy_kit.graph import adoption, onnx_file

QUICK = ("dpn", "hardnet", "shufflenet", "tiramisu")
CHOSEN = ("peleenet", "rdnet")  # networks that `method_choice` and `bias_fit` work on as well
FLOOR_DB = 30.0
# What a network may leave in float, of operators that move values (around LayerNorm, or averaging):
FLOAT_MOVERS = {"rdnet": {"Transpose", "Concat", "Gather"}, "tiramisu, bilinear": {"Concat", "Resize"}}
MOVERS = {"Concat", "Slice", "Split", "Gather", "Resize", "Pad", "MaxPool", "DepthToSpace", "Transpose", "Max", "Min"}


def drawn(name: str, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *concat_networks.shape_of(name))).astype(np.float32)


def trained(name: str) -> nn.Module:
    """Build a network with seeded weights whose BN statistics are those of its inputs."""
    torch.manual_seed(3)
    network = concat_networks.NETWORKS[name]()
    classic_networks.settle(network, concat_networks.shape_of(name))
    return network


def written(name: str, exporter: str, folder: Path) -> tuple[nn.Module, ir.Model]:
    """Export a network, and bring the file into normal form."""
    network, shape = trained(name), concat_networks.shape_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = classic_networks.exported(network, shape, exporter, 18)
    (folder / "given.onnx").write_bytes(data)
    return network, adoption.adopt(folder / "given.onnx", adoption.Stated(shape=shape, sides=shape[1:])).model


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        *(pytest.param(name, "torchscript") for name in QUICK),
        *(
            pytest.param(name, "dynamo", marks=pytest.mark.slow)
            for name in concat_networks.NETWORKS
            if name not in QUICK or name in CHOSEN
        ),
    ],
)
def test_relative_keeps_its_outputs_in_both_engines(
    name: str, exporter: str, connection: Connection, tmp_path: Path
) -> None:
    network, model = written(name, exporter, tmp_path)
    x = drawn(name, 32, seed=2)

    # With fewer than 64 images neither the method is chosen nor biases are fitted.
    n_images = 64 if exporter == "dynamo" and name in CHOSEN else 63
    int8 = quantized(model, drawn(name, n_images, seed=1), reduce_range=SATURATES)

    expected = network(torch.from_numpy(x)).numpy()
    for found in (run(int8, x)[0], in_openvino(connection, int8, x, tmp_path)):
        assert metrics.sqnr_db(expected, found) > FLOOR_DB - (6 if SATURATES else 0)  # a bit is 6 dB
    assert floating(int8) <= FLOAT_MOVERS.get(name, set())
    assert on_integers(int8)


def floating(model: ir.Model) -> set[str]:
    """List the operators that move floats."""
    return {
        node.op_type
        for node in model.graph
        if node.op_type in MOVERS and node.outputs[0].dtype not in (ir.DataType.UINT8, ir.DataType.INT8)
    }


def on_integers(model: ir.Model) -> bool:
    """Return whether every convolution reads integers."""
    sources = [node.inputs[0] for node in model.graph if node.op_type in ("Conv", "ConvTranspose")]
    makers = [value.producer() for value in sources if value is not None]
    return bool(makers) and all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)


def test_each_value_of_a_hardnet_is_quantized_once(tmp_path: Path) -> None:
    """ReLU6 needs no operator: a grid that ends at 6 clips there."""
    _, model = written("hardnet", "torchscript", tmp_path)

    int8 = quantized(model, drawn("hardnet", 64, seed=1))

    counts: Counter[str] = onnx_file.operators(int8)
    assert counts["QuantizeLinear"] == counts["Conv"] + counts["Gemm"] + 1  # and the input, not the logits, the mean
    assert not {"Clip", "Min"} & set(counts)


@pytest.mark.parametrize("name", concat_networks.NETWORKS)
def test_network_is_no_constant(name: str) -> None:
    """A network whose output hardly depends on its input would pass every comparison."""
    outputs = trained(name)(torch.from_numpy(drawn(name, 8, seed=4)))

    assert (outputs.std(0) > 0.01 * outputs.abs().max()).all()
