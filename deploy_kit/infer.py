"""Run preprocessed images through an engine in a worker, a few at a time: memory and disk stay constant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.devices import Connection
from deploy_kit.images import Crops, ImageSet, mean_of_crops
from deploy_kit.records import BareInput, Preprocess

_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Target:
    """An engine file to run: the catalogue's name, the file, the engine's options."""

    engine: str
    path: Path
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """Logits (n, classes) float32 in the order of the images, and what the engine was set to."""

    logits: np.ndarray
    settings: tuple[tuple[str, str], ...]


def run(
    link: Connection,
    target: Target,
    image_set: ImageSet,
    preprocess: Preprocess | BareInput,
    *,
    batch: int = 32,
    crops: Crops = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Inferred:
    """Infer all images of a set.

    Args:
        link: Where.
        target: With what.
        image_set: On what.
        preprocess: How images become the input.
        batch: Images per run, where the engine leaves that open.
        crops: Of each image, whose logits are averaged: 1, or 10 (`images.ten_crops`).
        progress: Called with the number of images done.

    Raises:
        EngineCrashError: The engine's native code killed the worker.
        DeployKitError: What the engine refused.
    """
    logits, done = [], 0
    inputs, about = link.folder / "images.npy", str(target.path)
    with link.worker() as worker:
        path = link.send(target.path, keep=True)
        opened = worker.ask("open", about, engine=target.engine, path=path, options=dict(target.options))
        for chunk in image_set.batches(preprocess, max(1, _CHUNK // crops), crops):
            np.save(inputs, chunk)
            with link.outbox(link.folder) as outbox:
                outputs = f"{outbox}/logits.npy"
                worker.ask("infer", about, inputs=link.send(inputs), outputs=outputs, batch=batch)
            logits.append(mean_of_crops(np.load(link.folder / "logits.npy"), crops))
            done += len(chunk) // crops
            progress(done)
    return Inferred(logits=np.concatenate(logits), settings=tuple(sorted(opened["settings"].items())))
