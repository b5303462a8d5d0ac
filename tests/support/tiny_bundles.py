"""Bundles of the tiny DenseNet, packed once a session. A plugin: `pytest_plugins = ["tiny_line", "tiny_bundles"]`."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bundle_making import pack

if TYPE_CHECKING:
    from tiny_line import Line


@pytest.fixture(scope="session")
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Give (variant, engine, whether the graph takes pixels) → the folder of its bundle, which no test changes."""

    @functools.cache
    def made(variant: str, engine: str, pixels: bool) -> Path:
        line: Line = request.getfixturevalue("pixel_line" if pixels else "line")
        return pack(line, variant, engine, tmp_path_factory.mktemp("bundles") / f"{variant}-{engine}")

    return lambda variant="int8", engine="onnxruntime", *, pixels=False: made(variant, engine, pixels)


@pytest.fixture
def bundle(packed: Callable[..., Path], tmp_path: Path) -> Path:
    """Give a bundle for ONNX Runtime that the test may change."""
    return Path(shutil.copytree(packed(), tmp_path / "bundle"))
