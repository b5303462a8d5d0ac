"""Reading of small files of /sys and /proc, and the reason where one cannot be read."""

import stat
from pathlib import Path


def read_text(path: Path) -> str:
    """Return a file's text; empty where it is absent or its driver refuses, as for a sensor that is powered down."""
    try:
        return path.read_text(errors="replace").strip("\n\0 ")
    except OSError:
        return ""


def read_number(path: Path) -> float | None:
    """Return a file's number; None where there is none."""
    try:
        return float(read_text(path))
    except ValueError:
        return None


def why_unreadable(path: Path) -> str:
    """Return why a file cannot be read; empty if it can."""
    try:
        path.read_bytes()
    except PermissionError:
        return f"{path}: mode {stat.S_IMODE(path.stat().st_mode):04o}, not for this user"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""
