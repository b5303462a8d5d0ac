"""Tests of files beside weights: timm's config.json, Hugging Face's processor, MONAI's bundle."""

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import save_safetensors, weights

from deploy_kit import checkpoint
from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.facts import StatedFacts
from deploy_kit.checkpoint.record import Checkpoint
from deploy_kit.checkpoint.stated_options import sidecar_digests
from deploy_kit.records.artifacts import Preprocess

CFG = {
    "input_size": [3, 64, 64], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop_pct": 0.875,
    "interpolation": "bicubic",
}  # fmt: skip
NAMES = ["ant", "bee", "cat", "dog", "eel"]


def beside(folder: Path, tables: dict[str, Any], home: str = "") -> Path:
    """Write weights and the tables around them, each under its path from `folder`."""
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(table if isinstance(table, str) else json.dumps(table))
    (folder / home).mkdir(exist_ok=True)
    save_safetensors(weights(), folder / home / "model.safetensors")
    return folder / home / "model.safetensors"


def read(path: Path, **stated: Any) -> Checkpoint:
    return checkpoint.read_checkpoint(path, StatedFacts(**stated))


def test_timms_config_gives_preprocessing_and_classes(tmp_path: Path) -> None:
    network = read(beside(tmp_path, {"config.json": {"pretrained_cfg": CFG, "label_names": NAMES}}))

    assert network.preprocess == Preprocess(
        height=64, width=64, color="rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=73,
        interpolation="bicubic",
    )  # fmt: skip
    assert network.classes == tuple(NAMES)
    assert network.remarks[-1] == "preprocessing, classes: taken from 'config.json' beside it"


def test_hugging_faces_processor_and_labels_are_read(tmp_path: Path) -> None:
    processor = {
        "do_normalize": True, "do_center_crop": True, "size": {"shortest_edge": 72}, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25], "crop_size": {"height": 64, "width": 48}, "resample": 3,
    }  # fmt: skip
    labels = {str(place): name for place, name in enumerate(NAMES)}

    network = read(beside(tmp_path, {"config.json": {"id2label": labels}, "preprocessor_config.json": processor}))

    assert network.preprocess == Preprocess(
        height=64, width=48, color="rgb", mean=(0.5,) * 3, std=(0.25,) * 3, resize=72, interpolation="bicubic"
    )
    assert network.classes == tuple(NAMES)


def test_monais_bundle_gives_sides_and_classes(tmp_path: Path) -> None:
    outputs = {"pred": {"channel_def": {str(place): name for place, name in enumerate(NAMES)}}}
    data = {"inputs": {"image": {"num_channels": 3, "spatial_shape": [96, 96]}}, "outputs": outputs}

    path = beside(tmp_path, {"configs/metadata.json": {"network_data_format": data}}, home="models")
    network = read(path)

    assert network.sides == ((96, 96), "configs/metadata.json")
    assert network.classes == tuple(NAMES)
    assert len(sidecar_digests(path)) == 1


@pytest.mark.parametrize(
    ("table", "remark"),
    [
        ({"label_names": NAMES[:3]}, "'config.json' beside it is of 3 classes, the network has 5: not read"),
        ({"label_names": NAMES[:1], "pretrained_cfg": CFG}, "of 1 classes, the network has 5: not read"),
    ],
    ids=["classes", "classes and images"],
)
def test_config_of_another_network_is_not_read(table: dict[str, Any], remark: str, tmp_path: Path) -> None:
    network = read(beside(tmp_path, {"config.json": table}))

    assert (network.preprocess, network.classes) == (None, None)
    assert remark in network.remarks[-1]


@pytest.mark.parametrize(
    "text",
    ["", "[", "[" * 100_000, "null", '{"pretrained_cfg": 3}', '{"pretrained_cfg": {"mean": "x"}}', '{"id2label": 1}'],
    ids=range(7),
)
def test_file_of_another_kind_is_passed_over(text: str, tmp_path: Path) -> None:
    network = read(beside(tmp_path, {"config.json": text}))

    assert (network.preprocess, network.classes) == (None, None)


def test_file_and_its_neighbour_that_contradict_each_other_are_asked_about(tmp_path: Path) -> None:
    path = beside(tmp_path, {"config.json": {"pretrained_cfg": CFG}})
    stated = {"height": 32, "width": 32, "color": "rgb", "mean": [0.5] * 3, "std": [0.5] * 3}
    from safetensors.torch import save_file

    save_file({name: one.contiguous() for name, one in weights().items()}, path,
              {"deploykit.preprocess": json.dumps(stated)})  # fmt: skip

    with pytest.raises(CheckpointError, match=r"states another preprocessing than 'config\.json' beside it") as caught:
        read(path)

    assert "--mean" in caught.value.hint
    assert read(path, preprocess_stated=True).preprocess is not None
