"""docs/limits.md: each of its rows names a test, and the test is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (.+?) \| .+ \| (.+) \|$", (ROOT / "docs/limits.md").read_text(encoding="utf-8"), re.MULTILINE)
HELD = [(what, test) for what, test in ROWS if what not in ("what", "---")]


@pytest.mark.parametrize(("what", "test"), HELD)
def test_a_row_is_held_by_a_test(what: str, test: str) -> None:
    file, _, name = test.strip("`").partition("::")

    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_the_page_has_rows() -> None:
    assert len(HELD) > 90
