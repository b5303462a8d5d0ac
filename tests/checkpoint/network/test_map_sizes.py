"""Tests of the input's size: who states it, and what happens where mean and std are stated without one."""

import dataclasses
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from tiny_densenet import TINY_SPEC

from deploy_kit.base.errors import InputError
from deploy_kit.checkpoint.network import map_sizes
from deploy_kit.recipe import PreprocessTable
from deploy_kit.records.artifacts import Preprocess

COLOR = "gray" if TINY_SPEC.in_channels == 1 else "rgb"
NUMBERS = (0.5,) * TINY_SPEC.in_channels
CIFAR = dataclasses.replace(
    TINY_SPEC, stem_pool="none", stem=(dataclasses.replace(TINY_SPEC.stem[0], stride=(1, 1)),), map_side=None
)
CARRIED = Preprocess(height=24, width=40, color=COLOR, mean=(0.1,) * TINY_SPEC.in_channels, std=NUMBERS)


def table(**stated: Any) -> PreprocessTable:
    return PreprocessTable(color=COLOR, mean=NUMBERS, std=NUMBERS, **stated)


@pytest.mark.parametrize(
    ("given", "sides", "source"),
    [
        ({"stated": table(height=16, width=20)}, (16, 20), None),
        ({"stated": table(), "sides": (48, 48)}, (48, 48), None),
        ({"stated": table(), "carried": CARRIED}, (24, 40), "stated by the file"),
        ({"stated": table(), "beside": ((64, 64), "config.json")}, (64, 64), "stated by config.json"),
        ({"stated": table()}, (32, 32), "convention: a stem that keeps the map"),
    ],
    ids=["the table", "--input", "the file", "a sidecar", "the stem"],
)
def test_size_is_that_of_the_best_source(given: dict[str, Any], sides: tuple[int, ...], source: str | None) -> None:
    given = {"sides": None, "carried": None} | given

    found, remarks = map_sizes.input_of(CIFAR, given.pop("sides"), Path("net.pth"), **given)

    assert isinstance(found, Preprocess)
    assert (found.height, found.width) == sides
    assert found.mean == NUMBERS
    about_size = [remark for remark in remarks if remark.startswith("input size")]
    assert len(about_size) == (source is not None)
    assert all(source in remark for remark in about_size if source)


@pytest.mark.parametrize("given", [{"stated": table()}, {"stated": None, "sides": (32, 32)}])
def test_what_a_person_states_in_place_of_the_file_is_said(given: dict[str, Any]) -> None:
    given = {"sides": None} | given

    _, remarks = map_sizes.input_of(CIFAR, given.pop("sides"), Path("net.pth"), carried=CARRIED, **given)
    _, silent = map_sizes.input_of(CIFAR, None, Path("net.pth"), carried=CARRIED, stated=None)

    assert remarks[-1] == f"in place of the preprocessing that the file states: {CARRIED.words}"
    assert silent == ()


def test_a_crop_is_not_made_to_a_size_that_is_only_a_convention() -> None:
    with pytest.raises(InputError, match="does not say how large its input is") as refused:
        map_sizes.input_of(CIFAR, None, Path("net.pth"), stated=table(resize=40), carried=None)

    assert refused.value.hint == "name it: --input 224x224"
    found, _ = map_sizes.input_of(CIFAR, (32, 32), Path("net.pth"), stated=table(resize=40), carried=None)
    assert isinstance(found, Preprocess)
    assert (found.height, found.resize) == (32, 40)


def test_a_graph_states_its_size() -> None:
    n = TINY_SPEC.in_channels
    graph = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 18]> g (float[1,{n},24,40] x) => (float[1,{n},24,40] y) {{ y = Relu(x) }}'
    )

    found = map_sizes.input_of_graph(ir.serde.deserialize_model(graph), Path("net.onnx"), stated=table())

    assert isinstance(found, Preprocess)
    assert (found.height, found.width) == (24, 40)
