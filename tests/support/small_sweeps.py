"""A sweep over tiny DenseNets, and its files."""

import json
from pathlib import Path
from typing import Any

import yaml
from tiny_densenet import save_images, save_tiny, tiny_model

QUICK = {"rounds": 3, "runs": 7, "warmup_s": 0.01}


def small_sweep(folder: Path, n: int = 2, **keys: Any) -> Path:
    """Write a sweep of `n` tiny checkpoints on this machine, with `keys` over it, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {
        "name": "base",
        "source": {"checkpoint": "replaced"},
        "export": {"tolerance": 1e-5, "exporter": "torchscript"},
        "simplify": {"passes": "default"},
        "quantize": {"calibration": str(save_images(folder / "calibration.npz", 20, seed=1))},
        "build": {"engines": []},
        "check": {
            "images": str(save_images(folder / "check.npz", 24, seed=2)),
            # The labels are seeded: no network is right on more than chance gives, and the limits say so.
            "limits": {"fp32": {"min_agreement": 1.0, "min_top1": 0.01}, "int8": {"min_sqnr_db": 5, "min_top1": 0.01}},
        },
        "bench": QUICK,
    }
    (folder / "base.yaml").write_text(json.dumps(recipe))
    table = {
        "name": "small",
        "recipe": str(folder / "base.yaml"),
        "checkpoints": [str(save_tiny(folder / f"net{k}.safetensors", tiny_model(seed=k))) for k in range(n)],
        "variants": ["fp32", "int8"],
        "engines": ["onnxruntime", "openvino"],
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(table | keys))
    return folder / "sweep.yaml"
