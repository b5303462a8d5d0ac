"""Tests of `zip_archive`, `torch_file` and `limits`: archives that are damaged, that lie, that would fill memory."""

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoint_files import bytes_of, save_legacy, save_zip, weights, write, zip_bytes

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.formats import container

DEFLATED = zipfile.ZIP_DEFLATED


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_flipped_weight_is_noticed_and_its_member_named(tmp_path: Path) -> None:
    data = bytearray(bytes_of(save_zip, weights(), tmp_path))
    data[data.index(weights()["fc.weight"].numpy().tobytes())] ^= 1
    path = write(tmp_path / "flipped", bytes(data))

    with pytest.raises(CheckpointError, match=r"flipped: 'made/data/\d+' inside it is damaged") as caught:
        container.read_contents(path)

    assert caught.value.hint == "get the file again"


def test_torch_alone_would_load_the_flipped_weight(tmp_path: Path) -> None:
    """The CRC check is worth its time: the yardstick above measures something that torch lets pass."""
    data = bytearray(bytes_of(save_zip, weights(), tmp_path))
    data[data.index(weights()["fc.weight"].numpy().tobytes())] ^= 1
    path = write(tmp_path / "flipped", bytes(data))

    loaded = torch.load(path, weights_only=True)

    assert not torch.equal(loaded["fc.weight"], weights()["fc.weight"])


