"""The user's own folders, by the XDG base directory specification; a user without a home has none."""

import os
from pathlib import Path


def config_folder() -> Path | None:
    """Return ``$XDG_CONFIG_HOME/deploykit``, by default below ``~/.config``; None where no home is known."""
    return _below("XDG_CONFIG_HOME", ".config")


def cache_folder() -> Path | None:
    """Return ``$XDG_CACHE_HOME/deploykit``, by default below ``~/.cache``; None where no home is known."""
    return _below("XDG_CACHE_HOME", ".cache")


def _below(variable: str, default: str) -> Path | None:
    stated = os.environ.get(variable, "")
    if Path(stated).is_absolute():  # the specification: a relative path is invalid and ignored
        return Path(stated) / "deploykit"
    try:
        return Path.home() / default / "deploykit"
    except RuntimeError:  # no HOME, and a user that no password file names, as in a container with --user
        return None
