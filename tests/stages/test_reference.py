"""The checkpoint's own logits: kept by pixels, a part at a time, whatever labels and names are."""

from pathlib import Path

import numpy as np
import pytest
from tiny_densenet import TINY_PREPROCESS, save_images, save_tiny, tiny_model

from deploy_kit.checkpoint.network import torch_logits as network
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.images import open_set
from deploy_kit.recipe import SourceTable
from deploy_kit.records.artifacts import ReferenceLogits
from deploy_kit.stages import reference
from deploy_kit.store import Store


@pytest.fixture
def source(tmp_path: Path) -> SourceTable:
    return SourceTable(checkpoint=str(save_tiny(tmp_path / "tiny.safetensors", tiny_model())))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images of each part that torch computes; parts have 4 images."""
    counts: list[int] = []
    real = network.torch_logits

    def counted(model, images, preprocess, **options):  # type: ignore[no-untyped-def]
        counts.append(images.n)
        return real(model, images, preprocess, **options)

    monkeypatch.setattr(network, "torch_logits", counted)
    monkeypatch.setattr(reference, "_PART", 4)
    return counts


def answered(source: SourceTable, images: Path, store: Store, connection: Connection) -> ReferenceLogits:
    context = Context(store=store, connection=connection)
    return reference.run(source, TINY_PREPROCESS, context, images=open_set(str(images), TINY_PREPROCESS))[0]


def relabelled(images: Path, to: Path) -> Path:
    with np.load(images) as data:
        np.savez(to, images=data["images"], labels=(data["labels"] + 1) % 4)
    return to


def test_other_labels_and_another_name_compute_nothing_again(
    source: SourceTable, computed: list[int], store: Store, connection: Connection, tmp_path: Path
) -> None:
    images = save_images(tmp_path / "check.npz", 10)

    first = answered(source, images, store, connection)
    second = answered(source, relabelled(images, tmp_path / "again.npz"), store, connection)

    assert computed == [4, 4, 2]
    assert (first.images, second.images) == (str(images), str(tmp_path / "again.npz"))
    assert first.sha256 != second.sha256  # the labels are in it
    assert first.images_sha256 == open_set(str(images), TINY_PREPROCESS).digest != second.images_sha256
    with np.load(store.root / first.path) as one, np.load(store.root / second.path) as other:
        np.testing.assert_array_equal(one["logits"], other["logits"])


def test_the_parts_together_are_what_torch_computes_at_once(
    source: SourceTable, computed: list[int], store: Store, connection: Connection, tmp_path: Path
) -> None:
    images = save_images(tmp_path / "check.npz", 10)

    answers = answered(source, images, store, connection)

    whole = open_set(str(images), TINY_PREPROCESS)
    wanted = np.concatenate(list(network.torch_logits(tiny_model(), whole, TINY_PREPROCESS)))
    with np.load(store.root / answers.path) as data:
        np.testing.assert_allclose(data["logits"], wanted, atol=1e-6)


def test_an_interrupted_run_goes_on_where_it_was(
    source: SourceTable, computed: list[int], store: Store, connection: Connection, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    images = save_images(tmp_path / "check.npz", 10)
    counted = network.torch_logits

    def interrupted(model, part, preprocess, **options):  # type: ignore[no-untyped-def]
        if len(computed) == 2:
            raise KeyboardInterrupt
        return counted(model, part, preprocess, **options)

    monkeypatch.setattr(network, "torch_logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answered(source, images, store, connection)
    monkeypatch.setattr(network, "torch_logits", counted)

    answered(source, images, store, connection)

    assert computed == [4, 4, 2]


def test_one_changed_pixel_computes_its_part_again_and_no_other(
    source: SourceTable, computed: list[int], store: Store, connection: Connection, tmp_path: Path
) -> None:
    images = save_images(tmp_path / "check.npz", 10)
    answered(source, images, store, connection)
    with np.load(images) as data:
        pixels = data["images"].copy()
        pixels[5, 3, 3] ^= 255
        np.savez(tmp_path / "changed.npz", images=pixels, labels=data["labels"])

    answered(source, tmp_path / "changed.npz", store, connection)

    assert computed == [4, 4, 2, 4]
