"""Content-addressed results: written aside, verified, then renamed into place. A failure is never kept.

.deploykit/
├── journal.jsonl                       one line a result made or used again, newest last
└── quantize/int8-3f9a0c21b7de/         stage / name - first 12 hex digits of the key
      record.json  model.onnx
      rejected.json                     only after a check that did not accept it

A record carries its own hash, and the hashes of the files it speaks of: whoever reads a record has both compared, so
that neither a changed digit nor a flipped bit passes for a result. Records of deploykit 0.1 have no hash of their own.
"""

import collections
import contextlib
import copy
import dataclasses
import glob
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from deploy_kit.base.errors import RecipeError, RequestError, StoreError
from deploy_kit.base.live_folder import live_folder, sweep
from deploy_kit.base.text_files import verify_utf8
from deploy_kit.base.whole_files import digest_of, full_or, parts_of, write_together, write_whole
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, Origin
from deploy_kit.records.passports import PASSPORT, RECORD, changed_since, passport_of, sealed, unsealed
from deploy_kit.records.verdict import Verdict

R = TypeVar("R")
_NEW = ".new-"
_CREATED: list[Path] = []
_ENDINGS = frozenset({".onnx", ".xml", ".param", ".pte", ".bin", ".plan", ".engine", ".blob"})
_LATEST = 253_402_300_800  # the year 10000, in seconds since 1970: no calendar has later days


@dataclass(frozen=True, kw_only=True)
class Key:
    """Everything that decides a result.

    Attributes:
        stage: Name of the stage.
        name: Readable part of the folder's name; it decides nothing.
        inputs: sha256 of each input.
        options: Table of the recipe, and whatever else was asked for.
        versions: (what, version) of the stage and of the libraries it uses.
    """

    stage: str
    name: str
    inputs: tuple[str, ...]
    options: Any
    versions: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Hash what decides the result: the name does not."""
        parts = {"stage": self.stage, "inputs": self.inputs, "options": self.options, "versions": self.versions}
        return hashlib.sha256(codec.canonical_json(parts).encode(errors="backslashreplace")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """One line of the journal.

    Attributes:
        stage: Name of the stage.
        folder: Folder of the result, relative to the store.
        recipe: The recipe in force.
        when: Seconds since 1970 at which it was made or used; not compared.
    """

    stage: str
    folder: str
    recipe: Mapping[str, Any]
    when: float = field(default=0.0, compare=False)

    @property
    def checkpoint(self) -> str:
        """Checkpoint of the recipe; empty where it names none."""
        source = self.recipe.get("source", {})
        return str(source.get("checkpoint", "")) if isinstance(source, dict) else ""


@dataclass(frozen=True, kw_only=True)
class KeptResult:
    """One result of a store.

    Attributes:
        stage: Name of the stage that made it.
        folder: Its folder, relative to the store.
        size_bytes: Size of its files.
        used: Seconds since 1970 at which it was made or used last; 0 where the journal does not know it.
        checkpoint: Checkpoint of the recipe that it was used under last; empty where none is known.
    """

    stage: str
    folder: str
    size_bytes: int
    used: float
    checkpoint: str


def _with_ending(out: Path, ending: str) -> Path:
    """Give a path the ending of an engine's main file, in place of another file's ending."""
    return out.with_suffix(ending) if out.suffix in _ENDINGS else out.with_name(out.name + ending)


def _size_of(folder: Path) -> int:
    """Add up the sizes of the files under a folder, as far as they are still there, in bytes."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(os.path.join(place, name)).st_size  # noqa: PTH116, PTH118
    return size


def remove_empty() -> None:
    """Remove the stores that this process created and that hold nothing: a command that failed leaves no folder."""
    while _CREATED:
        with contextlib.suppress(OSError):  # something is in it
            _CREATED.pop().rmdir()


