"""The C++ programs of a bundle: compiled, and held against the golden outputs."""

import glob
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from machine_needs import why_missing

from deploy_kit.delivery import writer

pytest_plugins = ["tiny_line", "tiny_bundles"]

WHY = why_missing("a C++ compiler and CMake", ("cmake", "g++"), "cmake g++")


def option(engine: str) -> str:
    """Return where the wheel has the library, as an option of CMake."""
    if engine == "openvino":
        import openvino

        return f"-DOpenVINO_DIR={Path(openvino.__file__).parent}/cmake"
    import onnxruntime

    return f"-DONNXRUNTIME_LIBRARY={glob.glob(onnxruntime.__path__[0] + '/capi/libonnxruntime.so*')[0]}"


def built(bundle: Path, engine: str, folder: Path) -> Path:
    flags = "-DCMAKE_CXX_FLAGS=-O0 -Wall -Wextra -Werror"
    for command in (
        ["cmake", "-S", bundle / "cpp", "-B", folder, option(engine), flags],
        ["cmake", "--build", folder],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "classify"


@pytest.mark.slow
@pytest.mark.skipif(bool(WHY), reason=WHY)
@pytest.mark.parametrize("pixels", [False, True], ids=["floats", "pixels"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_program_gives_the_golden_outputs(
    packed: Callable[..., Path], tmp_path: Path, engine: str, pixels: bool
) -> None:
    bundle = packed("int8", engine, pixels=pixels)
    manifest = json.loads((bundle / "manifest.json").read_text())
    program = built(bundle, engine, tmp_path / "build")
    with np.load(bundle / "golden.npz") as data:
        images, logits = data["images"], data["logits"]

    for image, wanted in zip(images, logits, strict=True):
        (tmp_path / "frame.ppm").write_bytes(writer._netpbm(image))
        command = [program, bundle / manifest["engine"]["file"], tmp_path / "frame.ppm", "4"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        rows = [line.split("\t") for line in lines]
        found = np.empty(4)
        for index, value, _ in rows:
            found[int(index)] = float(value)
        assert int(rows[0][0]) == wanted.argmax()
        assert np.abs(found - wanted).max() <= manifest["golden"]["tolerance"] * np.abs(wanted).max()

    assert (bundle / "cpp" / "golden.ppm").read_bytes() == writer._netpbm(images[0])
    for spoiled, said in (
        (b"P6\n16 16\n255\n", "expected a binary PGM"),
        (b"P5\n9 16\n255\n", "px, found 9x16"),
        (b"P5\n16 16\n255\nx", "cut off"),
    ):
        (tmp_path / "frame.ppm").write_bytes(spoiled)
        command = [program, bundle / manifest["engine"]["file"], tmp_path / "frame.ppm"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, said in done.stderr) == (1, True)


@pytest.mark.slow
@pytest.mark.skipif(bool(WHY), reason=WHY)
def test_a_library_that_is_not_there_is_said(packed: Callable[..., Path], tmp_path: Path) -> None:
    program = built(packed(), "onnxruntime", tmp_path / "build")
    shutil.copy(packed() / "cpp" / "golden.ppm", tmp_path)

    done = subprocess.run(
        [program, packed() / "model.onnx", tmp_path / "golden.ppm"],
        capture_output=True, text=True, env={"ONNXRUNTIME_LIBRARY": "/nowhere.so"},
    )  # fmt: skip

    assert done.returncode == 1
    assert "set ONNXRUNTIME_LIBRARY to the library's path" in done.stderr
