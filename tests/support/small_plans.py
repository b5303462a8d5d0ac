"""Small graphs for engines that are built, and a plan of one. A plugin of all tests."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy_kit.base.lazy import install_line, present


def convolution_graph(path: Path, *, batch: int | str = 2, operator: str = "Conv", domain: str = "") -> Path:
    """Write a graph (batch, 3, 8, 8) → (batch, 4, 8, 8): one convolution and a ReLU."""
    weights = np.random.default_rng(3).standard_normal((4, 3, 3, 3), np.float32)
    shape = {"pads": [1, 1, 1, 1]} if operator == "Conv" else {}
    graph = helper.make_graph(
        [
            helper.make_node(operator, ["input", "w"], ["map"], name="the_node", domain=domain, **shape),
            helper.make_node("Relu", ["map"], ["logits"]),
        ],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4, 8, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture
def small_graph(tmp_path: Path) -> Path:
    """A fixed batch of 2."""
    return convolution_graph(tmp_path / "small.onnx")


@pytest.fixture
def open_graph(tmp_path: Path) -> Path:
    """An open batch."""
    return convolution_graph(tmp_path / "open.onnx", batch="N")


@pytest.fixture(scope="session")
def small_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of TensorRT-RTX for sm_89 with its passport; copy it before changing it."""
    if not present("tensorrt_rtx"):
        pytest.skip(install_line("tensorrt_rtx"))
    from deploy_kit.engines import tensorrt_rtx

    folder = tmp_path_factory.mktemp("plan")
    options = tensorrt_rtx.TensorRtOptions(compute_capabilities=("8.9",))
    tensorrt_rtx.build(convolution_graph(folder / "small.onnx"), folder, options)
    return folder / "model.rtx.plan"
