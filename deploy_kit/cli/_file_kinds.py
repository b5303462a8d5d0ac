"""What a file is that a command does not take, and which command takes it: in place of a parser's complaint."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from deploy_kit.base import text_files
from deploy_kit.base.errors import InputError, RequestError
from deploy_kit.base.plain_text import shell_word
from deploy_kit.delivery import contents
from deploy_kit.delivery import manifest as manifests
from deploy_kit.graph import onnx_bounds
from deploy_kit.images import files
from deploy_kit.records.passports import PASSPORT
from deploy_kit.stages import adopt


class _Kind(NamedTuple):
    """A kind of file: what it is called, the commands that take it, and one of them as a line; empty if none does."""

    name: str
    taken_by: tuple[str, ...]
    line: str


_MEASURED = ("an ONNX file", "an engine", "a bundle")


@contextlib.contextmanager
def named(path: Path, command: str, expected: str, *, rather: str = "") -> Iterator[None]:
    """Say what a file is where a command refuses it that another one takes.

    Args:
        path: The file.
        command: The command that reads it in this block.
        expected: What that command takes.
        rather: What else to do, which the fix says behind the command that takes the file.

    Raises:
        InputError: It is of a kind that the command does not take.
    """
    try:
        yield
    except (RequestError, ImportError) as error:  # readers of checkpoints need torch
        hint = error.hint if isinstance(error, RequestError) else ""
        kind = _kind(path) if path.is_file() else None
        if kind is None or command in kind.taken_by:
            raise
        raise InputError(
            f"{path}: expected {expected}, found {kind.name}", hint=(kind.line or hint) + rather
        ) from error


def are_engines(paths: Iterable[Path]) -> bool:
    """Return whether `bench` measures all of these files: engines, ONNX files and bundles."""
    kinds = [_kind(path) if path.is_file() else None for path in paths]
    return all(kind is not None and kind.name in _MEASURED for kind in kinds)


def _kind(path: Path) -> _Kind | None:
    word = shell_word(path)
    with path.open("rb") as file:
        head = file.read(16)
    if onnx_bounds.is_onnx(path):
        return _Kind("an ONNX file", ("lint", "inspect"), f"deploykit inspect {word}")
    if path.suffix.lower() in adopt.ENGINES_ONLY:
        return _Kind("an engine", ("inspect",), f"deploykit inspect {word}")
    if contents.is_bundle(path):
        return _Kind("a bundle", ("inspect",), f"deploykit inspect {word}")
    if head.startswith(b"PK\x03\x04"):
        return _archive(contents.zip_names(path), word)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _yaml(path, word)
    if head.lstrip()[:1] == b"{":
        return _json(path, word)
    if (head[8:9] == b"{" and 0 in head[:8]) or head.startswith((b"\x89HDF", b"\x80")):
        return _Kind("a checkpoint", ("inspect",), f"deploykit export {word}")
    if _is_image(path):
        return _Kind("an image", (), f"deploykit check ENGINE --images {shell_word(path.parent)}")
    return None


def _archive(names: frozenset[str], word: str) -> _Kind:
    endings = {Path(name).suffix.lower() for name in names if not name.endswith("/")}
    if endings and endings <= files.SUFFIXES:
        return _Kind("a zip archive of images", (), "unpack it: deploykit check ENGINE --images FOLDER")
    if endings == {".npy"}:
        return _Kind("an npz file of arrays", (), f"deploykit check ENGINE --images {word}")
    return _Kind("a zip archive, as checkpoints are", ("inspect",), f"deploykit inspect {word}")


def _yaml(path: Path, word: str) -> _Kind | None:
    with contextlib.suppress(RequestError):
        data = text_files.read_yaml(path)
        if isinstance(data, dict) and "source" in data:
            return _Kind("a recipe", (), f"deploykit run {word}")
        if isinstance(data, dict) and {"engines", "variants"} <= data.keys():
            return _Kind("a sweep", (), f"deploykit sweep {word}")
    return None


def _json(path: Path, word: str) -> _Kind | None:
    try:
        keys = dict(text_files.read_json(path)).keys()
    except RequestError:
        return None
    if {"checkpoint", "rows"} <= keys:
        return _Kind("a report", ("compare", "report"), f"deploykit report {word}")
    if "measurements" in keys:
        return _Kind("the record of a bench", ("compare",), f"deploykit compare {word} OTHER.json")
    if "schema_version" in keys:
        folder = shell_word(path.parent)
        return _Kind("the manifest of a bundle", (), f"deploykit inspect {folder}" * (path.name == manifests.FILE))
    if {"kind", "sha256"} <= keys:
        main = shell_word(path.with_name(path.name.removesuffix(PASSPORT)))
        return _Kind("a passport", ("inspect",), f"deploykit inspect {main}")
    if "sqnr_db" in keys:
        return _Kind("the record of a check", (), "")
    return None


def _is_image(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path, formats=files.FORMATS):
            return True
    except (OSError, ValueError, Image.DecompressionBombError):
        return False
