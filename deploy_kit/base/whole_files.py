"""Files written whole or not at all, and their hashes."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy_kit.base.errors import InputError, StoreError, no_such_file
from deploy_kit.base.live_folder import live_file
from deploy_kit.base.plain_text import shell_word

_FULL = (errno.ENOSPC, errno.EDQUOT)


def sha256_of(path: Path) -> str:
    """Hash a file in pieces.

    Raises:
        InputError: The file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """Hash an artifact: its file, or where it consists of several files of one stem (xml and bin), all of them.

    Returns:
        The file's own sha256 where there is one; else the sha256 of the lines ``name sha256``, sorted.
    """
    parts = parts_of(path)
    if len(parts) == 1:
        return sha256_of(path)
    lines = "".join(f"{part.name} {sha256_of(part)}\n" for part in parts)
    return hashlib.sha256(lines.encode()).hexdigest()


def parts_of(path: Path) -> list[Path]:
    """List the files that belong to an artifact: those beside it with the same stem."""
    stem = path.name.split(".")[0]
    beside = (part for part in path.parent.iterdir() if part.name.split(".")[0] == stem and part.is_file())
    return sorted({path, *beside})


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it."""
    write_together({path: content})


def write_together(files: Mapping[Path, str | bytes | Path]) -> None:
    """Write files that belong together: none takes its place before all of them are whole; a path is copied.

    Raises:
        StoreError: One cannot be written; all that were there before are there as they were.
    """
    with contextlib.ExitStack() as stack:
        for path, content in files.items():
            aside = stack.enter_context(_put_in_place(path))
            if isinstance(content, Path):
                shutil.copyfile(content, aside)
                continue
            # A name of a file may hold bytes that are no UTF-8; JSON reads the backslashes as the same character.
            data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())


def verify_place(file: Path, rather: str) -> None:
    """Refuse a file that cannot be written, before any work.

    Raises:
        InputError: A folder, for which `rather` says what to write, or a file in a folder that does not exist.
    """
    if file.is_dir():
        raise InputError(f"{file}: expected a file to write, found a folder", hint=rather)
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: no such folder", hint=f"mkdir -p {shell_word(file.parent)}")


@contextlib.contextmanager
def _put_in_place(path: Path) -> Iterator[Path]:
    """Return a path to write beside `path`; rename it to `path` once it is whole, or remove it.

    Raises:
        StoreError: No space, no permission, or a file where a folder should be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with live_file(path) as aside:
            yield aside
    except OSError as error:
        raise full_or(error, path) from error


def full_or(error: OSError, path: Path) -> StoreError:
    named, root = error.filename, [*path.absolute().parents][:2][-1]
    if isinstance(named, str | os.PathLike) and not Path(named).absolute().is_relative_to(root):
        # A temporary file, or an image set that was moved while a stage read it: the store has nothing to do with it.
        if isinstance(error, FileNotFoundError):
            hint = "run it again with its files in place"
            return StoreError(f"{named}: no such file, while '{path}' was made", hint=hint)
        path = Path(named)
    if error.errno in _FULL:
        return StoreError(f"{path}: no space left on the disk", hint="free some space; nothing earlier was lost")
    if error.errno == errno.EFBIG or "requested and" in str(error):  # numpy wrote a part, and does not say why no more
        why = error.strerror or str(error)
        return StoreError(f"{path}: not written whole: {why}", hint="see what is limited or full: ulimit -f; df -h")
    return StoreError(
        f"{path}: cannot be written: {error.strerror or error}", hint="choose another folder (--store, --out)"
    )
