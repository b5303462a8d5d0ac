"""Tests of `keras_file`, `keras_config`, `hdf5`: one net in Keras's three layouts; nothing outside the file is read."""

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from checkpoint_files import write, zip_bytes
from keras_files import densenet_config, expected_tensors, weights_3, write_keras_2, write_keras_3
from torch import Tensor

from deploy_kit.base.errors import CheckpointError, MissingPackageError
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source
from deploy_kit.checkpoint.formats import container

PLAIN = ArchitectureFacts(
    stem_stride=2, stem_pool="max", eps=1.001e-5, concat="append", transition_relu=True, transition_pool="avg",
    final_relu=True, activation="relu", outer_activation="relu", head_pool="avg", head_activation="none",
    dense_order="norm_first", transition_order="norm_first", final_order="norm_first",
    source=Source("file", "Keras config"),
)  # fmt: skip


def same(tensors: Mapping[str, Tensor]) -> bool:
    expected = expected_tensors()
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("named", [True, False])
def test_keras_archive_is_brought_into_torchs_convention(named: bool, tmp_path: Path) -> None:
    contents = container.read_contents(write_keras_3(tmp_path / "net", densenet_config(3), named=named))

    assert contents.kind == "Keras 3 (.keras)"
    assert same(contents.tensors)
    assert contents.facts == PLAIN


def test_keras_2_file_with_its_config_is_read(tmp_path: Path) -> None:
    contents = container.read_contents(write_keras_2(tmp_path / "net", densenet_config(2)))

    assert contents.kind == "Keras 2 HDF5"
    assert same(contents.tensors)
    assert contents.facts == PLAIN


def test_keras_2_weights_alone_state_nothing(tmp_path: Path) -> None:
    contents = container.read_contents(write_keras_2(tmp_path / "net"))

    assert same(contents.tensors)
    assert contents.facts == ArchitectureFacts()


def test_keras_2_layers_of_a_model_within_a_model_have_both_names(tmp_path: Path) -> None:
    contents = container.read_contents(write_keras_2(tmp_path / "net", nested="backbone/"))

    assert "stem.backbone.stem.weight" in contents.tensors


def test_keras_3_weights_alone_have_the_names_of_their_layers(tmp_path: Path) -> None:
    contents = container.read_contents(write(tmp_path / "net.weights.h5", weights_3(named=True)))

    assert contents.kind == "Keras 3 HDF5"
    assert same(contents.tensors)
    assert contents.facts == ArchitectureFacts()


def test_keras_3_weights_without_names_keep_the_automatic_ones(tmp_path: Path) -> None:
    contents = container.read_contents(write(tmp_path / "net.weights.h5", weights_3(named=False)))

    assert "batch_normalization_3.running_mean" in contents.tensors
    assert len(contents.tensors) == len(expected_tensors())


@pytest.mark.slow
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"prepend": True}, {"concat": "prepend"}),
        ({"transition_linear": True}, {"transition_relu": False, "transition_order": None}),
        ({"final_linear": True}, {"final_relu": False, "final_order": None}),
        ({"pool": "MaxPooling2D"}, {"transition_pool": "max"}),
        ({"eps": 1e-3}, {"eps": 1e-3}),
        ({"output": "softmax"}, {"head_activation": "softmax"}),
        ({"output": "sigmoid"}, {"head_activation": "sigmoid"}),
        ({"before": ("RandomFlip", "Dropout")}, {}),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_config_states_the_facts(version: int, options: dict[str, Any], facts: dict[str, Any], tmp_path: Path) -> None:
    contents = container.read_contents(write_keras_2(tmp_path / "net", densenet_config(version, **options)))

    assert contents.facts == ArchitectureFacts(**vars(PLAIN) | facts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"before": ("Rescaling",)}, "its graph computes 'Rescaling', for which a DenseNet has no place"),
        ({"before": ("Lambda",)}, "its graph computes 'Lambda'"),
        ({"stem_padding": "same"}, "a convolution with kernel 7, stride 2 and padding uneven, which is not supported"),
        ({"pad": [[2, 3], [2, 3]]}, "padding uneven"),
        ({"pad": 2}, "a convolution with kernel 7, stride 2 and padding 2"),
        ({"output": "exotic"}, "its graph computes 'exotic'"),
    ],
    ids=["rescaling", "lambda", "same", "uneven", "too little", "activation"],
)
def test_config_of_more_than_a_densenet_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_keras_2(tmp_path / "net", densenet_config(2, **options))

    with pytest.raises(CheckpointError, match=message) as caught:
        container.read_contents(path)

    assert caught.value.hint == "export it to ONNX with the framework it comes from, and give that file"


@pytest.mark.slow
@pytest.mark.parametrize("config", [{"class_name": "MyNet", "config": {}}, [], {"config": {"layers": [{}]}}])
def test_config_of_a_model_of_its_own_states_nothing(config: Any, tmp_path: Path) -> None:
    contents = container.read_contents(write_keras_3(tmp_path / "net", config))

    assert contents.facts == ArchitectureFacts()
    assert len(contents.tensors) == len(expected_tensors())


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000])
def test_config_that_is_not_json_is_called_damaged(text: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "net", zip_bytes({"config.json": text, "model.weights.h5": weights_3(named=True)}))

    with pytest.raises(CheckpointError, match="truncated or incomplete: its config is not JSON"):
        container.read_contents(path)


