"""A bundle in an environment that has numpy, Pillow and its engine alone: it predicts and verifies."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest_plugins = ["tiny_line", "tiny_bundles"]
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_bundle_needs_numpy_pillow_and_its_engine_alone(
    packed: Callable[..., Path], tmp_path: Path, engine: str
) -> None:
    bundle = packed("int8", engine)
    python = tmp_path / "new" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "new"], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    if subprocess.run([*pip, "install", "--quiet", "-c", CONSTRAINTS, "numpy", "pillow", engine]).returncode:
        pytest.skip(f"needs an index of packages: pip install numpy pillow {engine}")
    with np.load(bundle / "golden.npz") as data:
        Image.fromarray(data["images"][0]).save(tmp_path / "a.png")
        wanted = int(data["logits"][0].argmax())

    listed = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True, check=True)
    home = tmp_path / "home"
    home.mkdir()
    predicted, verified = (
        subprocess.run([python, *program], capture_output=True, text=True, env=os.environ | {"HOME": str(home)})
        for program in ((bundle / "predict.py", tmp_path / "a.png"), (bundle / "verify.py",))
    )

    assert "numpy" in listed.stdout
    assert "torch" not in listed.stdout
    assert "deploykit" not in listed.stdout
    assert (predicted.returncode, verified.returncode) == (0, 0), predicted.stderr + verified.stdout + verified.stderr
    assert predicted.stdout.startswith(f"{tmp_path / 'a.png'}: {wanted} ")
    assert list(home.iterdir()) == []  # OpenVINO's telemetry would have left its mark
    assert "8 images, 0 of the largest logit off" in verified.stdout
