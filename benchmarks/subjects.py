"""What is measured: DenseNets with seeded weights at 224×224 px, the bundled demo, a trained checkpoint.

Seeded weights have BatchNorm statistics of real images, so that activations, and with them the ranges that
quantizers see, are those of a working net. Their latency is representative, their accuracy is not.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploy_kit import checkpoint, images
from deploy_kit.base import bundled
from deploy_kit.base.errors import InputError
from deploy_kit.recipe import PreprocessTable, SourceTable
from deploy_kit.records.artifacts import Preprocess

CALIBRATION = "bundled:fashion-mnist-512"
TEST = "bundled:fashion-mnist-10000"
DEMO = "densenet_bc40_fmnist"
_SEED, _BN_IMAGES = 0, 32
_VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A net with its input.

    Attributes:
        name: For tables.
        source: Its checkpoint, with the preprocessing where the file does not carry it.
        preprocess: How images become its input.
        batch: Images per run; 0 leaves it open.
    """

    name: str
    source: SourceTable
    preprocess: Preprocess
    batch: int = 1

    @property
    def path(self) -> Path:
        """The checkpoint's file."""
        return bundled.resolve_bundled("models", self.source.checkpoint)

    def batched(self, batch: int) -> "Subject":
        """Return the same net with another batch."""
        return replace(self, batch=batch)


def imagenet(size: int) -> PreprocessTable:
    """ImageNet's preprocessing for images that are scaled to size×size px first."""
    return PreprocessTable(
        height=size, width=size, resize=size, color="rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )


def demo() -> Subject:
    """Return the bundled demo."""
    source = SourceTable(checkpoint=f"{bundled.PREFIX}{DEMO}")
    read = checkpoint.read_checkpoint(bundled.find_bundled("models", DEMO))
    assert read.preprocess is not None
    return Subject(name=f"{read.spec.title}, trained on Fashion-MNIST", source=source, preprocess=read.preprocess)


def trained(path: Path, size: int) -> Subject:
    """Return a checkpoint of the user's, at size×size px."""
    table = imagenet(size)
    source = SourceTable(checkpoint=str(path), preprocess=table)
    title = checkpoint.read_checkpoint(path).spec.title
    return Subject(name=f"{title}, {path.name}, {size}×{size} px", source=source, preprocess=table.record())


def seeded(name: str, folder: Path, size: int = 224) -> Subject:
    """Return a DenseNet with seeded weights; its checkpoint is written into `folder` once."""
    table = imagenet(size)
    path = folder / f"{name}-seed{_SEED}-{size}px-v{_VERSION}.safetensors"
    if not path.is_file():
        _write(name, path, table)
    return Subject(
        name=f"{name}, seeded weights, {size}×{size} px",
        source=SourceTable(checkpoint=str(path), preprocess=table),
        preprocess=table.record(),
    )


def subset(name: str, n: int, folder: Path) -> Path:
    """Write the first `n` images of a bundled set as npz into `folder`, once.

    Raises:
        InputError: The set has fewer.
    """
    path = folder / f"{name.removeprefix(bundled.PREFIX)}-first{n}.npz"
    if not path.is_file():
        with np.load(bundled.resolve_bundled("calibration", name), allow_pickle=False) as data:
            if n > len(data["images"]):
                raise InputError(f"{name}: asked for {n} images, found {len(data['images'])}")
            aside = path.with_suffix(f".{os.getpid()}.npz")
            np.savez_compressed(aside, images=data["images"][:n], labels=data["labels"][:n])
            aside.rename(path)
    return path


def _write(name: str, path: Path, table: PreprocessTable) -> None:
    """Draw weights, then let one forward pass over real images set the BatchNorm statistics."""
    import torch
    from safetensors.torch import save_file

    from deploy_kit.checkpoint.network import random_densenet
    from deploy_kit.checkpoint.network.densenet_module import DenseNet

    torch.manual_seed(_SEED)
    model = DenseNet(random_densenet.spec(name))
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = 1.0
    sample = images.open_set(CALIBRATION, table.record()).first(_BN_IMAGES)
    with torch.no_grad():
        model.train()(torch.from_numpy(next(sample.batches(table.record(), _BN_IMAGES))))
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    facts = {"deploykit.densenet": json.dumps({"stem_stride": 2, "stem_pool": "max", "eps": 1e-5})}
    aside = path.with_suffix(f".{os.getpid()}")
    save_file(tensors, aside, facts)
    aside.rename(path)
