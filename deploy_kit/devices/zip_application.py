"""``deploykit.pyz``: the part of this package that a device needs, as one zip application. Same files, same bytes.

It contains the agent, the worker, and every module that these import when they are loaded. Of a catalogue the whole
folder is included, since its entries are looked up by file name; of any other package only the imported modules are.
What a function imports when it is called stays on the host, which is how a stage is kept off the device.
"""

import ast
import functools
import io
import zipfile
from pathlib import Path

_ROOTS = ("deploy_kit.programs.agent", "deploy_kit.programs.worker")
_MAIN = "from deploy_kit.programs.agent import main\n\nmain()\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold


@functools.cache
def zip_bytes() -> bytes:
    """Return the zip application.

    Files are sorted and have a fixed time and mode: its hash must depend on its content alone, because a device keeps
    the program under that hash.
    """
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in sorted({**_files(), "__main__.py": _MAIN.encode()}.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return written.getvalue()


def _files() -> dict[str, bytes]:
    package = Path(__file__).parents[1]
    paths, queue = {package / "__init__.py"}, [_path_of(package, name) for name in _ROOTS]
    while queue:
        path = queue.pop()
        if path is None or path in paths:
            continue
        paths.add(path)
        queue.append(path.parent / "__init__.py" if path.name != "__init__.py" else path.parent.parent / "__init__.py")
        tree = ast.parse(path.read_bytes())
        if _is_catalogue(tree):
            queue += path.parent.rglob("*.py")
        queue += [_path_of(package, name) for name in _imported(tree)]
    return {str(path.relative_to(package.parent)): path.read_bytes() for path in paths}


def _path_of(package: Path, name: str) -> Path | None:
    """Return the file of a module of this package; None where there is none."""
    stem = package.joinpath(*name.split(".")[1:])
    if stem == package:
        return None
    folder, file = stem / "__init__.py", stem.with_suffix(".py")
    return folder if folder.is_file() else file if file.is_file() else None


def _is_catalogue(tree: ast.Module) -> bool:
    """Return whether a package's ``__init__`` declares a catalogue, whose entries are imported by file name."""
    targets = (node.target for node in tree.body if isinstance(node, ast.AnnAssign))
    return any(isinstance(target, ast.Name) and target.id == "CATALOGUE" for target in targets)


def _imported(tree: ast.Module) -> set[str]:
    """List the modules of this package that a file imports when it is loaded, by full name."""
    names = set[str]()
    for node in tree.body:  # not the whole tree: an import within a function is not executed on loading
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "deploy_kit":
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.split(".")[0] == "deploy_kit"}
    return names
