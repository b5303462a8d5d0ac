"""Names in the package: a module hides none of the standard library, and a class name stands for one thing."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import deploy_kit

PACKAGE = Path(deploy_kit.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def hiding(modules: list[Path]) -> list[str]:
    """List the modules and packages that have the name of a standard module.

    A program that is started by its path finds its own folder first: `python deploy_kit/programs/worker.py` would then
    import them instead of the standard ones. A name that ends in an underscore hides nothing.
    """
    names = {path: path.parent.name if path.stem == "__init__" else path.stem for path in modules}
    return [str(path) for path, name in names.items() if name in sys.stdlib_module_names and name != "__main__"]


def shared(sources: dict[str, str]) -> dict[str, list[str]]:
    """List the class names that stand for several things: name → where. Protocols that are the same are one thing.

    Args:
        sources: Text of each module.
    """
    places: dict[str, dict[str, str]] = defaultdict(dict)
    for module, text in sources.items():
        for number, node in enumerate(classes(ast.parse(text))):
            meaning = ast.dump(node) if is_protocol(node) else f"{module} {number}"
            places[node.name].setdefault(meaning, module)
    return {name: sorted(meanings.values()) for name, meanings in places.items() if len(meanings) > 1}


def classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def is_protocol(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).partition("[")[0] in ("Protocol", "typing.Protocol") for base in node.bases)


def test_no_module_has_the_name_of_a_standard_module() -> None:
    assert hiding(MODULES) == []


def test_a_module_that_hides_a_standard_one_is_noticed() -> None:
    paths = ["a/inspect.py", "statistics/__init__.py", "select_.py", "a/units.py", "a/__main__.py"]

    assert hiding([Path(path) for path in paths]) == paths[:2]


def test_a_class_name_stands_for_one_thing() -> None:
    assert shared({str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in MODULES}) == {}


def test_two_classes_of_one_name_are_noticed_unless_they_are_one_protocol() -> None:
    protocol = "class Sink(Protocol):\n    def write(self, text: str) -> int: ...\n"
    other = protocol.replace("int", "None")

    assert shared({"a": f"class Plan: ...\n{protocol}", "b": f"def f():\n    class Plan: ...\n{protocol}"}) == {
        "Plan": ["a", "b"]
    }
    assert shared({"a": protocol, "b": other}) == {"Sink": ["a", "b"]}
