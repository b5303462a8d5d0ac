"""What torch's own restricted unpickler refuses or reads without bounds: why there is a machine of our own."""

import argparse
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import save_pickle, save_zip, tiny_net, weights, write, zip_bytes

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.formats import container


def arrays() -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in weights().items()}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's, before it refuses it
@pytest.mark.parametrize(
    ("save", "data"),
    [
        (save_zip, tiny_net),
        (save_zip, lambda: {"state_dict": weights(), "best_acc": np.float64(0.93)}),
        (save_zip, lambda: {"state_dict": weights(), "args": argparse.Namespace(lr=0.1)}),
        (save_pickle, arrays),
    ],
    ids=["whole module", "NumPy scalar", "Namespace", "plain pickle"],
)
def test_file_that_torch_refuses_is_read_here(
    save: Callable[[Any, Path], None], data: Callable[[], Any], tmp_path: Path
) -> None:
    save(data(), tmp_path / "file")

    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "file", weights_only=True)
    assert container.read_contents(tmp_path / "file").tensors.keys() == weights().keys()


def archive_of(pickled: bytes) -> bytes:
    return zip_bytes({"a/data.pkl": pickled, "a/version": b"3\n", "a/byteorder": b"little"})


def flipped() -> bytes:
    """Let the exponent of one weight have another bit."""
    file = io.BytesIO()
    torch.save({"a": torch.ones(1000)}, file)
    data = bytearray(file.getvalue())
    data[data.index(torch.ones(4).numpy().tobytes()) + 3] ^= 0x40
    return bytes(data)


def packed() -> bytes:
    """Let a record of one number unpack to 300 MiB of zeros."""
    file = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    home = next(iter(members)).partition("/")[0]
    body, count = members[f"{home}/data.pkl"], 300 << 18
    at = body.index(b"K\x01t", body.index(b"cpu"))
    members[f"{home}/data.pkl"] = body[:at] + b"\x8a\x05" + count.to_bytes(5, "little") + body[at + 2 :]
    return zip_bytes(members | {f"{home}/data/0": bytes(4 * count)}, pack=zipfile.ZIP_DEFLATED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: archive_of(b"\x80\x02cbuiltins\nbytearray\n\x8a\x04\x00\x00\x00\x01\x85R."), "bytearray"),
        (lambda: archive_of(b"\x80\x02})" + b"q\x01h\x01\x86" * 16 + b"K\x01s."), "a nested or long tuple as a key"),
        (flipped, "'archive/data/0' inside it is damaged"),
        (packed, "unpacks to far more than its size"),
    ],
    ids=["16 MiB of 350 bytes", "key that doubles with each level", "flipped bit", "300 MiB of 0.3"],
)
def test_trap_that_torch_reads_is_refused_here(make: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file", make())

    torch.load(path, weights_only=True)
    with pytest.raises(CheckpointError, match=message):
        container.read_contents(path)
