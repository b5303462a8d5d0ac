"""A zip archive of untrusted origin: bounded before it is unpacked, every member's CRC checked.

Python's `zipfile` reads what is let through. torch's own reader compares no CRC and loads flipped bits silently.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.formats.limits import ReadLimits, damaged

MAGIC = b"PK\x03\x04"
# DenseNet-264 as TorchScript has about 4,000 members, each some 100 bytes of directory.
_MAX_DIRECTORY, _MAX_MEMBERS = 8 << 20, 100_000
_END, _END_SIZE, _MAX_COMMENT = b"PK\x05\x06", 22, 1 << 16
_END_64, _LOCAL_SIZE = b"PK\x06\x06", 30
_CHUNK = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, LookupError, RuntimeError, struct.error)


class Archive:
    """An open archive whose members fit the budget.

    Attributes:
        names: Names of its members, in the archive's order.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        """Wrap an archive that `open_archive` has verified."""
        self._archive = archive
        self._members = {info.filename: info for info in archive.infolist()}
        self.names = tuple(self._members)

    def size(self, name: str) -> int:
        """Return a member's size in bytes, unpacked."""
        return self._members[name].file_size

    def read(self, name: str) -> bytearray:
        """Unpack a member.

        Raises:
            CheckpointError: Absent or damaged.
        """
        if name not in self._members:
            raise damaged(f"'{name}' is missing inside it")
        result = bytearray()
        try:
            with self._archive.open(self._members[name]) as member:
                while chunk := member.read(_CHUNK):
                    result += chunk
        except _BROKEN as error:
            raise CheckpointError(f"'{name}' inside it is damaged", hint="get the file again") from error
        return result


@contextmanager
def open_archive(file: BinaryIO, budget: ReadLimits) -> Iterator[Archive]:
    """Open an archive, take its members from the budget, and check every CRC.

    Raises:
        CheckpointError: Cut off, damaged, or made to exhaust memory.
    """
    _verify_directory(file)
    try:
        archive = zipfile.ZipFile(file)
    except _BROKEN as error:
        raise damaged(error) from error
    with archive:
        _verify_members(archive, budget)
        _verify_checksums(archive)
        yield Archive(archive)


def _verify_directory(file: BinaryIO) -> None:
    """Bound the directory before `zipfile` makes an object of each of its entries."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_SIZE - _MAX_COMMENT))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0:
        raise damaged("the archive's directory is missing at its end")
    # Comments may hold further records, and a 64-bit record may come before; whichever claims most counts.
    claims = [struct.unpack_from("<I", tail, place + 12)[0] for place in _places(tail, _END, _END_SIZE)]
    claims = [claim for claim in claims if claim != 0xFFFFFFFF]
    claims += [struct.unpack_from("<Q", tail, place + 40)[0] for place in _places(tail, _END_64, 56)]
    if any(_MAX_DIRECTORY < claim <= size for claim in claims):
        raise CheckpointError(
            f"refused: its archive's directory has {max(claims):,} bytes, a checkpoint's has less than "
            f"{_MAX_DIRECTORY:,}",
            hint="get the file from its source",
        )


def _places(data: bytes, magic: bytes, length: int) -> Iterator[int]:
    """Yield each place of a record that lies in the data as a whole."""
    at = data.find(magic)
    while at >= 0:
        if at + length <= len(data):
            yield at
        at = data.find(magic, at + 1)


def _verify_members(archive: zipfile.ZipFile, budget: ReadLimits) -> None:
    """Refuse members that no checkpoint has, and take the size of the others from the budget."""
    members = sorted(archive.infolist(), key=lambda info: info.header_offset)
    if len(members) > _MAX_MEMBERS:
        raise CheckpointError(f"refused: its archive has {len(members):,} members")
    if len({info.filename for info in members}) != len(members):
        raise CheckpointError("refused: two members of its archive have the same name", hint="get the file again")
    end = 0
    for info in members:
        if info.flag_bits & 1:
            raise CheckpointError(f"'{info.filename}' inside it is encrypted", hint="unpack it and save it anew")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(f"'{info.filename}' inside it is packed in a way that no checkpoint is")
        if info.header_offset < end:  # how small archives unpack to petabytes: one record under many names
            raise CheckpointError("refused: members of its archive overlap", hint="get the file from its source")
        end = info.header_offset + _LOCAL_SIZE + len(info.filename) + info.compress_size
        budget.take(info.file_size)


def _verify_checksums(archive: zipfile.ZipFile) -> None:
    try:
        broken = archive.testzip()
    except _BROKEN as error:
        raise damaged(error) from error
    if broken:
        raise CheckpointError(f"'{broken}' inside it is damaged", hint="get the file again")
