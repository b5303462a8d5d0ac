"""Versions as numbers, the release file of a Jetson, and the one number that is said in one place."""

import re
from pathlib import Path

import pytest

import deploy_kit
from deploy_kit.versions import INTEGER_MAXIMUM, l4t_of, lacks_integer_maximum, numbers, older


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.3.0", (10, 3, 0)),
        ("10.16.2.10-1+cuda13.2", (10, 16, 2, 10)),
        ("2.13.0+cpu", (2, 13, 0)),
        ("1.24.0rc1", (1, 24, 0)),
        ("v1", ()),
        ("", ()),
    ],
)
def test_a_version_gives_its_leading_numbers(text: str, found: tuple[int, ...]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("version", "floor", "is_older"),
    [
        ("1.23.2", "1.24", True),
        ("1.24.1", "1.24", False),
        ("1.9", "1.24", True),
        ("10", "9.9", False),
        ("", "1", False),
    ],
)
def test_older_compares_numbers_and_not_letters(version: str, floor: str, is_older: bool) -> None:
    assert older(version, floor) is is_older


@pytest.mark.parametrize(("version", "lacks"), [("1.23.2", True), ("1.24.1", False), ("", False)])
def test_the_integer_maximum_has_its_floor(version: str, lacks: bool) -> None:
    assert lacks_integer_maximum(version) is lacks


def test_the_floor_of_the_integer_maximum_is_written_once() -> None:
    said = [
        f"{path.name}: {line.strip()}"
        for path in Path(deploy_kit.__file__).parent.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(rf"(?<![\d.]){re.escape(INTEGER_MAXIMUM)}(?![\d.])", line)
    ]

    assert said == [f'versions.py: INTEGER_MAXIMUM = "{INTEGER_MAXIMUM}"']


# First lines of /etc/nv_tegra_release, as the boards of these releases print them.
@pytest.mark.parametrize(
    ("line", "release"),
    [
        (
            "# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t186ref, EABI: aarch64, DATE: Wed Feb  2 2022",
            "32.7.1",
        ),
        (
            "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 2023",
            "35.4.1",
        ),
        (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025",
            "36.4.3",
        ),
        ("# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64", "39.2.0"),
        ("Ubuntu 24.04", ""),
    ],
)
def test_the_release_of_a_jetson_is_read_from_its_file(line: str, release: str) -> None:
    assert l4t_of(line) == release
