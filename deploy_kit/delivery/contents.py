"""A bundle that somebody gave us → its files and its manifest. Nothing in it is executed, and all of it is bounded.

A folder is read where it lies, without following a link; a zip is unpacked into a folder of the moment, each member as
long as the manifest says.
"""

import contextlib
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploy_kit.base.errors import InputError, no_such_file
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.base.text_files import verify_utf8
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.delivery import manifest as manifests
from deploy_kit.delivery.manifest import Manifest
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, Origin

MAX_FILES = 1000
MAX_BYTES = 16 << 30
_MAX_DEPTH = 5
_MAX_COUNTED = 100_000  # files of a foreign folder
# Weights shrink to a half; deflate's utmost, about 1,000 to 1, is what a file made to be large has.
_MOST_RATIO, _SMALL = 100, 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NOT_A_BUNDLE = "give a folder or zip that `deploykit pack` wrote"
_UNLISTED = frozenset({manifests.FILE, manifests.SIGNATURE})


@dataclass(frozen=True, kw_only=True)
class BundleContents:
    """A bundle whose files can be read.

    Attributes:
        path: Where it was given: a folder or a zip.
        folder: Folder with its files.
        manifest: What it says of itself.
        faults: Files that are missing, not what the manifest says, or not of the bundle, one sentence each.
    """

    path: Path
    folder: Path
    manifest: Manifest
    faults: tuple[str, ...]

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.folder / name

    @property
    def engine_file(self) -> Path:
        """Path of the engine's main file."""
        return self.file(self.manifest.engine.file)

    @property
    def passport(self) -> Artifact:
        """What the manifest says of the engine, as the passport of a delivered file says it."""
        manifest = self.manifest
        engine, calibrated = manifest.engine, manifest.calibration
        stem = PurePosixPath(engine.file).with_suffix("")  # xml and bin are one engine
        return Artifact(
            kind="engine",
            name=manifest.name,
            path=engine.file,
            sha256=engine.sha256,
            size_bytes=sum(one.size for one in manifest.files if PurePosixPath(one.path).with_suffix("") == stem),
            precision=manifest.precision,
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            preprocess=manifest.preprocess,
            stage="pack",
            parent=engine.graph_sha256,
            engine=engine.name,
            made_by=manifest.made_by,
            options=codec.canonical_json(engine.options),
            built=engine.built_for,
            origin=Origin(
                checkpoint=manifest.checkpoint.name,
                checkpoint_sha256=manifest.checkpoint.sha256,
                accuracy=manifest.check.accuracy.text,
                images=manifest.images.name,
                n_images=manifest.images.n,
                images_sha256=manifest.images.sha256,
                calibration=calibrated.name if calibrated else "",
                calibration_sha256=calibrated.sha256 if calibrated else "",
                max_drop=manifest.check.limits.max_drop,
                min_top1=manifest.check.limits.min_top1,
            ),
        )

    @property
    def signed(self) -> bool:
        """Whether it has a signature."""
        return self.file(manifests.SIGNATURE).is_file()

    def expect_whole(self) -> None:
        """Refuse a bundle that is not what was packed.

        Raises:
            InputError: A file is missing, changed, or not of the bundle.
        """
        if self.faults:
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            raise InputError(f"{self.path}: {self.faults[0]}{more}", hint="get the bundle again from whoever packed it")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BundleContents]:
    """Open a bundle: a folder, or a zip, which is unpacked into a folder that goes when the block ends.

    Raises:
        InputError: Missing, not a bundle, or one that was made to do harm: links, paths that lead out of it, names
            that occur twice, members that unpack to far more than they take.
    """
    if path.is_dir():
        verify_utf8(path, "give it as a zip")
        manifest = _manifest(path, path)
        names, foreign = _names_in(path, _folders(manifest))
        yield _compared(path, path, manifest, names, foreign)
    elif path.is_file():
        with temporary_folder() as folder:
            names, manifest = _unpack(path, folder), _manifest(path, folder)
            foreign = Counter(filter(None, (_foreign_folder(name, _folders(manifest)) for name in names)))
            yield _compared(path, folder, manifest, names, foreign)
    else:
        raise no_such_file(path, "file or folder", hint=_NOT_A_BUNDLE)


