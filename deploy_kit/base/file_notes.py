"""What deploykit notes in an ONNX file for programs that cannot parse one. Standard library only: workers import it."""

import mmap
from pathlib import Path

SUMS_FIT = "deploykit.sums_fit_16_bits"
"""Key in the file's metadata: any two neighbouring products of its weights fit into 16 bits together."""


def sums_fit(path: Path) -> bool:
    """Return whether a file notes that its sums fit: protobuf stores the key's letters as they are."""
    if not path.is_file() or not path.stat().st_size:
        return False  # loading it says what is wrong
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(SUMS_FIT.encode()) >= 0