@pytest.mark.slow
def test_bn_without_scale_is_read_by_its_config_and_refused_without(tmp_path: Path) -> None:
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        for place in range(3):
            root.create_dataset(f"layers/batch_normalization/vars/{place}", data=np.full(4, place, np.float32))
    layer = {"class_name": "BatchNormalization", "config": {"name": "bn", "scale": False}}
    config = {"class_name": "Sequential", "config": {"layers": [layer]}}
    archive = {"config.json": json.dumps(config).encode(), "model.weights.h5": file.getvalue()}

    contents = container.read_contents(write(tmp_path / "net.keras", zip_bytes(archive)))

    assert list(contents.tensors) == ["bn.bias", "bn.running_mean", "bn.running_var"]
    with pytest.raises(CheckpointError, match="has 3 variables, a BN has 4: its scale or center may be off"):
        container.read_contents(write(tmp_path / "net.weights.h5", file.getvalue()))


def test_hdf5_that_keras_did_not_write_says_what_it_holds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file", "w") as root:
        root.create_dataset("images", data=np.zeros(4))

    with pytest.raises(CheckpointError, match="an HDF5 file that Keras did not write: it holds 'images'"):
        container.read_contents(tmp_path / "file")


def secret(folder: Path) -> Path:
    with h5py.File(folder / "secret.h5", "w") as other:
        other.create_dataset("numbers", data=np.ones((3, 3, 4, 4), np.float32))
        other.create_dataset("layers/conv2d/vars/0", data=np.ones((3, 3, 4, 4), np.float32))
    (folder / "secret.bin").write_bytes(bytes(1000))
    return folder / "secret.h5"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["external link", "soft link", "link of a group", "virtual dataset", "external data"])
def test_nothing_outside_the_file_is_read(way: str, tmp_path: Path) -> None:
    other = secret(tmp_path)
    with h5py.File(tmp_path / "file", "w") as root:
        variables = root.create_group("layers/conv2d/vars")
        if way == "external link":
            variables["0"] = h5py.ExternalLink(other, "numbers")
        elif way == "soft link":
            root["away"] = h5py.ExternalLink(other, "/")
            variables["0"] = h5py.SoftLink("/away/numbers")
        elif way == "link of a group":
            root["layers/dense"] = h5py.ExternalLink(other, "layers/conv2d")
        elif way == "virtual dataset":
            layout = h5py.VirtualLayout((3, 3, 4, 4), "f4")
            layout[:] = h5py.VirtualSource(other, "numbers", (3, 3, 4, 4))
            variables.create_virtual_dataset("0", layout)
        else:
            variables.create_dataset("0", (4, 4), "f4", external=[(str(tmp_path / "secret.bin"), 0, 64)])

    with pytest.raises(CheckpointError, match="inside it lies in another file"):
        container.read_contents(tmp_path / "file")


def test_dataset_that_claims_more_than_memory_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file", "w") as root:
        root.create_dataset("layers/conv2d/vars/0", (1 << 20, 1 << 20), "f8", chunks=(64, 64), compression="gzip")

    with pytest.raises(CheckpointError, match="unpacks to far more than its size, 8,796,093,022,208 bytes"):
        container.read_contents(tmp_path / "file")


def test_long_text_that_an_attribute_names_again_and_again_is_refused(tmp_path: Path) -> None:
    """2,000 texts of variable length that might each be the same megabyte of the file's heap."""
    with h5py.File(tmp_path / "file", "w") as root:
        root.attrs.create("layer_names", ["x" * (1 << 20)] + ["y"] * 2_000, dtype=h5py.string_dtype())
    data = (tmp_path / "file").read_bytes()
    assert data.count(b"GCOL") >= 2

    with pytest.raises(CheckpointError, match="refused: its attribute 'layer_names' is larger than any checkpoint's"):
        container.read_contents(tmp_path / "file")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import time; time.sleep(60)", r"reading it took more than 1 s$"),
        (
            "import resource, sys\n"
            "resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[3]), int(sys.argv[3]) + 1))\n"
            "while True: pass",
            r"reading it took more than 1 s of processor time",
        ),
        ("import os; os.abort()", "reading it ends the process that does"),
    ],
    ids=["waiting", "endless", "abort"],
)
def test_child_that_hangs_or_dies_is_an_error_here(
    program: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A few flipped bytes send libhdf5 into an endless loop: seen with 2.0."""
    (tmp_path / "stand_in_child.py").write_text(program)
    monkeypatch.setattr("deploy_kit.checkpoint.formats.keras_files.hdf5._CHILD", "stand_in_child")
    monkeypatch.setattr("deploy_kit.checkpoint.formats.keras_files.hdf5._SECONDS", 0)
    monkeypatch.setattr("deploy_kit.checkpoint.formats.keras_files.hdf5._WAITS", 1 if "sleep" in program else 30)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(CheckpointError, match=message):
        container.read_contents(write_keras_2(tmp_path / "net"))


def test_groups_nested_without_end_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file", "w") as root:
        root.create_group("layers/a/vars")
        root["layers/a/again"] = root["layers/a"]

    with pytest.raises(CheckpointError, match="its groups are nested without end"):
        container.read_contents(tmp_path / "file")


def test_missing_h5py_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_keras_2(tmp_path / "net")
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setattr("deploy_kit.base.lazy.present", lambda package: package != "h5py")

    with pytest.raises(MissingPackageError, match="reading a Keras file needs the package 'h5py'") as caught:
        container.read_contents(path)

    assert caught.value.hint == "pip install 'deploykit[keras]'"
