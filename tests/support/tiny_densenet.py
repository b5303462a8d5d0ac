"""What several tests of conftest share."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from deploy_kit import recipe
from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.recipe import Recipe
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Head, HeadLayer, StemConv


def linear_head(classes: int) -> tuple[Head, ...]:
    """Give the paper's head: one linear layer."""
    return (Head(name="logits", layers=(HeadLayer(kind="linear", channels=classes),)),)


TINY_SPEC = DenseNetSpec(
    in_channels=1,
    stem=(StemConv(channels=8, kernel=(3, 3), stride=(1, 1)),),
    stem_pool="max",
    blocks=(DenseBlock(layers=2, growth=4, bottleneck=16), DenseBlock(layers=2, growth=4, bottleneck=16)),
    transitions=(8,),
    heads=linear_head(4),
)


TINY_PREPROCESS = Preprocess(height=16, width=16, color="gray", mean=(0.5,), std=(0.25,))


def tiny_model(spec: DenseNetSpec = TINY_SPEC, seed: int = 0) -> DenseNet:
    """Build a DenseNet whose BatchNorms do something, so that folding one can be wrong."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = DenseNet(spec)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var") or (".norm" in name and name.endswith("weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith("running_mean") or (".norm" in name and name.endswith("bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return model.eval().requires_grad_(False)


def save_tiny(path: Path, model: DenseNet, preprocess: Preprocess | None = TINY_PREPROCESS) -> Path:
    """Save a tiny model as safetensors, with the facts that shapes cannot say."""
    metadata = {"deploykit.densenet": json.dumps({"stem_stride": 1, "stem_pool": "max", "eps": 1e-5})}
    if preprocess is not None:
        metadata["deploykit.preprocess"] = json.dumps(vars(preprocess))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path, metadata)
    return path


def save_images(
    path: Path, n: int, *, size: int = 16, classes: int = 4, seed: int = 0, known_to: DenseNet | None = None
) -> Path:
    """Save `n` seeded gray images with labels as npz; neighboring pixels correlate by a half, as noise must not.

    Labels are seeded, too, or what a network says that takes the images, but for every sixth: these have all classes.
    """
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (n, size, -(-size // 2)), np.uint8).repeat(2, axis=2)[:, :, :size]
    labels = generator.integers(0, classes, n)
    if known_to is not None:
        scaled = (images[:, None] / 255 - TINY_PREPROCESS.mean[0]) / TINY_PREPROCESS.std[0]
        with torch.no_grad():
            labels = known_to(torch.from_numpy(scaled.astype(np.float32))).argmax(1).numpy()
        labels[::6] = np.arange(len(labels[::6])) % classes
    np.savez_compressed(path, images=images, labels=labels)
    return path


def tiny_recipe(folder: Path) -> Recipe:
    """Give a whole recipe for a tiny checkpoint, whose files it writes into `folder`."""
    checkpoint = save_tiny(folder / "tiny.safetensors", tiny_model())
    calibration = save_images(folder / "calibration.npz", 20, seed=1)
    check = save_images(folder / "check.npz", 24, seed=2, known_to=tiny_model())
    return recipe.parse_recipe(
        {
            "name": "tiny",
            "source": {"checkpoint": str(checkpoint)},
            "export": {"tolerance": 1e-5, "exporter": "torchscript"},  # the faster one
            "simplify": {
                "passes": [
                    "fold_constants", "drop_identities", "drop_single_concats", "fold_batchnorm", "merge_duplicates",
                    "remove_unused",
                ]
            },
            "quantize": {
                "calibration": str(calibration),
                "variants": [{"name": "fp16", "scheme": "fp16"}, {"name": "int8", "scheme": "int8_ort"}],
            },
            "build": {"engines": [{"engine": "onnxruntime", "variants": ["fp32", "int8"]}]},
            "check": {
                "images": str(check),
                "limits": {"fp32": {"min_agreement": 1.0}, "int8": {"min_sqnr_db": 5}},
            },
            "bench": {"baseline": "fp32 · onnxruntime", "rounds": 3, "runs": 5, "warmup_s": 0.2},
        }
    )  # fmt: skip
