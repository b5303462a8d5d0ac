"""What docs/python.md and the package's docstring show is what the API takes."""

import ast
import inspect
import re
import textwrap
from pathlib import Path

import pytest

import deploy_kit

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
assert deploy_kit.__doc__ is not None
SHOWN = [
    *BLOCKS,
    *(textwrap.dedent(part) for part in re.findall(r"(?:^    .*\n\n?)+", deploy_kit.__doc__, re.MULTILINE)),
]


def misused(code: str) -> list[str]:
    """List the names and keywords of the API that a piece of code uses and that are not there."""
    faults = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "deploy_kit":
            if node.attr not in deploy_kit.__all__:
                faults.append(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("deploy_kit."):
            called = getattr(deploy_kit, ast.unparse(node.func).removeprefix("deploy_kit."))
            known = inspect.signature(called).parameters
            faults += [f"{called.__name__}({word.arg}=…)" for word in node.keywords if word.arg not in known]
    return faults


@pytest.mark.parametrize("code", SHOWN)
def test_a_piece_of_code_uses_what_is_there(code: str) -> None:
    assert misused(code) == []


def test_a_keyword_that_is_not_there_is_noticed() -> None:
    assert misused("import deploy_kit\ndeploy_kit.build(x, thread=2)\ndeploy_kit.make") == ["build(thread=…)", "make"]


def test_every_function_has_a_row() -> None:
    rows = "".join(re.findall(r"^\| `.*?\|", PAGE.split("## Functions")[1].split("\n## ")[0], re.MULTILINE))
    functions = {name for name in deploy_kit.__all__ if inspect.isfunction(getattr(deploy_kit, name))}

    assert {name for name in functions if f"`{name}`" not in rows} == set()


def test_every_error_is_in_the_table() -> None:
    shown = set(re.findall(r"`(\w+Error)`", PAGE))

    assert {name for name in deploy_kit.__all__ if name.endswith("Error")} == shown
