"""What ``import deploy_kit`` exposes: complete, importable, typed, and light."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import deploy_kit
from deploy_kit import api
from deploy_kit.base import errors

HEAVY = {"torch", "onnx", "onnx_ir", "onnxruntime", "openvino", "pydantic", "numpy", "rich", "yaml", "PIL", "typer"}
PACKAGE = Path(deploy_kit.__file__).parent


def typed_imports() -> set[str]:
    """Return the names that type checkers find: those imported under ``TYPE_CHECKING``."""
    tree = ast.parse(Path(deploy_kit.__file__).read_text(encoding="utf-8"))
    blocks = (node for node in tree.body if isinstance(node, ast.If))
    imports = (node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom))
    return {alias.name for node in imports for alias in node.names}


def test_the_list_is_sorted_and_says_nothing_twice() -> None:
    assert deploy_kit.__all__ == sorted(set(deploy_kit.__all__))


@pytest.mark.parametrize("name", deploy_kit.__all__)
def test_each_name_can_be_imported(name: str) -> None:
    assert getattr(deploy_kit, name) is not None


def test_type_checkers_find_the_same_names() -> None:
    assert {*typed_imports(), "__version__"} == set(deploy_kit.__all__)


def test_each_name_comes_from_where_type_checkers_find_it() -> None:
    assert set(deploy_kit._HOMES) == typed_imports()


def test_no_name_hides_a_package() -> None:
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}

    assert modules & set(deploy_kit.__all__) == set()


def test_every_error_class_is_there() -> None:
    classes = {name for name, entry in vars(errors).items() if inspect.isclass(entry) and name.endswith("Error")}

    assert classes <= set(deploy_kit.__all__)


def test_every_function_of_the_api_is_there() -> None:
    assert set(api.__all__) <= set(deploy_kit.__all__)


def test_what_records_of_the_results_are_made_of_is_there() -> None:
    results = (deploy_kit.Exported, deploy_kit.Simplified, deploy_kit.Bench, deploy_kit.ParityReport, deploy_kit.Report)

    assert {result.__name__ for result in results} <= set(deploy_kit.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'deploy_kit' has no attribute 'quantise'"):
        deploy_kit.quantise  # noqa: B018


def test_completion_shows_every_name() -> None:
    assert set(deploy_kit.__all__) <= set(dir(deploy_kit))


def test_the_import_loads_nothing_heavy() -> None:
    probe = "import sys, deploy_kit; dir(deploy_kit); print(*sys.modules)"

    names = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()

    assert HEAVY & {name.partition(".")[0] for name in names} == set()


@pytest.mark.slow
def test_a_name_loads_what_it_needs() -> None:
    """The probe above can fail."""
    probe = "import sys, deploy_kit; deploy_kit.load_recipe; print(*sys.modules)"

    names = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()

    assert "pydantic" in {name.partition(".")[0] for name in names}


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_version_has_one_source() -> None:
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")

    assert 'dynamic = ["version"]' in text
    assert '[tool.hatch.version]\npath = "deploy_kit/__init__.py"' in text


def test_the_newest_release_of_the_changelog_is_this_version() -> None:
    lines = (PACKAGE.parent / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    releases = [line for line in lines if line.startswith("## [")]

    assert releases[0] == "## [Unreleased]"
    assert releases[1].startswith(f"## [{deploy_kit.__version__}]")
