"""The core without extras: what works without torch and engines, and what the rest says; each in a fresh process."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from delivered_files import delivered
from onnx import TensorProto, helper
from tiny_densenet import save_tiny, tiny_model

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

WITHOUT = """
import sys
for name in {packages!r}:
    sys.modules[name] = None
sys.argv = ["deploykit", *{arguments!r}]
from deploy_kit.cli import main
main()
"""
EXTRAS = ("torch", "onnxscript", "onnxruntime", "openvino", "nncf", "tensorrt", "tensorrt_rtx", "h5py", "fabric")


def ran(folder: Path, *arguments: object, packages: tuple[str, ...] = EXTRAS) -> "subprocess.CompletedProcess[str]":
    program = WITHOUT.format(arguments=tuple(map(str, arguments)), packages=packages)
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


@pytest.mark.slow
def test_a_check_without_torch_says_what_needs_none_and_that_works(line: "Line", tmp_path: Path) -> None:
    file = delivered(line, "int8", "onnxruntime", tmp_path)
    images, graph = ("--images", line.recipe.check.images), line.store.path(line.exported.onnx)
    np.savez(tmp_path / "golden.npz", images=np.zeros((2, 16, 16), np.uint8), logits=np.ones((2, 4), np.float32))

    def check(*more: object) -> "subprocess.CompletedProcess[str]":
        return ran(tmp_path, "check", file, *more, packages=("torch",))

    refused = check(*images)
    assert refused.returncode == 3, refused.stderr
    assert f"the checkpoint {line.recipe.source.checkpoint} needs the package 'torch'" in refused.stderr
    assert "pip install 'deploykit[torch]'; without torch: --against the ONNX file" in refused.stderr
    assert "--against labels" in refused.stderr and "--golden golden.npz" in refused.stderr
    assert check(*images, "--against", graph, "--max-drop", "60pt").returncode == 0
    assert "top-1" in check(*images, "--against", "labels").stdout
    assert check("--golden", "golden.npz").returncode == 1  # judged: nothing answers with ones alone
