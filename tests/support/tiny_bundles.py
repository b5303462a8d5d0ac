"""Bundles of the tiny DenseNet, packed once a session. A plugin: `pytest_plugins = ["tiny_line", "tiny_bundles"]`."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bundle_making import pack

if TYPE_CHECKING:
    from tiny_line import Line


@pytest.fixture(scope="session")
def packed(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Give (variant, engine) → the folder of its bundle, which no test changes."""
    made: dict[tuple[str, str], Path] = {}

    def give(variant: str = "int8", engine: str = "onnxruntime") -> Path:
        if (variant, engine) not in made:
            folder = tmp_path_factory.mktemp("bundles") / f"{variant}-{engine}"
            made[variant, engine] = pack(line, variant, engine, folder)
        return made[variant, engine]

    return give


@pytest.fixture
def bundle(packed: Callable[..., Path], tmp_path: Path) -> Path:
    """Give a bundle for ONNX Runtime that the test may change."""
    return Path(shutil.copytree(packed(), tmp_path / "bundle"))
