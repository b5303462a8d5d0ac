"""`config.pbtxt`, read by Triton's own protobuf."""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from deploy_kit.delivery import triton
from deploy_kit.records.artifacts import TensorSpec

pytest_plugins = ["tiny_line", "tiny_bundles"]

BESIDE = Path(__file__).parents[2] / ".venv" / "implementations"
PROTOBUF = BESIDE / "tritonclient" / "grpc" / "model_config_pb2.py"


@pytest.fixture(scope="module")
def model_config() -> ModuleType:
    """Give Triton's messages; of its client only this file is loaded, which needs no gRPC."""
    if not PROTOBUF.is_file():
        pytest.skip("needs Triton's protobuf: make test")
    spec = importlib.util.spec_from_file_location("model_config_pb2", PROTOBUF)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was generated for protobuf 6
        spec.loader.exec_module(module)
    return module


def parsed(model_config: ModuleType, text: str):
    from google.protobuf import text_format

    return text_format.Parse(text, model_config.ModelConfig())


@pytest.mark.parametrize(
    ("pixels", "dtype", "dims"), [(False, "FP32", [1, 1, 16, 16]), (True, "UINT8", [1, 16, 16, 1])]
)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_triton_reads_the_configuration_of_a_bundle(
    packed: Callable[..., Path], model_config: ModuleType, engine: str, pixels: bool, dtype: str, dims: list[int]
) -> None:
    (model,) = (packed("int8", engine, pixels=pixels) / "triton").iterdir()

    config = parsed(model_config, (model / "config.pbtxt").read_text())

    assert config.name == model.name
    assert config.backend == engine
    assert (model / "1" / config.default_model_filename).is_file()
    assert [(one.name, one.data_type, list(one.dims)) for one in (*config.input, *config.output)] == [
        ("input", getattr(model_config, f"TYPE_{dtype}"), dims),
        ("logits", model_config.TYPE_FP32, [1, 4]),
    ]
    assert config.max_batch_size == 0


def test_an_open_batch_is_the_servers(model_config: ModuleType) -> None:
    entry = TensorSpec(name='in"put\n', dtype="float16", shape=("N", 3, 8, 8))
    exit_ = TensorSpec(name="logits", dtype="float", shape=("N", 10))

    text = triton.config("net", 'platform: "tensorrt_plan"', entry, exit_, file="model.plan", labelled=True)
    config = parsed(model_config, text)

    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (32, True)
    assert (config.input[0].name, list(config.input[0].dims)) == ('in"put\n', [3, 8, 8])
    assert config.input[0].data_type == model_config.TYPE_FP16
    assert config.output[0].label_filename == "labels.txt"
