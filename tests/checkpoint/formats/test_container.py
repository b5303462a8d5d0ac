"""Tests of `container`: files of every kind, told by their bytes; what is foreign is called by its name."""

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import SAVERS, TORCH_SAVERS, bytes_of, save_safetensors, save_zip, weights, write, zip_bytes
from safetensors.torch import save_file

from deploy_kit.base.errors import CheckpointError, InputError, RequestError
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source
from deploy_kit.checkpoint.formats import container, safetensors_file
from deploy_kit.records.artifacts import Preprocess

STATED = {"height": 16, "width": 16, "color": "gray", "mean": [0.5], "std": [0.25]}


def tar_bytes() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return file.getvalue()


def npz_bytes() -> bytes:
    file = io.BytesIO()
    np.savez(file, weight=np.zeros(4))
    return file.getvalue()


def npy_bytes() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(4))
    return file.getvalue()


FOREIGN = {
    "empty": (b"", "the file is empty"),
    "zeros": (bytes(4096), "nothing but zeros"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3234\n", "a Git LFS pointer"),
    "html": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "an HTML page"),
    "html-bare": (b"<html><body>404</body></html>", "an HTML page"),
    "html-indented": (b"\n\n <!doctype html><title>404</title>", "an HTML page"),
    "html-bom": (b"\xef\xbb\xbf<!DOCTYPE html>", "an HTML page"),
    "xml": (b"<?xml version='1.0'?><net/>", "an XML document"),
    "json": (b'{"epoch": 3, "weights": "elsewhere"}', "a JSON document"),
    "sharded": (b'{"metadata": {}, "weight_map": {"a": "model-1.safetensors"}}', "the index of a sharded checkpoint"),
    "text": (b"some text that is no checkpoint at all", "plain text"),
    "gzip": (gzip.compress(b"a" * 99), "a gzip file"),
    "tar": (tar_bytes(), "a tar archive"),
    "npz": (npz_bytes(), "a NumPy archive"),
    "npy": (npy_bytes(), "a NumPy array"),
    "t7": (struct.pack("<3i", 4, 1, 3) + b"V 1" + bytes(40), "a Torch7 file"),
    "t7-text": (b"4\n1\n3\nV 1\n13\nnn.Sequential\n", "a Torch7 file"),
    "mxnet": (struct.pack("<QQ", 0x112, 0) + bytes(40), "an MXNet parameter file"),
    "flax": (b"\x81\xa6params\x81\xa5Dense\x81\xa6kernel" + bytes(40), r"a Flax checkpoint \(MessagePack\)"),
    "mindspore": (
        b"\x0a\x30\x0a\x0cconv1.weight\x12\x20\x08\x40\x08\x03\x12\x07Float32\x1a\x10" + bytes(16),
        "a MindSpore checkpoint",
    ),
    "caffe": (b"\x0a\x08DenseNet\xa2\x06\x2f\x0a\x04data\x12\x04Data" + bytes(40), r"a Caffe model \(\.caffemodel\)"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(40), "a TensorFlow Lite model"),
    "tf-index": (b"\x00\x00\x0a\x08" * 20 + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "a TensorFlow checkpoint"),
    "gguf": (b"GGUF" + bytes(40), "a GGUF file"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(40), "a 7z archive"),
    "empty zip": (zip_bytes({}), "an empty zip archive"),
    "zip": (zip_bytes({"readme.txt": b"hello"}), r"a zip archive of 'readme\.txt'"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(40), "a PNG image"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a", "unknown bytes, 08 08 12 07 70 79 74 6f"),
    "noise": (bytes(range(1, 200)), "unknown bytes, 01 02 03 04 05 06 07 08"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_file_is_called_by_its_name_and_says_what_to_do(name: str, tmp_path: Path) -> None:
    data, what = FOREIGN[name]
    path = write(tmp_path / "model.pth", data)

    with pytest.raises(CheckpointError, match=rf"model\.pth: not a recognised checkpoint container: {what}") as caught:
        container.read_contents(path)

    assert caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", SAVERS)
def test_tensors_come_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    saved = weights()
    SAVERS[kind](saved, tmp_path / "file")

    contents = container.read_contents(tmp_path / "file")

    assert contents.tensors.keys() == saved.keys()
    assert all(torch.equal(contents.tensors[name], tensor) for name, tensor in saved.items())


@pytest.mark.parametrize("extension", ["h5", "onnx", "pth.tar", "txt"])
@pytest.mark.parametrize("kind", SAVERS)
def test_kind_is_read_from_the_bytes_and_not_from_the_extension(kind: str, extension: str, tmp_path: Path) -> None:
    SAVERS[kind](weights(), tmp_path / f"model.{extension}")

    assert container.read_contents(tmp_path / f"model.{extension}").kind == kind


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.pth: no such file") as caught:
        container.read_contents(tmp_path / "absent.pth")

    assert caught.value.hint == "check the path"


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file, found a folder"):
        container.read_contents(tmp_path)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("kind", SAVERS)
def test_cut_off_file_is_called_truncated(kind: str, share: float, tmp_path: Path) -> None:
    data = bytes_of(SAVERS[kind], weights(), tmp_path)
    path = write(tmp_path / "cut", data[: int(len(data) * share)])

    with pytest.raises(CheckpointError, match=r"cut: truncated or incomplete: .") as caught:
        container.read_contents(path)

    assert caught.value.hint == "get the file again"


@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize("kind", TORCH_SAVERS)
def test_big_endian_file_is_refused(kind: str, big: bool, tmp_path: Path) -> None:
    data = bytes_of(TORCH_SAVERS[kind], weights(), tmp_path)
    if kind == "torch zip":
        import zipfile

        with zipfile.ZipFile(tmp_path / "made") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        home = next(iter(members)).partition("/")[0]
        data = zip_bytes(members | {f"{home}/byteorder": b"big" if big else b"little"})
    elif big:
        data = data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    path = write(tmp_path / "file", data)

    if not big:
        assert container.read_contents(path).tensors
        return
    with pytest.raises(CheckpointError, match="its numbers are big-endian"):
        container.read_contents(path)


def test_preprocess_and_facts_are_read_from_safetensors_metadata(tmp_path: Path) -> None:
    facts = {"stem_stride": 1, "stem_pool": "max", "eps": 1e-5}
    metadata = {"deploykit.densenet": json.dumps(facts), "deploykit.preprocess": json.dumps(STATED)}
    save_file(weights(), tmp_path / "file", metadata)

    contents = container.read_contents(tmp_path / "file")

    assert contents.preprocess == Preprocess(height=16, width=16, color="gray", mean=(0.5,), std=(0.25,))
    assert contents.facts == ArchitectureFacts(stem_stride=1, stem_pool="max", eps=1e-5)


@pytest.mark.parametrize("text", ["family 'mine', by its names", "flag", "default: mine"])
def test_source_that_the_metadata_names_is_shown_and_is_of_no_other_kind(text: str, tmp_path: Path) -> None:
    facts = {"stem_stride": 1, "source": text}
    save_file(weights(), tmp_path / "file", {"deploykit.densenet": json.dumps(facts)})

    assert container.read_contents(tmp_path / "file").facts.source == Source("file", text)


@pytest.mark.parametrize(("written", "meant"), [(True, "max"), (False, "none")])
def test_stem_pool_of_earlier_files_was_yes_or_no(written: bool, meant: str, tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "file", {"deploykit.densenet": json.dumps({"stem_pool": written})})

    assert container.read_contents(tmp_path / "file").facts.stem_pool == meant


def test_safetensors_without_metadata_states_nothing(tmp_path: Path) -> None:
    save_safetensors(weights(), tmp_path / "file")

    contents = container.read_contents(tmp_path / "file")

    assert contents.preprocess is None
    assert contents.facts == ArchitectureFacts()


@pytest.mark.parametrize("key", [safetensors_file.FACTS_KEY, safetensors_file.PREPROCESS_KEY])
@pytest.mark.parametrize("text", ["{stem_stride: 1", "[" * 100_000])
def test_metadata_that_is_not_json_is_refused(key: str, text: str, tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "file", {key: text})

    with pytest.raises(CheckpointError, match="file: its metadata is not JSON"):
        container.read_contents(tmp_path / "file")


@pytest.mark.parametrize(
    "header",
    [
        '{"a": ENTRY, "a": ENTRY}',
        '{"__metadata__": {"k": "1", "k": "2"}, "a": ENTRY}',
        '{"__metadata__": {"deploykit.densenet": "{\\"eps\\": 1e-5, \\"eps\\": 1e-3}"}, "a": ENTRY}',
    ],
)
def test_what_is_named_twice_is_refused_and_never_the_last_taken(header: str, tmp_path: Path) -> None:
    text = header.replace("ENTRY", '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}').encode()
    (tmp_path / "file").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))

    with pytest.raises(CheckpointError, match=r"the key '(a|k|eps)' occurs twice"):
        container.read_contents(tmp_path / "file")


def test_unknown_key_in_the_preprocess_metadata_names_the_nearest(tmp_path: Path) -> None:
    stated = {"height": 16, "width": 16, "colour": "gray", "mean": [0.5], "std": [0.25]}
    save_file(weights(), tmp_path / "file", {safetensors_file.PREPROCESS_KEY: json.dumps(stated)})

    with pytest.raises(RequestError, match=r"file: deploykit\.preprocess: unknown key 'colour'") as caught:
        container.read_contents(tmp_path / "file")

    assert caught.value.hint == "did you mean 'color'?"


@pytest.mark.parametrize(
    "stated",
    [
        '["stem_stride"]',
        "null",
        "3",
        '{"stem_stride": "2"}',
        '{"stem_stride": 0}',
        '{"eps": -1}',
        '{"stem_strid": 2}',
        '{"source": 3}',
        '{"source": {"kind": "flag", "text": "flag"}}',
    ],
)
def test_facts_of_a_wrong_kind_are_refused(stated: str, tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "file", {safetensors_file.FACTS_KEY: stated})

    with pytest.raises(RequestError, match=r"deploykit\.densenet"):
        container.read_contents(tmp_path / "file")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<Q", 1 << 60) + b'{"a":1}', "its header claims 1,152,921,504,606,846,976 bytes"),
        (struct.pack("<Q", 9 << 20) + b"{" + b" " * (9 << 20), r"refused: its header has 9,437,184 bytes"),
        (struct.pack("<Q", 90) + b'{"a":' + b"[" * 85 + bytes(8), "not a whole safetensors file"),
        (struct.pack("<Q", 1 << 20) + b'{"a":' + b"[" * ((1 << 20) - 5), "not a whole safetensors file"),
    ],
    ids=["claim", "large", "broken", "deep"],
)
def test_safetensors_header_that_is_a_trap_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        container.read_contents(write(tmp_path / "file", data))


def test_state_key_for_a_file_of_one_set_of_weights_is_refused(tmp_path: Path) -> None:
    save_safetensors(weights(), tmp_path / "file")

    with pytest.raises(
        CheckpointError, match="safetensors holds one set of weights, and none is called 'ema'"
    ) as caught:
        container.read_contents(tmp_path / "file", state_key="ema")

    assert caught.value.hint == "leave --state-key out"


def test_message_for_a_person_has_path_and_hint(tmp_path: Path) -> None:
    save_zip({"epoch": 1}, tmp_path / "weights.pth")

    with pytest.raises(CheckpointError, match=rf"^{tmp_path}/weights\.pth: no state dict found") as caught:
        container.read_contents(tmp_path / "weights.pth")

    assert caught.value.hint.startswith("save the tensors alone")


def test_kind_and_everything_else_has_a_plain_default(tmp_path: Path) -> None:
    save_zip(weights(), tmp_path / "file")

    contents: Any = container.read_contents(tmp_path / "file")

    assert (contents.classes, contents.preprocess, dict(contents.attributes)) == (None, None, {})
