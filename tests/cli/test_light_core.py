"""The core without extras: what works without torch and engines, and what the rest says; each in a fresh process."""

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from tiny_densenet import save_tiny, tiny_model

WITHOUT = """
import sys
for name in ("torch", "onnxscript", "onnxruntime", "openvino", "nncf", "tensorrt", "tensorrt_rtx", "h5py", "fabric"):
    sys.modules[name] = None
sys.argv = ["deploykit", *{arguments!r}]
from deploy_kit.cli import main
main()
"""


def ran(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    program = WITHOUT.format(arguments=tuple(map(str, arguments)))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ONNX graph and a checkpoint."""
    folder = tmp_path_factory.mktemp("light")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("input", "logits")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["logits"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), folder / "net.onnx")
    save_tiny(folder / "best.safetensors", tiny_model())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"), [(("inspect", "net.onnx"), "ONNX graph, fp32"), (("store", "list"), "0 results")]
)
def test_the_core_works_without_torch_and_engines(desk: Path, arguments: tuple[str, ...], words: str) -> None:
    ended = ran(desk, *arguments)

    assert (ended.returncode, words in ended.stdout) == (0, True), ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("inspect", "best.safetensors"), "torch"),
        (("build", "best.safetensors", "--engine", "openvino"), "openvino"),
        (("deploy", "best.safetensors"), "torch"),
    ],
)
def test_what_needs_more_says_which_extra_and_leaves_nothing(
    desk: Path, arguments: tuple[str, ...], extra: str
) -> None:
    before = sorted(desk.iterdir())

    ended = ran(desk, *arguments)

    assert ended.returncode == 3, ended.stderr
    assert "which is not installed here" in ended.stderr
    assert f"'deploykit[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sorted(desk.iterdir()) == before
