"""Networks of the papers before DenseNet, exported by both of torch's exporters: through all steps, at every opset."""

from pathlib import Path

import classic_networks
import pytest
import torch
import whole_line

from deploy_kit.graph import onnx_file

SIDE = 64
# Every network by both exporters; every operator set that either of them writes, once.
MATRIX = (
    ("alexnet", "torchscript", 11), ("alexnet", "torchscript", 16), ("alexnet", "dynamo", 18),
    ("vgg", "torchscript", 12), ("vgg", "torchscript", 17), ("vgg", "dynamo", 19),
    ("googlenet", "torchscript", 13), ("googlenet", "dynamo", 20),
    ("inception", "torchscript", 14), ("inception", "dynamo", 21),
    ("resnet", "torchscript", 15), ("resnet", "dynamo", 21),
)  # fmt: skip
QUICK = (("resnet", "torchscript", 15),)


@pytest.mark.parametrize(
    ("name", "exporter", "opset"),
    [pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in MATRIX],
)
def test_network_goes_through_all_steps(name: str, exporter: str, opset: int, tmp_path: Path) -> None:
    network = classic_networks.trained(name, SIDE)
    (tmp_path / "given.onnx").write_bytes(classic_networks.exported(network, SIDE, exporter, opset))

    walked = whole_line.walk(tmp_path / "given.onnx", tmp_path, sides=(SIDE, SIDE))

    assert walked.exported.difference < 1e-5
    for engine in whole_line.ENGINES:
        assert walked.parity["fp32", engine].sqnr_db > 90
        assert walked.parity["int8", engine].sqnr_db > 15
    assert onnx_file.opset(onnx_file.load(tmp_path / "store" / walked.graphs["fp32"].path)) == max(opset, 13)


@pytest.mark.parametrize("name", classic_networks.NETWORKS)
def test_network_is_no_constant(name: str) -> None:
    """A network whose output hardly depends on its input would pass every comparison."""
    network = classic_networks.trained(name, SIDE)

    logits = network(torch.randn(8, 3, SIDE, SIDE))

    assert (logits.std(0) > 0.02 * logits.abs().max()).all()
