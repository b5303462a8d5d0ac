"""docs/architecture.md and CONTRIBUTING.md against the tree: layers, packages, stages, and every file they name."""

import re
from pathlib import Path

import pytest

import deploy_kit
from deploy_kit import stages
from deploy_kit.base.catalogue import Catalogue

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "deploy_kit"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# What is generated, or is no module of its own.
NO_ROOMS = {"__pycache__", "__init__.py", "py.typed"}
PLACEHOLDERS = ("<", "…", "*")


def section(text: str, title: str) -> str:
    """Return a section of a page, without its heading."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """Return what stands in code font at the start of each row of a table."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


def files_named(text: str) -> set[str]:
    """Return each path of a Python, YAML or TOML file, and each folder, that stands in code font."""
    quoted = re.findall(r"`([\w./-]+(?:\.py|\.yaml|\.toml|/))`", text)
    return {path for path in quoted if not any(mark in path for mark in PLACEHOLDERS)}


def exists(path: str) -> bool:
    """Return whether some path of the repository ends in this one: pages leave out what goes without saying."""
    tail = tuple(Path(path).parts)
    return any(found.parts[-len(tail) :] == tail for found in KNOWN)


KNOWN = [
    path.relative_to(ROOT)
    for top in ("deploy_kit", "docs", "tests", "examples", "recipes", "benchmarks", "scripts")
    for path in (ROOT / top, *(ROOT / top).rglob("*"))
    if "__pycache__" not in path.parts
] + [path.relative_to(ROOT) for path in ROOT.iterdir()]


def test_the_layers_are_those_of_import_linter() -> None:
    shown = PAGE.split("<!-- layers -->\n```\n")[1].split("\n```\n<!-- /layers -->")[0].splitlines()
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split('name = "Packages import down"')[1]
    held = re.findall(r'^    "([^"]+)",$', contract.split("\n]")[0], re.MULTILINE)

    assert shown == held


def test_every_room_of_the_package_is_in_the_table_and_nothing_else() -> None:
    there = {f"{path.name}/" if path.is_dir() else path.name for path in PACKAGE.iterdir() if path.name not in NO_ROOMS}

    assert set(first_cells(section(PAGE, "Packages"))) == there


def test_every_stage_is_a_row_of_the_datas_way() -> None:
    folder = Path(stages.__file__).parent
    there = {path.stem for path in folder.iterdir() if path.name not in NO_ROOMS}
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \| [^|]+ \| `?(\w+)", section(PAGE, "Data flow"), re.MULTILINE)

    assert {stage for stage, _ in rows} == there
    assert {record for _, record in rows if record != "report"} <= set(deploy_kit.__all__)


@pytest.mark.parametrize("name", ["architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_is_named_exists(name: str) -> None:
    text = PAGE if name == "architecture.md" else GUIDE

    assert [path for path in sorted(files_named(text)) if not exists(path)] == []


def test_a_file_that_does_not_exist_would_be_noticed() -> None:
    assert files_named("see `int8/useful.py`, `measure/` and `a word`") == {"int8/useful.py", "measure/"}
    assert not exists("int8/useful.py")
    assert exists("measure/") and exists("int8/plan.py")


def test_every_group_of_entry_points_is_listed() -> None:
    groups = {catalogue_of(path).group for path in PACKAGE.rglob("__init__.py") if "CATALOGUE: " in path.read_text()}
    listed = set(re.findall(r"`(deploy_kit\.\w+)`", section(PAGE, "Where a new thing goes")))

    assert groups - {"deploy_kit.cli"} == listed


def catalogue_of(path: Path) -> Catalogue[object]:
    """Return a catalogue like that of a package, which is not imported."""
    return Catalogue(".".join(path.parent.relative_to(ROOT).parts), "", "")
