"""Versions as numbers, and the one number that is said in one place."""

import re
from pathlib import Path

import pytest

import deploy_kit
from deploy_kit.base.versions import INTEGER_MAXIMUM, is_older, lacks_integer_maximum, version_numbers


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
    assert version_numbers(text) == found


@pytest.mark.parametrize(
    ("version", "floor", "expected"),
    [
        ("1.23.2", "1.24", True),
        ("1.24.1", "1.24", False),
        ("1.9", "1.24", True),
        ("10", "9.9", False),
        ("", "1", False),
    ],
)
def test_older_compares_numbers_and_not_letters(version: str, floor: str, expected: bool) -> None:
    assert is_older(version, floor) is expected


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
