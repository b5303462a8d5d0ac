"""Where the files that ship with the package lie: recipes, image sets, the demo checkpoint.

In a wheel they lie in ``deploy_kit/shipped``; in a checkout in the folders beside the package.
"""

from pathlib import Path

from deploy_kit.base.errors import UnknownNameError, nearest

PREFIX = "bundled:"
_PACKAGE = Path(__file__).parents[1]
_SUFFIXES = {"recipes": ".yaml", "calibration": ".npz", "models": ".safetensors"}


def bundled_folder(kind: str) -> Path:
    """Give the folder of one kind: ``recipes``, ``calibration`` or ``models``."""
    shipped = _PACKAGE / "shipped" / kind
    return shipped if shipped.is_dir() else _PACKAGE.parent / kind


def bundled_names(kind: str) -> tuple[str, ...]:
    """List the names of one kind, e.g. ``('demo', …)`` for ``recipes``; an ``.example`` is to be copied, not named."""
    stems = (path.stem for path in bundled_folder(kind).glob("*" + _SUFFIXES[kind]))
    return tuple(sorted(stem for stem in stems if not stem.endswith(".example")))


def find_bundled(kind: str, name: str) -> Path:
    """Give the path of one bundled file.

    Args:
        kind: ``recipes``, ``calibration`` or ``models``.
        name: Without its suffix, e.g. ``demo``.

    Raises:
        UnknownNameError: No such file ships; the hint names the nearest.
    """
    path = bundled_folder(kind) / (name + _SUFFIXES[kind])
    if not path.is_file():
        raise UnknownNameError(f"no file '{name}' is bundled under '{kind}'", hint=nearest(name, bundled_names(kind)))
    return path


def resolve_bundled(kind: str, source: str) -> Path:
    """Turn ``bundled:NAME`` into its path, and any other text into a path as it stands."""
    if source.startswith(PREFIX):
        return find_bundled(kind, source.removeprefix(PREFIX))
    return Path(source)
