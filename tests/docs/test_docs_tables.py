"""Tables in the documentation that are printed by commands are what the commands print."""

from pathlib import Path

import pytest

from deploy_kit.recipe.compatibility import page

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("name", "mark", "printed", "command"),
    [
        ("compatibility.md", "table", page.markdown, "deploykit doctor --versions"),
    ],
)
def test_a_page_holds_the_table_that_its_command_prints(name: str, mark: str, printed: object, command: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    held = text.split(f"<!-- {mark} -->\n")[1].split(f"\n<!-- /{mark} -->")[0]

    assert callable(printed)
    assert held == printed(), f"put the output of '{command}' between the marks of docs/{name}"


def test_the_codes_of_the_doctor_are_those_of_the_page() -> None:
    judged = Path(page.__file__).with_name("judge.py").read_text(encoding="utf-8")
    text = (DOCS / "compatibility.md").read_text(encoding="utf-8")

    codes = [f"DEV{number:03}" for number in range(1, 13)]
    assert all(f'code="{code}"' in judged and f"| `{code}` |" in text for code in codes)
    assert judged.count('code="DEV') >= len(codes) and f"DEV{len(codes) + 1:03}" not in judged