def is_bundle(path: Path) -> bool:
    """Return whether a folder or zip has a manifest at its top, without reading the rest; weights are zips, too."""
    if not path.is_file():
        return (path / manifests.FILE).is_file()
    return manifests.FILE in zip_names(path)


def zip_names(path: Path) -> frozenset[str]:
    """Return the names in a zip; none where a file is none, or has a directory that is too large to be read."""
    try:
        _expect_small_directory(path)
        with zipfile.ZipFile(path) as archive:
            return frozenset(archive.namelist())
    except (InputError, OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
        return frozenset()


def _compared(
    path: Path, folder: Path, manifest: Manifest, names: frozenset[str], foreign: Mapping[str, int]
) -> BundleContents:
    """Compare the files with the manifest, and the manifest with its hash; foreign folders have one fault each."""
    faults, known = [], _folders(manifest)
    if not manifests.is_as_written((folder / manifests.FILE).read_bytes()):
        faults.append(f"{manifests.FILE}: changed since it was packed: its sha256 is not {manifest.sha256[:12]}…")
    faults += [f"{manifests.FILE}: {why}" for why in manifest.check.contradictions]
    for file in manifest.files:
        if file.path not in names:
            faults.append(f"{file.path}: missing")
        elif (size := (folder / file.path).stat().st_size) != file.size:
            faults.append(f"{file.path}: expected {file.size:,} bytes, found {size:,}")
        elif sha256_of(folder / file.path) != file.sha256:
            faults.append(f"{file.path}: changed since it was packed: its sha256 is not {file.sha256[:12]}…")
    others = sorted(names - {file.path for file in manifest.files} - _UNLISTED)
    faults += [f"{name}: not of the bundle (delete it)" for name in others if not _foreign_folder(name, known)]
    faults += [f"{name}/: {_foreign(folder / name, n)}" for name, n in sorted(foreign.items())]
    return BundleContents(path=path, folder=folder, manifest=manifest, faults=tuple(faults))


def _folders(manifest: Manifest) -> frozenset[str]:
    """Return the folders that a bundle has files in, its own included."""
    return frozenset(parent.as_posix() for file in manifest.files for parent in PurePosixPath(file.path).parents)


def _foreign_folder(name: str, known: frozenset[str]) -> str:
    """Return the outermost folder above a file that has nothing of the bundle; empty if all have."""
    above = [parent.as_posix() for parent in PurePosixPath(name).parents]  # the innermost first
    return next((parent for parent in reversed(above) if parent not in known), "")


def _foreign(folder: Path, n: int) -> str:
    """Say what a foreign folder is; none is let pass, as Python can import from any folder beside `predict.py`."""
    number = f"{n:,} files" if n > 1 else "1 file"
    number += " or more" * (n >= _MAX_COUNTED)
    if (folder / "pyvenv.cfg").is_file():
        return f"a virtual environment of {number}, not of the bundle (make it outside of this folder)"
    return f"{number} not of the bundle (delete the folder)"


def _manifest(path: Path, folder: Path) -> Manifest:
    file = folder / manifests.FILE
    if file.is_symlink():
        raise InputError(f"{path}: {manifests.FILE!r} is a link, and a bundle has none", hint=_NOT_A_BUNDLE)
    if not file.is_file():
        raise InputError(f"{path}: not a bundle: it has no {manifests.FILE}", hint=_NOT_A_BUNDLE)
    if file.stat().st_size > manifests.MAX_BYTES:
        raise InputError(f"{file}: expected at most {manifests.MAX_BYTES >> 20} MiB")
    return manifests.parse_manifest(file.read_bytes(), str(path / manifests.FILE))


def _names_in(root: Path, known: frozenset[str]) -> tuple[frozenset[str], dict[str, int]]:
    """List the files below a folder by their paths in it, and count those of folders that the bundle does not know.

    Raises:
        InputError: A link, something that is neither file nor folder, or more than a bundle has.
    """
    found, folders, foreign = list[str](), [""], dict[str, int]()
    while folders:
        at = folders.pop()
        try:
            entries = sorted(os.scandir(root / at), key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"{root / at}: cannot be read: {error.strerror}") from error
        for entry in entries:
            name = f"{at}{entry.name}"
            if entry.is_symlink():
                raise InputError(f"{root}: {name!r} is a link, and a bundle has none", hint=_NOT_A_BUNDLE)
            if entry.is_dir(follow_symlinks=False) and name not in known:
                foreign[name] = _n_files(root / name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(f"{name}/")
            elif entry.is_file(follow_symlinks=False):
                found.append(name)
            else:
                raise InputError(f"{root}: {name!r} is neither a file nor a folder", hint=_NOT_A_BUNDLE)
            if len(found) + len(folders) + len(foreign) > MAX_FILES or name.count("/") > _MAX_DEPTH:
                raise InputError(f"{root}: more files or deeper folders than a bundle has", hint=_NOT_A_BUNDLE)
    return frozenset(found), {name: n for name, n in foreign.items() if n}


def _n_files(folder: Path) -> int:
    """Count what is no folder below a folder, without following a link, up to `_MAX_COUNTED`."""
    n, folders = 0, [folder]
    while folders and n < _MAX_COUNTED:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:  # no access, or too deep a path
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                else:
                    n += 1
    return n


def _unpack(path: Path, folder: Path) -> frozenset[str]:
    """Unpack a zip.

    Raises:
        InputError: Not a zip, or not one that was made in good faith.
    """
    try:
        _expect_small_directory(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _verify_members(path, members)
            for member in members:
                target = folder / manifests.expect_path(member.filename, str(path))
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as file:
                    left = member.file_size
                    while left and (piece := source.read(min(left, 1 << 20))):
                        file.write(piece)
                        left -= len(piece)
            return frozenset(member.filename for member in members)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error) as error:
        raise InputError(f"{path}: not a whole zip: {error}", hint="it may be cut off: get it again") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: cannot be unpacked: {error}", hint=_NOT_A_BUNDLE) from error


def _expect_small_directory(path: Path) -> None:
    """Refuse a zip whose directory is larger than a bundle's, before `zipfile` takes it into memory."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 22))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise InputError(f"{path}: not a bundle: neither a folder nor a zip", hint=_NOT_A_BUNDLE)
    entries, n_bytes = struct.unpack("<HI", tail[at + 10 : at + 16])
    if entries > MAX_FILES or n_bytes > MAX_FILES * 1024 or tail[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
        raise InputError(
            f"{path}: {entries:,} members in {n_bytes:,} bytes, more than a bundle has", hint=_NOT_A_BUNDLE
        )


def _verify_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = set[str]()
    for member in members:
        manifests.expect_path(member.filename, str(path))
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.filename.casefold() in names:
            raise InputError(f"{path}: has '{member.filename}' twice", hint=_NOT_A_BUNDLE)
        names.add(member.filename.casefold())
        if kind not in (0, stat.S_IFREG):
            raise InputError(f"{path}: '{member.filename}' is a link or a special file", hint=_NOT_A_BUNDLE)
        if member.flag_bits & 1 or member.compress_type not in _METHODS:
            raise InputError(
                f"{path}: '{member.filename}' is encrypted or packed in an unusual way", hint=_NOT_A_BUNDLE
            )
        if member.file_size > _SMALL and member.file_size > _MOST_RATIO * max(1, member.compress_size):
            raise InputError(
                f"{path}: '{member.filename}' unpacks from {member.compress_size:,} to {member.file_size:,} bytes, far "
                "more than an engine does",
                hint=_NOT_A_BUNDLE,
            )
    packed, whole = sum(m.compress_size for m in members), sum(m.file_size for m in members)
    if packed > path.stat().st_size or whole > MAX_BYTES:
        raise InputError(f"{path}: unpacks to {whole:,} bytes, more than it can hold or a bundle has")