class Store:
    """The results in one folder."""

    def __init__(self, root: str | os.PathLike[str], recipe: Mapping[str, Any] | None = None) -> None:
        """Open or create the store at `root`; `recipe` is noted in the journal beside each result."""
        self.root = root = Path(root)
        self.recipe = dict(recipe or {})
        verify_utf8(root, "choose another --store")
        try:
            if not root.is_dir():
                root.mkdir(parents=True)
                _CREATED.append(root)
        except OSError as error:
            raise full_or(error, root) from error
        self._digests: dict[tuple[tuple[str, int, int], ...], str] = {}
        self._making = collections.defaultdict[Path, threading.RLock](threading.RLock)
        with contextlib.suppress(OSError):  # a store that cannot be written can still be read
            sweep(root, _NEW)

    def under(self, recipe: Mapping[str, Any]) -> "Store":
        """Return the same store with another recipe in force, for a thread of its own."""
        other = copy.copy(self)
        other.recipe = dict(recipe)
        return other

    def path(self, artifact: Artifact) -> Path:
        """Return the artifact's file, once its content is known to be what the passport says."""
        path = self.root / artifact.path
        if not path.is_file() or self._digest_of(path) != artifact.sha256:
            raise changed_since(path)
        return path

    def files_of(self, artifact: Artifact) -> list[Path]:
        """Return the files that a target needs of an artifact, as `path` does: the main file, then those beside it."""
        main = self.path(artifact)
        return [main, *(part for part in parts_of(main) if part != main and not part.name.endswith(PASSPORT))]

    def copy_out(self, artifact: Artifact, out: Path, origin: Origin | None = None) -> Path:
        """Copy an artifact and its passport out of the store: whole, or not at all.

        Args:
            artifact: A result of this store.
            out: File to write; the passport is written beside it. See `verify_out`.
            origin: What the passport says of checkpoint and verdict besides.

        Returns:
            The main file: `out`, with the ending of the artifact's own where it consists of several files.

        Raises:
            StoreError: The artifact changed since it was made, or the copy cannot be written.
            RequestError: The artifact was not accepted by its last check.
        """
        mark = self._mark_of(artifact)
        if mark.is_file():
            raise RequestError(
                f"{artifact.path}: {_word_in(mark)} by its last check, not copied", hint="deploykit check"
            )
        parts = self.files_of(artifact)
        source = parts[0]
        main = _with_ending(out, source.suffix) if len(parts) > 1 else out
        copies: dict[Path, str | bytes | Path] = {main.with_suffix(part.suffix): part for part in parts}
        record = (source.parent / RECORD).read_text(encoding="utf-8")
        if origin is not None:
            record = sealed(dataclasses.replace(artifact, origin=origin))
        write_together(copies | {passport_of(main): record})
        return main

    def _digest_of(self, path: Path) -> str:
        """Hash an artifact, or know its hash from before where none of its files changed in size or time since."""
        stats = tuple((str(part), (stat := part.stat()).st_size, stat.st_mtime_ns) for part in parts_of(path))
        if stats not in self._digests:
            self._digests[stats] = digest_of(path)
        return self._digests[stats]

    def produce(self, cls: type[R], key: Key, make: Callable[[Path, str], R], *, again: bool = False) -> tuple[R, bool]:
        """Return the result kept under `key`, or make and keep it; threads that ask for the same wait for the first.

        Args:
            cls: The result's record class.
            key: What decides the result.
            make: (folder to write files into, that folder's later path within the store) → record.
            again: Make it even if it is there; the new result takes the old one's place.

        Returns:
            The record, and whether it was there already.
        """
        home = self._home(key)
        with self._making[home]:
            kept = None if again else self._load(cls, home)
            if kept is not None:
                with contextlib.suppress(StoreError):  # a store that cannot be written can still be read
                    self._log(key.stage, home)
                return kept, True
            try:
                with self.aside() as aside:
                    record = make(aside, str(home.relative_to(self.root)))
                    write_whole(aside / RECORD, sealed(record))
                    home.parent.mkdir(exist_ok=True)
                    shutil.rmtree(home, ignore_errors=True)
                    aside.rename(home)
            except OSError as error:
                raise full_or(error, home) from error
            self._log(key.stage, home)
            return record, False

    def aside(self) -> contextlib.AbstractContextManager[Path]:
        """Make a folder for the moment, which every machine that shares the store sees."""
        return live_folder(self.root, _NEW)

    def kept(self, cls: type[R], key: Key) -> R | None:
        """Return the result kept under `key`; None where there is none."""
        return self._load(cls, self._home(key))

    def folder(self, key: Key) -> Path:
        """Return the folder of the files kept under `key`, whether it is there or not."""
        return self._home(key)

    def forget(self, key: Key) -> None:
        """Remove what is kept under `key`, if anything."""
        shutil.rmtree(self._home(key), ignore_errors=True)

    def entries(self) -> Iterator[JournalEntry]:
        """Read the journal, newest first; lines whose result is gone are passed over."""
        journal = self.root / "journal.jsonl"
        lines = journal.read_bytes().splitlines() if journal.is_file() else []
        for line in reversed(lines):
            entry = _entry_of(line)
            # pathlib's raises for a name that is too long for any file
            if entry is not None and os.path.isfile(self.root / entry.folder / RECORD):  # noqa: PTH113
                yield entry

    def results(self) -> list[KeptResult]:
        """List all results, by stage and name, while other processes may make and remove some."""
        newest = dict[str, JournalEntry]()
        for entry in self.entries():
            newest.setdefault(entry.folder, entry)
        found = []
        # pathlib's raises for a folder that goes while it looks
        for path in sorted(map(Path, glob.glob("[!.]*/*/", root_dir=self.root))):  # noqa: PTH207
            folder, last = str(path), newest.get(str(path))
            found.append(
                KeptResult(
                    stage=path.parent.name,
                    folder=folder,
                    size_bytes=_size_of(self.root / path),
                    used=last.when if last else 0.0,
                    checkpoint=last.checkpoint if last else "",
                )
            )
        return found

    def remove(self, result: KeptResult) -> None:
        """Remove a result; it is made again when it is needed.

        Raises:
            StoreError: It cannot be removed.
        """
        try:
            shutil.rmtree(self.root / result.folder)
        except FileNotFoundError:
            return  # somebody else did
        except OSError as error:
            raise full_or(error, self.root / result.folder) from error

    def in_force(self, checkpoint: str | None = None) -> JournalEntry | None:
        """Return the newest entry that has a recipe (what a worker keeps has none); None where there is none.

        Args:
            checkpoint: The recipe's checkpoint; None for any.
        """
        entries = (entry for entry in self.entries() if entry.recipe)
        return next((entry for entry in entries if checkpoint in (None, entry.checkpoint)), None)

    def stand_by(self, entry: JournalEntry) -> None:
        """Put a recipe in force again, whatever was made under another since."""
        if self.in_force() != entry:
            self.recipe = dict(entry.recipe)
            self._log(entry.stage, self.root / entry.folder)

    def newest(
        self, cls: type[R], *stages: str, where: Callable[[R], bool] = lambda _: True
    ) -> tuple[R, JournalEntry] | None:
        """Find the newest result of these stages that fits, and its line of the journal."""
        for entry in self.entries():
            if entry.stage in stages:
                record = self._load(cls, self.root / entry.folder, whole=True)
                if record is not None and where(record):
                    return record, entry
        return None

    def all(self, cls: type[R], *stages: str) -> list[R]:
        """List all results of these stages once each, newest first."""
        folders = dict.fromkeys(entry.folder for entry in self.entries() if entry.stage in stages)
        records = (self._load(cls, self.root / folder, whole=True) for folder in folders)
        return [record for record in records if record is not None]

    def reject(self, artifact: Artifact, verdict: Verdict) -> None:
        """Mark an artifact as not deployable: rejected, or undecided."""
        mark, text = (
            self._mark_of(artifact),
            json.dumps({"word": verdict.word, "reasons": verdict.reasons}, ensure_ascii=False),
        )
        if not mark.is_file() or mark.read_text(encoding="utf-8", errors="replace") != text:
            write_whole(mark, text)

    def accept(self, artifact: Artifact) -> None:
        """Take a mark away, after a check that accepted it."""
        mark = self._mark_of(artifact)
        if mark.is_file():  # where nothing can be written, to remove what is not there is refused, too
            _removed(mark)

    def rejected(self, artifact: Artifact) -> bool:
        """Return whether the last check marked the artifact."""
        return self._mark_of(artifact).is_file()

    def _mark_of(self, artifact: Artifact) -> Path:
        return (self.root / artifact.path).parent / "rejected.json"

    def _home(self, key: Key) -> Path:
        return self.root / key.stage / f"{key.name}-{key.digest[:12]}"

    def _load(self, cls: type[R], home: Path, *, whole: bool = False) -> R | None:
        """Read a record once it and its files are what they were when it was kept.

        Args:
            cls: Its class.
            home: Its folder.
            whole: Whether to refuse one that is cut off: who only reads would leave it out without a word.

        Raises:
            StoreError: The record was changed, or a file of it.
        """
        path = home / RECORD
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            return None  # absent: made again
        except (ValueError, RecursionError) as error:
            if whole:
                raise changed_since(path) from error
            return None  # cut off: made again
        try:
            record = codec.from_json(cls, unsealed(data, path))
        except (RecipeError, RecursionError):
            return None  # written by another version: made again
        for file, digest in _files_of(record):
            if not (self.root / file).is_file():
                return None  # its files were deleted: made again
            if self._digest_of(self.root / file) != digest:
                raise changed_since(self.root / file)
        return record

    def _log(self, stage: str, home: Path) -> None:
        line = {"stage": stage, "folder": str(home.relative_to(self.root)), "when": time.time(), "recipe": self.recipe}
        try:
            with (self.root / "journal.jsonl").open("a", encoding="utf-8") as file:
                file.write("\n" * self._cut_off() + json.dumps(line) + "\n")
        except OSError as error:
            raise full_or(error, self.root) from error

    def _cut_off(self) -> bool:
        """Return whether a full disk has cut the journal's last line off."""
        journal = self.root / "journal.jsonl"
        with journal.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def _word_in(mark: Path) -> str:
    """Read the verdict that a mark was set for; marks of earlier versions say only why."""
    try:
        return str(json.loads(mark.read_text(encoding="utf-8")).get("word", "rejected"))
    except (OSError, ValueError, AttributeError):
        return "rejected"