def test_archive_that_was_packed_anew_is_read(tmp_path: Path) -> None:
    members = members_of(bytes_of(save_zip, weights(), tmp_path))
    path = write(tmp_path / "packed", zip_bytes(members, pack=DEFLATED))

    contents = container.read_contents(path)

    assert all(torch.equal(contents.tensors[name], tensor) for name, tensor in weights().items())


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of 1 GiB of zeros in a file of 5 MB."""
    path = tmp_path_factory.mktemp("bomb") / "bomb"
    with zipfile.ZipFile(path, "w", DEFLATED, compresslevel=1) as archive, archive.open("a/data.pkl", "w") as member:
        for _ in range(64):
            member.write(bytes(16 << 20))
    return path


@pytest.mark.slow
def test_record_that_unpacks_to_a_gigabyte_is_refused(bomb: Path) -> None:
    assert bomb.stat().st_size < 6 << 20

    with pytest.raises(CheckpointError, match="unpacks to far more than its size, 1,073,741,824 bytes"):
        container.read_contents(bomb)


@pytest.mark.slow
def test_many_records_that_unpack_to_much_are_refused_together(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb", zip_bytes({f"a/data/{i}": bytes(40 << 20) for i in range(8)}, pack=DEFLATED))

    with pytest.raises(CheckpointError, match="unpacks to far more than its size"):
        container.read_contents(path)


@pytest.mark.slow
def test_bomb_is_refused_within_bounded_memory(bomb: Path) -> None:
    """A child process that may have 512 MiB above what the imports take reads a 1 GiB record."""
    code = (
        "import sys; from pathlib import Path; from deploy_kit.checkpoint.formats import container\n"
        "import resource; used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)\n"
        "from deploy_kit.base.errors import CheckpointError\n"
        "try: container.read_contents(Path(sys.argv[1]))\n"
        "except CheckpointError as error: print(error)\n"
    )

    done = subprocess.run([sys.executable, "-c", code, str(bomb)], capture_output=True, text=True, timeout=60)

    assert "unpacks to far more than its size" in done.stdout, done.stderr


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    """Both entries of the directory point at the same bytes: how small files unpack to petabytes."""
    data = bytearray(zip_bytes({"a/data.pkl": b"0" * 1000, "b/data.pkl": b"0" * 1000}))
    first, second = (at for at in range(len(data)) if data[at : at + 4] == b"PK\x01\x02")
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    path = write(tmp_path / "overlap", bytes(data))

    with pytest.raises(CheckpointError, match=r"overlap|truncated or incomplete"):
        container.read_contents(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"one")
        archive.writestr("a/data.pkl", b"two")

    with pytest.raises(CheckpointError, match="two members of its archive have the same name"):
        container.read_contents(write(tmp_path / "file", file.getvalue()))


def test_encrypted_archive_is_refused(tmp_path: Path) -> None:
    data = bytearray(zip_bytes({"a/data.pkl": b"secret"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1

    with pytest.raises(CheckpointError, match=r"'a/data\.pkl' inside it is encrypted"):
        container.read_contents(write(tmp_path / "file", bytes(data)))


@pytest.mark.parametrize("pack", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_of_no_checkpoint_is_refused(pack: int, tmp_path: Path) -> None:
    path = write(tmp_path / "file", zip_bytes({"a/data.pkl": bytes(1000)}, pack=pack))

    with pytest.raises(CheckpointError, match="packed in a way that no checkpoint is"):
        container.read_contents(path)


def test_archive_of_very_many_members_is_refused_before_they_become_objects(tmp_path: Path) -> None:
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 200_000
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(directory), 30, 0)
    path = write(tmp_path / "file", b"PK\x03\x04" + bytes(26) + directory + end)

    with pytest.raises(CheckpointError, match=r"its archive's directory has \d[\d,]+ bytes"):
        container.read_contents(path)


def test_archive_of_more_members_than_any_checkpoint_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("deploy_kit.checkpoint.formats.zip_archive._MAX_MEMBERS", 3)
    path = write(tmp_path / "file", zip_bytes({f"a/{i}": b"" for i in range(4)}))

    with pytest.raises(CheckpointError, match="its archive has 4 members"):
        container.read_contents(path)


def test_record_that_is_missing_is_named(tmp_path: Path) -> None:
    members = members_of(bytes_of(save_zip, weights(), tmp_path))
    del members["made/data/0"]

    with pytest.raises(CheckpointError, match="truncated or incomplete: 'made/data/0' is missing inside it"):
        container.read_contents(write(tmp_path / "file", zip_bytes(members)))


@pytest.mark.parametrize("change", [-4, 4, -1])
def test_record_of_another_size_than_claimed_is_refused(change: int, tmp_path: Path) -> None:
    members = members_of(bytes_of(save_zip, weights(), tmp_path))
    record = members["made/data/0"]
    members["made/data/0"] = record[:change] if change < 0 else record + bytes(change)

    with pytest.raises(CheckpointError, match=r"storage '0' claims [\d,]+ bytes, it has|a storage of [\d,]+ bytes"):
        container.read_contents(write(tmp_path / "file", zip_bytes(members)))


def claimed(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """Write a zip file whose one tensor claims what it likes of a storage of four numbers."""

    here = object()

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if obj is here else None

    class Tensor:
        def __reduce__(self) -> object:
            return torch._utils._rebuild_tensor_v2, (here, offset, size, stride, False, {})

    file = io.BytesIO()
    Pickler(file, 2).dump({f"w{i}": Tensor() for i in range(4)})
    return zip_bytes({"a/data.pkl": file.getvalue(), "a/data/0": bytes(16)})


@pytest.mark.parametrize(
    ("count", "size", "stride", "offset", "message"),
    [
        (1 << 40, (4,), (1,), 0, "storage '0' claims 4,398,046,511,104 bytes, it has 16"),
        (4, (5,), (1,), 0, r"a tensor of \[5\] in a storage of 4 numbers"),
        (4, (2, 2), (3, 1), 0, r"a tensor of \[2, 2\] in a storage of 4 numbers"),
        (4, (4,), (1,), 1, r"a tensor of \[4\] in a storage of 4 numbers"),
        (4, (2,), (-1,), 1, "no row of sizes"),
        (4, (2,), (1,), -1, "no row of sizes"),
        (4, (-1,), (1,), 0, "no row of sizes"),
        (4, (1 << 40,), (0,), 0, "unpacks to far more than its size"),
        (4, (1 << 61, 1 << 61), (0, 0), 0, "unpacks to far more than its size"),
        (4, (1,) * 100, (1,) * 100, 0, "a shape that is tuple"),
        (4, (2, 2), (1,), 0, "truncated or incomplete"),
    ],
)
def test_tensor_that_claims_what_is_not_there_is_refused(
    count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "file", claimed(count, size, stride, offset))

    with pytest.raises(CheckpointError, match=message):
        container.read_contents(path)


def test_legacy_storage_larger_than_the_file_is_refused_before_it_is_made(tmp_path: Path) -> None:
    data = bytes_of(save_legacy, weights(), tmp_path)
    count = weights()["stem.weight"].numel()
    before = b"M" + struct.pack("<H", count)
    path = write(tmp_path / "file", data.replace(before, b"\x8a\x06" + (1 << 40).to_bytes(6, "little"), 1))

    with pytest.raises(CheckpointError, match=r"storage '\d+' claims 4,398,046,511,104 bytes"):
        container.read_contents(path)


def test_legacy_storages_that_are_not_those_named_are_refused(tmp_path: Path) -> None:
    data = bytes_of(save_legacy, {"a": torch.zeros(3)}, tmp_path)
    key = data[data.rindex(b"]q\x00X") :][8:].partition(b"q\x01")[0]
    at = data.rindex(key)
    path = write(tmp_path / "file", data[:at] + b"9" * len(key) + data[at + len(key) :])

    with pytest.raises(CheckpointError, match="the storages behind its pickle are not those that it names"):
        container.read_contents(path)


def test_checkpoint_inside_checkpoints_is_refused_when_they_do_not_end(tmp_path: Path) -> None:
    class Nested:
        def __init__(self, inner: bytes) -> None:
            self.inner = inner

        def __reduce__(self) -> object:
            return torch.storage._load_from_bytes, (self.inner,)

    data = b""
    for _ in range(4):
        file = io.BytesIO()
        torch.save(Nested(data), file, _use_new_zipfile_serialization=False)
        data = file.getvalue()

    with pytest.raises(CheckpointError, match="checkpoints inside checkpoints"):
        container.read_contents(write(tmp_path / "file", data))
