"""Inference of preprocessed images by an engine in a worker, a few at a time, so that memory and disk stay constant."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.devices.links import Connection, Worker
from deploy_kit.images import Crops, ImageSet, mean_of_crops
from deploy_kit.images.arrays import write_npy
from deploy_kit.records.artifacts import Artifact, BareInput, Preprocess

_CHUNK, _CHUNK_BYTES = 256, 16 << 20


class UnavailableHere(Exception):  # noqa: N818  # no error: it carries an answer
    """The machine cannot run an engine; the text says why."""


@dataclass(frozen=True, kw_only=True)
class InferenceTarget:
    """An engine file to run.

    Attributes:
        engine: Name of the engine in the catalogue.
        path: Path of the engine's file on the host.
        options: Options of the engine.
        bounded: Whether the file came from somebody else: its worker is bounded in memory and processor time.
    """

    engine: str
    path: Path
    options: Mapping[str, Any]
    bounded: bool = False


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """Result of an inference.

    Attributes:
        logits: (n, classes) float32 logits, in the order of the images.
        settings: (name, value) of the settings that the engine reports.
    """

    logits: np.ndarray
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class LoadedEngine:
    """An engine that is loaded in a worker.

    Attributes:
        batch: Batch size of the engine; 0 where it is open.
        settings: (name, value) of the settings that the engine reports.
        ask: (images (n, C, H, W) float32, batch size where the engine leaves it open) → logits (n, classes) float32.
    """

    batch: int
    settings: tuple[tuple[str, str], ...]
    ask: Callable[[np.ndarray, int], np.ndarray]

    def all(
        self,
        image_set: ImageSet,
        preprocess: Preprocess | BareInput,
        *,
        batch: int = 32,
        crops: Crops = 1,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Inferred:
        """Run all images of a set.

        Args:
            image_set: Images to run.
            preprocess: How images become the input.
            batch: Images per run, where the engine leaves it open.
            crops: Crops of each image, whose logits are averaged: 1 or 10.
            progress: Called with the number of images done.
        """
        logits, done = [], 0
        for chunk in image_set.batches(preprocess, self._images_at_once(preprocess, batch, crops), crops):
            logits.append(mean_of_crops(self.ask(chunk, batch), crops))
            done += len(chunk) // crops
            progress(done)
        return Inferred(logits=np.concatenate(logits), settings=self.settings)

    def each(self, image_set: ImageSet, preprocess: Preprocess | BareInput, n_bytes: int) -> Iterator[np.ndarray]:
        """Run all images of a set and give the outputs of each, float32 without the batch axis.

        Args:
            image_set: Images to run.
            preprocess: How images become the input.
            n_bytes: Size of one image's outputs; as many images are run at once as keep them below `_CHUNK_BYTES`.
        """
        batch = max(1, min(32, _CHUNK_BYTES // max(n_bytes, 1)))
        size = self.batch or batch
        for chunk in image_set.batches(preprocess, min(size, self._images_at_once(preprocess, batch, 1))):
            yield from self.ask(chunk, batch)

    def _images_at_once(self, preprocess: Preprocess | BareInput, batch: int, crops: Crops) -> int:
        """Return how many images are prepared together: whole batches, in few enough bytes that they stay in caches."""
        shape = preprocess.shape if isinstance(preprocess, BareInput) else (3, preprocess.height, preprocess.width)
        room = min(_CHUNK, _CHUNK_BYTES // max(4 * math.prod(shape), 1)) // crops
        own = self.batch or batch
        return max(1, -(-max(room, 1) * crops // own) * own // crops)


def options_of(engine: Artifact) -> dict[str, Any]:
    """Return the options that an engine was built with, and is run with."""
    options: dict[str, Any] = json.loads(engine.options)
    return options


@contextlib.contextmanager
def loaded_engine(
    connection: Connection, target: InferenceTarget, *, ask_first: bool = False, worker: Worker | None = None
) -> Iterator[LoadedEngine]:
    """Load an engine in a worker, which ends with the block.

    Args:
        connection: Connection to the machine that runs the engine.
        target: Engine to load.
        ask_first: Whether the machine is asked first if it can run the engine at all.
        worker: Worker that takes this engine in the place of its last one and goes on after the block; by default a
            new one.

    Raises:
        UnavailableHere: It was asked, and cannot.
        EngineCrashError: The engine's native code killed the worker.
        DeployKitError: The engine refused its file or its options.
    """
    inputs, about = connection.folder / "images.npy", str(target.path)
    with connection.worker() if worker is None else contextlib.nullcontext(worker) as worker:
        why = worker.ask("why_unavailable", about, engine=target.engine)["why"] if ask_first else ""
        if why:
            raise UnavailableHere(why)
        path = connection.send(target.path, keep=True)
        opened = worker.ask(
            "open", about, engine=target.engine, path=path, options=dict(target.options), bounded=target.bounded
        )

        def ask(images: np.ndarray, batch: int) -> np.ndarray:
            write_npy(inputs, images)
            with connection.outbox(connection.folder) as outbox:
                outputs = f"{outbox}/logits.npy"
                worker.ask("infer", about, inputs=connection.send(inputs), outputs=outputs, batch=batch)
            return np.asarray(np.load(connection.folder / "logits.npy"))

        yield LoadedEngine(batch=int(opened["batch"]), settings=tuple(sorted(opened["settings"].items())), ask=ask)


def infer_all(
    connection: Connection,
    target: InferenceTarget,
    image_set: ImageSet,
    preprocess: Preprocess | BareInput,
    *,
    batch: int = 32,
    crops: Crops = 1,
    progress: Callable[[int], None] = lambda done: None,
    worker: Worker | None = None,
) -> Inferred:
    """Run all images of a set through an engine.

    Args:
        connection: Connection to the machine that runs the engine.
        target: Engine to run.
        image_set: Images to run.
        preprocess: How images become the input.
        batch: Images per run, where the engine leaves it open.
        crops: Crops of each image, whose logits are averaged: 1, or 10 (`images.ten_crops`).
        progress: Called with the number of images done.
        worker: See `loaded_engine`.

    Raises:
        EngineCrashError: The engine's native code killed the worker.
        DeployKitError: The engine refused its file, its options or the images.
    """
    with loaded_engine(connection, target, worker=worker) as engine:
        return engine.all(image_set, preprocess, batch=batch, crops=crops, progress=progress)