def _entry_of(line: bytes) -> JournalEntry | None:
    """Read one line of the journal; None where it says nothing: cut off by a full disk, or edited by hand."""
    try:
        data = json.loads(line)
        stage, folder, recipe, when = data["stage"], data["folder"], data["recipe"], data.get("when", 0.0)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    parts = Path(folder).parts if isinstance(folder, str) else ()
    inside = len(parts) == 2 and ".." not in parts and not Path(folder).is_absolute() and "\0" not in folder
    if not isinstance(stage, str) or not isinstance(recipe, dict) or not inside:
        return None
    used = float(when) if isinstance(when, (int, float)) and 0 <= when < _LATEST else 0.0
    return JournalEntry(stage=stage, folder=folder, recipe=recipe, when=used)


def _removed(file: Path) -> None:
    """Remove a file of the store.

    Raises:
        StoreError: It cannot be removed.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise full_or(error, file) from error


def _files_of(record: Any) -> Iterator[tuple[str, str]]:
    """List (path within the store, sha256) of each file that a record of the store speaks of."""
    if not dataclasses.is_dataclass(record):
        return
    path, digest = getattr(record, "path", None), getattr(record, "sha256", None)
    if isinstance(path, str) and isinstance(digest, str):
        yield path, digest
    for name in ("onnx",):  # an export and a simplification hold the passport of their graph
        yield from _files_of(getattr(record, name, None))
