"""An engine's outputs on a part of an image set, computed by another process that sees the same files."""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.base.errors import DeployKitError, DeviceError, InputError
from deploy_kit.base.whole_files import digest_of
from deploy_kit.devices import links
from deploy_kit.devices.inference import InferenceTarget, LoadedEngine, loaded_engine
from deploy_kit.devices.links import Connection, Worker
from deploy_kit.images import Crops, ImageSet, Orientation, part_of
from deploy_kit.records import codec
from deploy_kit.records.artifacts import BareInput, Preprocess

SIZE = 512
"""Least number of images of a part: loading the engine anew is little beside them."""


@dataclass(frozen=True, kw_only=True)
class OutputsRequest:
    """Outputs to compute wherever the same files are.

    Attributes:
        label: Label of the engine, for messages.
        engine: Name of the engine in the catalogue.
        path: Its file.
        sha256: Its hash (`whole_files.digest_of`).
        options: Its options.
        preprocess: How an image becomes the input.
        crops: Crops of each image.
        images: Name of the image set.
        reading: How images of the set are read: (skip_bad, orientation).
        hashes: sha256 of each image.
        processor: (cpu, instruction sets): another one adds in another order.
        settings: Settings that the engine reports where the request was made; others may give other bits.
    """

    label: str
    engine: str
    path: Path
    sha256: str
    options: Mapping[str, Any]
    preprocess: Preprocess | BareInput
    crops: Crops
    images: str
    reading: tuple[bool, Orientation | None]
    hashes: tuple[str, ...]
    processor: tuple[str, tuple[str, ...]]
    settings: tuple[tuple[str, str], ...]


def requests(
    target: InferenceTarget,
    images: ImageSet,
    preprocess: Preprocess | BareInput,
    *,
    label: str,
    batch: int,
    crops: Crops = 1,
    processor: tuple[str, tuple[str, ...]],
    settings: tuple[tuple[str, str], ...],
) -> tuple[OutputsRequest, ...]:
    """Cut a set into parts of whole batches, so that a part changes no bit.

    Args:
        target: The engine, its file and options.
        images: The set.
        preprocess: How an image becomes its input.
        label: Label of the engine, for messages.
        batch: Batch of the engine; 0 where it is open.
        crops: Crops of each image.
        processor: See `OutputsRequest`.
        settings: See `OutputsRequest`.
    """
    own = batch or 32
    size = -(-SIZE // own) * own
    whole = OutputsRequest(
        label=label, engine=target.engine, path=target.path.resolve(), sha256=digest_of(target.path),
        options=target.options, preprocess=preprocess, crops=crops, images=images.name,
        reading=(images.skip_bad, images.orientation), hashes=(), processor=processor, settings=settings,
    )  # fmt: skip
    return tuple(replace(whole, hashes=part.hashes) for part in images.parts(size))


def answer(request: OutputsRequest) -> np.ndarray:
    """Run a part of the set: (n, classes) float32.

    Raises:
        InputError: This process sees another engine or other images under the same names.
        DeviceError: The processor or the engine's settings are others here.
    """
    skip_bad, orientation = request.reading
    part = part_of(request.images, request.preprocess, request.hashes, skip_bad=skip_bad, orientation=orientation)
    try:
        return _loaded(request).all(part, request.preprocess, crops=request.crops).logits
    except DeployKitError:  # its child may be dead, and is not to outlive what is refused
        _release()
        raise


@dataclass(frozen=True, kw_only=True)
class _Child:
    """A child process that this process has for engines, one at a time, and the engine in it."""

    connection: Connection
    worker: Worker
    stack: contextlib.ExitStack
    engines: dict[str, LoadedEngine] = field(default_factory=dict)


@functools.lru_cache(maxsize=1)
def _child() -> _Child:
    """Start the child once for all parts: for a small network that takes longer than a part."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(links.connect_device(links.LOCAL))
        worker = stack.enter_context(connection.worker())
        return _Child(connection=connection, worker=worker, stack=stack.pop_all())


def _release() -> None:
    if _child.cache_info().currsize:
        _child().stack.close()
        _child.cache_clear()


def _loaded(request: OutputsRequest) -> LoadedEngine:
    """Return the engine of a request, loaded in the place of the last one where it is another."""
    child = _child()
    key = codec.canonical_json([request.engine, request.sha256, request.options, request.settings])
    if key not in child.engines:
        if not request.path.is_file() or digest_of(request.path) != request.sha256:
            raise InputError(
                f"{request.path}: a worker sees another file here",
                hint="put the store on a folder that every machine shares: --store FOLDER",
            )
        here = child.connection.environment
        _expect(request.label, "processor", request.processor, (here.cpu, tuple(here.isa)))
        child.engines.clear()
        target = InferenceTarget(engine=request.engine, path=request.path, options=request.options)
        with loaded_engine(child.connection, target, worker=child.worker) as opened:
            _expect(request.label, "settings", request.settings, opened.settings)
            child.engines[key] = opened
    return child.engines[key]


def _expect(label: str, what: str, wanted: object, found: object) -> None:
    if wanted != found:
        raise DeviceError(
            f"{label}: a worker has other {what} than the machine that checks: expected {wanted}, found {found}",
            hint="check on machines of one kind, or without --on",
        )
