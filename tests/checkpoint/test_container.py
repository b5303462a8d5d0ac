"""Tests of `checkpoint.container`: files of every kind, read by their bytes; nothing in them is executed."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_PREPROCESS, save_tiny, tiny_model
from safetensors.torch import save_file
from torch import Tensor

from deploy_kit import checkpoint
from deploy_kit.checkpoint import container
from deploy_kit.errors import CheckpointError, InputError, RequestError

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 32342954\n"


def weights() -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tiny_model().state_dict().items()}


def save_zip(data: Any, path: Path) -> None:
    torch.save(data, path)


def save_legacy(data: Any, path: Path) -> None:
    torch.save(data, path, _use_new_zipfile_serialization=False)


SAVERS = {"safetensors": save_file, "torch zip": save_zip, "torch legacy": save_legacy}
TORCH_SAVERS = {"torch zip": save_zip, "torch legacy": save_legacy}


class Payload:
    """Unpickling it calls `function` with a path: what a hostile file does."""

    def __init__(self, function: Callable[..., Any], *arguments: str) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return self.call


def payloads(marker: Path) -> dict[str, Payload]:
    return {"os.system": Payload(os.system, f"touch '{marker}'"), "open": Payload(open, str(marker), "w")}


def hostile(data: Payload) -> dict[str, Any]:
    return {"bare": data, "beside the weights": weights() | {"extra": data}, "nested": {"state_dict": {"a": data}}}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def crash(path: Path) -> list[str]:
    """Read a broken file; give the error that is no refusal, if there is one."""
    try:
        container.read(path)
    except CheckpointError:
        return []
    except Exception as error:  # noqa: BLE001  # whatever comes here is what the test looks for
        return [f"{type(error).__name__}: {error}"]
    return []


@pytest.mark.parametrize("kind", SAVERS)
def test_tensors_come_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    saved = weights()
    SAVERS[kind](saved, tmp_path / "file")

    contents = container.read(tmp_path / "file")

    assert contents.tensors.keys() == saved.keys()
    assert all(torch.equal(contents.tensors[name], tensor) for name, tensor in saved.items())


@pytest.mark.parametrize("kind", SAVERS)
def test_kind_is_read_from_the_bytes_and_not_from_the_extension(kind: str, tmp_path: Path) -> None:
    SAVERS[kind](weights(), tmp_path / "model.h5")

    contents = container.read(tmp_path / "model.h5")

    assert contents.kind == kind


@pytest.mark.parametrize("kind", TORCH_SAVERS)
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_nested_weights_are_found_and_the_key_is_remarked(kind: str, key: str, tmp_path: Path) -> None:
    saved = weights()
    TORCH_SAVERS[kind]({"epoch": 3, key: saved, "optimizer": {"state": {}}}, tmp_path / "file")

    contents = container.read(tmp_path / "file")

    assert contents.tensors.keys() == saved.keys()
    assert contents.remarks == (f"weights taken from '{key}'",)


def test_bare_state_dict_leaves_no_remark(tmp_path: Path) -> None:
    save_zip(weights(), tmp_path / "file")

    contents = container.read(tmp_path / "file")

    assert contents.remarks == ()


def test_preprocess_and_facts_are_read_from_safetensors_metadata(tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "file", tiny_model())

    contents = container.read(path)

    assert contents.preprocess == TINY_PREPROCESS
    assert contents.facts == container.Facts(stem_stride=1, stem_pool=True, eps=1e-5)


def test_safetensors_without_metadata_states_nothing(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "file")

    contents = container.read(tmp_path / "file")

    assert contents.preprocess is None
    assert contents.facts == container.Facts()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.pth: no such file") as caught:
        container.read(tmp_path / "absent.pth")

    assert caught.value.hint == "check the path"


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        container.read(tmp_path)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "found an empty file"),
        (LFS_POINTER, r"found a Git LFS pointer, .*`git lfs pull`"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "found an HTML page"),
        (b"<html><body>404</body></html>", "found an HTML page"),
        (b"<!doctype html><title>404</title>", "found an HTML page"),
        (b"\n\n<!DOCTYPE html><title>404</title>", "found an HTML page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "found an HDF5 file"),
        (pickle.dumps({"weight": [1.0, 2.0]}), "found a plain pickle"),
        (b"some text that is no checkpoint at all", "found neither"),
        (b"\x08\x08\x12\x07pytorch", "found neither"),
    ],
    ids=["empty", "lfs", "html", "html-bare", "html5", "html-indented", "hdf5", "pickle", "text", "onnx"],
)
def test_foreign_file_is_called_by_its_name(data: bytes, what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.pth", data)

    with pytest.raises(CheckpointError, match=rf"model\.pth: expected a torch or safetensors checkpoint, {what}"):
        container.read(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("kind", SAVERS)
def test_cut_off_file_is_not_whole(kind: str, share: float, tmp_path: Path) -> None:
    SAVERS[kind](weights(), tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    path = write(tmp_path / "cut", data[: int(len(data) * share)])

    with pytest.raises(CheckpointError, match="cut: not a whole"):
        container.read(path)


@pytest.mark.parametrize("kind", SAVERS)
def test_file_cut_off_in_its_first_bytes_is_refused_wherever_it_ends(kind: str, tmp_path: Path) -> None:
    SAVERS[kind](weights(), tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    crashes = []

    for length in range(120):
        crashes += crash(write(tmp_path / "cut", data[:length]))

    assert crashes == []


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_cut_off_legacy_file_gives_a_reason(share: float, tmp_path: Path) -> None:
    save_legacy(weights(), tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    path = write(tmp_path / "cut", data[: int(len(data) * share)])

    with pytest.raises(CheckpointError, match=r"not a whole torch checkpoint: \w+"):
        container.read(path)


def test_flipped_weight_in_a_zip_is_noticed_and_its_member_named(tmp_path: Path) -> None:
    save_zip(weights(), tmp_path / "file")
    data = bytearray((tmp_path / "file").read_bytes())
    at = data.index(weights()["classifier.weight"].numpy().tobytes())
    data[at] ^= 1
    path = write(tmp_path / "flipped", bytes(data))

    with pytest.raises(CheckpointError, match=r"flipped: 'file/data/\d+' inside it is damaged") as caught:
        container.read(path)

    assert caught.value.hint == "get the file again"


def test_torch_alone_would_load_the_flipped_weight(tmp_path: Path) -> None:
    """The CRC check is worth its time: the yardstick above measures something that torch lets pass."""
    save_zip(weights(), tmp_path / "file")
    data = bytearray((tmp_path / "file").read_bytes())
    data[data.index(weights()["classifier.weight"].numpy().tobytes())] ^= 1
    path = write(tmp_path / "flipped", bytes(data))

    loaded = torch.load(path, weights_only=True)

    assert not torch.equal(loaded["classifier.weight"], weights()["classifier.weight"])


@pytest.mark.parametrize("kind", SAVERS)
def test_flipped_byte_anywhere_never_ends_in_a_crash(kind: str, tmp_path: Path) -> None:
    SAVERS[kind](weights(), tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    crashes = []

    # Names, shapes and the directory of a zip lie in the first and last 4,000 bytes; between them are weights.
    places = (*range(0, 4000, 41), *range(4000, len(data) - 4000, 997), *range(len(data) - 4000, len(data), 19))
    for turn, at in enumerate(places):
        flipped = bytearray(data)
        flipped[at] ^= 1 << turn % 8
        crashes += crash(write(tmp_path / "flipped", bytes(flipped)))

    assert crashes == []


@pytest.mark.parametrize("place", ["bare", "beside the weights", "nested"])
@pytest.mark.parametrize("function", ["os.system", "open"])
@pytest.mark.parametrize("kind", TORCH_SAVERS)
def test_code_in_a_file_is_refused_and_never_run(kind: str, function: str, place: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    TORCH_SAVERS[kind](hostile(payloads(marker)[function])[place], tmp_path / "file")

    with pytest.raises(CheckpointError, match="file: holds more than tensors, and reading it would run its code"):
        container.read(tmp_path / "file")

    assert not marker.exists()


@pytest.mark.parametrize("function", ["os.system", "open"])
def test_plain_pickle_with_code_is_refused_and_never_run(function: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = write(tmp_path / "file", pickle.dumps(payloads(marker)[function]))

    with pytest.raises(CheckpointError, match="found a plain pickle"):
        container.read(path)

    assert not marker.exists()


@pytest.mark.parametrize("function", ["os.system", "open"])
def test_payload_of_these_tests_does_bite_where_nobody_guards(function: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = pickle.dumps(payloads(marker)[function])

    result = pickle.loads(data)
    if function == "open":
        result.close()

    assert marker.exists()


@pytest.mark.parametrize(("function", "name"), [("os.system", r"(posix|os|nt)\.system"), ("open", r"io\.open")])
@pytest.mark.parametrize("kind", TORCH_SAVERS)
def test_refused_code_is_named(kind: str, function: str, name: str, tmp_path: Path) -> None:
    TORCH_SAVERS[kind](payloads(tmp_path / "marker")[function], tmp_path / "weights.pth")

    with pytest.raises(CheckpointError, match=name):
        container.read(tmp_path / "weights.pth")


def test_refusal_of_code_advises_no_way_to_run_it(tmp_path: Path) -> None:
    save_zip(payloads(tmp_path / "marker")["open"], tmp_path / "file")

    with pytest.raises(CheckpointError) as caught:
        container.read(tmp_path / "file")

    assert "can still be loaded" not in str(caught.value)


def test_refusal_of_code_holds_no_terminal_escapes(tmp_path: Path) -> None:
    save_zip(payloads(tmp_path / "marker")["open"], tmp_path / "file")

    with pytest.raises(CheckpointError) as caught:
        container.read(tmp_path / "file")

    assert str(caught.value).isprintable()


def test_refusal_of_code_hints_at_saving_the_tensors_alone(tmp_path: Path) -> None:
    save_zip(tiny_model(), tmp_path / "whole_module.pth")

    with pytest.raises(CheckpointError) as caught:
        container.read(tmp_path / "whole_module.pth")

    assert (
        caught.value.hint.startswith("save the tensors alone") and "torch.save(model.state_dict()" in caught.value.hint
    )


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (torch.zeros(4, 4, 3, 3), "Tensor"),
        ({}, "nothing"),
        ({"optimizer": {"state": {}}, "epoch": 3}, "optimizer, epoch"),
        ({"fc.weight": torch.zeros(4, 4)}, r"fc\.weight"),
    ],
    ids=["bare tensor", "empty", "optimizer only", "no convolution"],
)
def test_file_without_a_state_dict_is_refused(data: Any, found: str, tmp_path: Path) -> None:
    save_zip(data, tmp_path / "file")

    with pytest.raises(CheckpointError, match=f"expected a state dict with convolutions, found {found}"):
        container.read(tmp_path / "file")


@pytest.mark.parametrize("key", [container.FACTS_KEY, container.PREPROCESS_KEY])
def test_metadata_that_is_not_json_is_refused(key: str, tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "file", {key: "{stem_stride: 1"})

    with pytest.raises(CheckpointError, match="file: its metadata is not JSON"):
        container.read(tmp_path / "file")


def test_unknown_key_in_the_preprocess_metadata_names_the_nearest(tmp_path: Path) -> None:
    stated = {"height": 16, "width": 16, "colour": "gray", "mean": [0.5], "std": [0.25]}
    save_file(weights(), tmp_path / "file", {container.PREPROCESS_KEY: json.dumps(stated)})

    with pytest.raises(RequestError, match=r"file: deploykit\.preprocess: unknown key 'colour'") as caught:
        container.read(tmp_path / "file")

    assert caught.value.hint == "did you mean 'color'?"


@pytest.mark.parametrize("stated", ['["stem_stride"]', "null", "3"])
def test_facts_that_are_no_table_are_refused(stated: str, tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "file", {container.FACTS_KEY: stated})

    with pytest.raises(RequestError, match=r"deploykit\.densenet"):
        checkpoint.read(tmp_path / "file")


@pytest.mark.parametrize("stated", [{"stem_stride": "2"}, {"stem_stride": 0}, {"eps": -1}, {"stem_strid": 2}])
def test_facts_of_a_wrong_kind_are_refused(stated: dict[str, Any], tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "file", {container.FACTS_KEY: json.dumps(stated)})

    with pytest.raises(RequestError, match=rf"deploykit\.densenet.*{next(iter(stated))}"):
        checkpoint.read(tmp_path / "file")
