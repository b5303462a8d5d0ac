"""Tests of folders and parts in the place of a checkpoint: each cure that is named makes the file that is read."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoint_files import save_zip, weights
from safetensors.torch import save_file

from deploy_kit.base.errors import CheckpointError, InputError
from deploy_kit.checkpoint.formats import container


def cured(command: str, folder: Path) -> None:
    import sys

    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run(command, shell=True, cwd=folder, check=True, env={"PATH": path}, capture_output=True)


def same(path: Path) -> bool:
    tensors = container.read_contents(path).tensors
    return all(torch.equal(tensors[name], one) for name, one in weights().items())


def parts(folder: Path) -> Path:
    folder.mkdir()
    rows, table = sorted(weights().items()), {}
    for place, chunk in enumerate((rows[:20], rows[20:]), start=1):
        name = f"model-{place:05}-of-00002.safetensors"
        save_file({key: one.contiguous() for key, one in chunk}, folder / name)
        table |= {key: name for key, _ in chunk}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return folder


def hint_of(path: Path, error: type[Exception], match: str) -> str:
    with pytest.raises(error, match=match) as caught:
        container.read_contents(path)
    return str(caught.value.hint)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_parts_of_a_safetensors_checkpoint_are_merged_by_the_command_that_is_named(tmp_path: Path) -> None:
    folder = parts(tmp_path / "a hub's $(touch x)")
    whole = hint_of(folder, InputError, "expected a file, found a safetensors checkpoint in parts")
    one = hint_of(folder / "model-00002-of-00002.safetensors", CheckpointError, "part 2 of a checkpoint in 2 parts")

    cured(whole.removeprefix("merge them: "), tmp_path)

    assert one == whole
    assert not (tmp_path / "x").exists()
    assert same(tmp_path / "merged.safetensors")


def test_unpacked_torch_file_is_packed_by_the_command_that_is_named(tmp_path: Path) -> None:
    save_zip(weights(), tmp_path / "net.pth")
    with zipfile.ZipFile(tmp_path / "net.pth") as archive:
        archive.extractall(tmp_path)
    (tmp_path / "net.pth").unlink()
    hint = hint_of(tmp_path / "net", InputError, "found an unpacked torch file")

    cured(hint.removeprefix("pack it again: "), tmp_path)

    assert same(tmp_path / "net.pth")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_distributed_checkpoint_is_made_one_file_by_the_command_that_is_named(tmp_path: Path) -> None:
    from torch.distributed import checkpoint as distributed

    distributed.save(weights(), checkpoint_id=tmp_path / "steps", no_dist=True)
    hint = hint_of(tmp_path / "steps", InputError, "found a distributed checkpoint of torch")

    cured(hint.removeprefix("make one file of it: "), tmp_path)

    assert same(tmp_path / "steps.pth")


def test_folder_with_one_file_of_weights_names_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()

    assert hint_of(tmp_path, InputError, "found a folder") == f"give the file in it: {tmp_path}/model.safetensors"
