"""Files that ship with the package: recipes, image sets, the demo checkpoint.

In a wheel they are in ``deploy_kit/shipped``, in a checkout in the folders beside the package.
"""

from pathlib import Path

from deploy_kit.base.errors import UnknownNameError, nearest

PREFIX = "bundled:"
_PACKAGE = Path(__file__).parents[1]
_SUFFIXES = {"recipes": ".yaml", "calibration": ".npz", "models": ".safetensors"}


def bundled_folder(kind: str) -> Path:
    """Return the folder of one kind of files: ``recipes``, ``calibration`` or ``models``."""
    shipped = _PACKAGE / "shipped" / kind
    return shipped if shipped.is_dir() else _PACKAGE.parent / kind


def bundled_names(kind: str) -> tuple[str, ...]:
    """List the names of one kind, e.g. ``('demo', …)`` for ``recipes``; templates (``.example``) are left out."""
    stems = (path.stem for path in bundled_folder(kind).glob("*" + _SUFFIXES[kind]))
    return tuple(sorted(stem for stem in stems if not stem.endswith(".example")))


def find_bundled(kind: str, name: str) -> Path:
    """Return the path of one bundled file.

    Args:
        kind: Kind of the file: ``recipes``, ``calibration`` or ``models``.
        name: Name of the file without its suffix, e.g. ``demo``.

    Raises:
        UnknownNameError: No such file is bundled; the hint names the nearest.
    """
    path = bundled_folder(kind) / (name + _SUFFIXES[kind])
    if not path.is_file():
        raise UnknownNameError(f"no file '{name}' is bundled under '{kind}'", hint=nearest(name, bundled_names(kind)))
    return path


def resolve_bundled(kind: str, source: str) -> Path:
    """Return the path of ``bundled:NAME``; any other text is taken as a path."""
    if source.startswith(PREFIX):
        return find_bundled(kind, source.removeprefix(PREFIX))
    return Path(source)
