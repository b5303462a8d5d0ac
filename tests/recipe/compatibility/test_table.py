"""The table: every row has its source, ranges are in order, and look-ups find the row that they should."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from deploy_kit.base.versions import is_older, version_numbers
from deploy_kit.machine import jetson
from deploy_kit.recipe import compatibility
from deploy_kit.recipe.compatibility import within

TABLE = compatibility.compatibility_table()
ROWS = [(field.name, row) for field in dataclasses.fields(TABLE) for row in getattr(TABLE, field.name)]
every_row = pytest.mark.parametrize(("table", "row"), ROWS)


@every_row
def test_every_row_names_a_document_or_a_measurement(table: str, row: Any) -> None:
    assert re.search(r"https://|measured with", row.source)


@pytest.mark.parametrize("row", [*TABLE.dla, *TABLE.tensorrt_on_jetson, *TABLE.known_bad])
def test_a_range_begins_before_it_ends(row: Any) -> None:
    assert not (row.since and row.until and is_older(row.until, row.since))


@pytest.mark.parametrize("row", TABLE.jetpack, ids=lambda row: row.jetpack)
def test_every_release_of_a_jetpack_is_found_by_its_number(row: compatibility.JetPack) -> None:
    assert [compatibility.jetpack(l4t) for l4t in row.l4t] == [row] * len(row.l4t)


def test_no_release_belongs_to_two_jetpacks() -> None:
    releases = [l4t for row in TABLE.jetpack for l4t in row.l4t]

    assert len(releases) == len(set(releases))


def test_a_release_without_its_last_number_is_the_first_of_its_line() -> None:
    found = compatibility.jetpack("36.4")

    assert found is not None and found.jetpack == "6.1"


@pytest.mark.parametrize("l4t", ["36.4.9", "", "34.1.1"])
def test_a_release_that_is_not_in_the_table_gets_no_neighbor(l4t: str) -> None:
    assert compatibility.jetpack(l4t) is None


@pytest.mark.parametrize(
    ("board", "module"),
    [
        ("NVIDIA Jetson AGX Orin Developer Kit", "AGX Orin"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "Orin Nano"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "Orin NX"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "Xavier NX"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "AGX Thor"),
    ],
)
def test_a_module_is_known_by_the_model_in_its_device_tree(board: str, module: str) -> None:
    found = compatibility.module(board)

    assert found is not None and found.module == module


def test_a_board_that_is_no_jetson_is_no_module() -> None:
    assert compatibility.module("Raspberry Pi 5 Model B Rev 1.0") is None


@pytest.mark.parametrize(
    ("sm", "architecture"), [("6.1", "Pascal"), ("7.0", "Volta"), ("7.5", "Turing"), ("12.1", "Blackwell")]
)
def test_a_compute_capability_finds_its_architecture(sm: str, architecture: str) -> None:
    found = compatibility.capability(sm)

    assert found is not None and found.architecture == architecture


def test_every_module_s_compute_capability_has_a_row() -> None:
    assert all(compatibility.capability(row.sm) for row in TABLE.modules)


@pytest.mark.parametrize("library", ["onnxruntime", "tensorrt"])
def test_a_newer_library_never_reads_less(library: str) -> None:
    rows = sorted((row for row in TABLE.onnx if row.library == library), key=lambda row: version_numbers(row.since))

    assert [row.opset for row in rows] == sorted(row.opset for row in rows)


@pytest.mark.parametrize(
    ("version", "opset"), [("1.20.1", 21), ("1.22.0", 21), ("1.22.2", 22), ("1.40.0", 26), ("1.14.0", None), ("", None)]
)
def test_a_version_reads_what_the_newest_row_before_it_does(version: str, opset: int | None) -> None:
    found = compatibility.onnx_limit("onnxruntime", version)

    assert (found.opset if found else None) == opset


@pytest.mark.parametrize(
    ("version", "inside"),
    [("11.2.1", True), ("11.4.0", True), ("11.4.1", False), ("11.1.0", False), ("", False)],
)
def test_a_range_includes_its_ends(version: str, inside: bool) -> None:
    assert within(version, "11.2", "11.4.0") is inside


# First lines of /etc/nv_tegra_release in the form that boards of these releases print.
@pytest.mark.parametrize(
    ("line", "jetpack"),
    [
        (
            "# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t186ref, EABI: aarch64, DATE: Wed Feb  2 2022",
            "",
        ),
        (
            "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 2023",
            "5.1.2",
        ),
        (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025",
            "6.2",
        ),
        ("# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64", "7.2"),
        ("Ubuntu 24.04", ""),
    ],
)
def test_a_release_file_leads_to_its_jetpack(line: str, jetpack: str, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(f"{line}\n# KERNEL_VARIANT: oot\n")

    found = compatibility.jetpack(jetson.describe_jetson(tmp_path).l4t)

    assert (found.jetpack if found else "") == jetpack
