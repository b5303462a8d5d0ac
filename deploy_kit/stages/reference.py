"""Checkpoint → its own outputs on real images: what every engine is held against.

Computed in torch; of an ONNX file in ONNX Runtime, node by node, without its graph optimizer.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploy_kit import checkpoint
from deploy_kit.accuracy import metrics, tasks
from deploy_kit.base import bundled
from deploy_kit.base.errors import InputError
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.checkpoint import Checkpoint
from deploy_kit.checkpoint.stated_options import probe_digest, stated_of_graph, stated_options
from deploy_kit.context import Context
from deploy_kit.devices import inference, task_comparison
from deploy_kit.graph import adoption, onnx_bounds, onnx_file
from deploy_kit.images import Crops, ImageSet, Orientation, check_sets, npz, part_of
from deploy_kit.images.arrays import write_npy
from deploy_kit.machine.environment import versions_of
from deploy_kit.parallel import ONE_PROCESS
from deploy_kit.recipe import CheckTable, SourceTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import BareInput, LogitsPart, Preprocess, ReferenceLogits
from deploy_kit.records.made_by import MadeBy
from deploy_kit.store import Key

VERSION = "6"
_PART = 512  # images; a whole number of torch's batches, so that a part changes no bit


@dataclass(frozen=True, kw_only=True)
class TaskWish:
    """What a user says of outputs and labels.

    Attributes:
        task: Name of the task; None for the one that the output's shape suggests.
        ignore_index: Class number of masks that is not judged.
    """

    task: str | None = None
    ignore_index: int | None = None


def wish_of(table: CheckTable) -> TaskWish:
    """Return what a recipe says of outputs and labels."""
    return TaskWish(task=table.task, ignore_index=table.ignore_index)


def run(
    source: SourceTable,
    preprocess: Preprocess | BareInput,
    context: Context,
    *,
    images: ImageSet,
    crops: Crops = 1,
    wish: TaskWish = TaskWish(),
) -> tuple[ReferenceLogits, bool]:
    """Compute the checkpoint's logits on a set of images.

    Args:
        source: The checkpoint, and what was said of it.
        preprocess: How an image becomes the input.
        context: Where.
        images: The check set.
        crops: Crops of each image, whose logits are averaged: 1 or 10.
        wish: What the user says of outputs and labels.

    Returns:
        The logits, and whether the store had them.

    Raises:
        InputError: The checkpoint has several heads, or the labels are not of its classes or of the task.
    """
    path = bundled.resolve_bundled("models", source.checkpoint)
    digest = sha256_of(path)
    left_out = (("left out", images.left_out),) if images.left_out else ()
    if left_out:
        context.report("reference", images.left_out)
    authority = "onnxruntime" if onnx_bounds.is_onnx(path) else "torch"
    preprocess = _of_the_checkpoint(path, preprocess, authority)
    versions = versions_of(authority)

    def make(folder: Path, home: str) -> ReferenceLogits:
        made_by = MadeBy(versions=versions, left_out=images.left_out)
        found = _output(source, path, preprocess, images, wish)
        task, task_from = tasks.choose_task(wish.task, found.shape, multilabel=images.multilabel)
        if tasks.CATALOGUE.get(task).scoring is not None:
            record = ReferenceLogits(
                path=f"{home}/answers.npy",
                sha256="",
                images=images.name,
                n=images.n,
                labelled=False,
                top1=None,
                made_by=made_by,
                skipped=len(images.skipped),
                crops=crops,
                images_sha256=images.digest,
                task=task,
                task_from=task_from,
                ignore_index=wish.ignore_index,
                classes=found.classes,
            )
            return _streamed(folder / "answers.npy", record, found, images, preprocess, context)
        _verify_wish(task, wish, images)
        logits = _logits(source, path, preprocess, context, images=images, crops=crops)
        return _written(folder, home, logits, images, made_by=made_by, crops=crops)

    return context.produce(
        ReferenceLogits,
        make,
        stage="answers",
        name=images.name.removeprefix(bundled.PREFIX).replace("/", "_")[-40:],
        inputs=(digest, images.digest, *probe_digest(source), *onnx_file.data_digests(path)),
        options=[
            images.name,
            images.files,
            images.classes,
            preprocess,
            stated_options(source),
            *left_out,
            *([crops] if crops > 1 else []),
            *([wish] if wish != TaskWish() else []),
        ],
        versions=(("stage", VERSION), *versions),
    )


@dataclass(frozen=True, kw_only=True)
class _OwnOutput:
    """The checkpoint's output.

    Attributes:
        shape: Shape of one image's.
        classes: Names of the classes that the file states.
        each: (images, folder for files, context, preprocess) → the output of each image.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    each: Callable[[ImageSet, Path, Context, Preprocess | BareInput], Iterator[np.ndarray]]


def _output(
    source: SourceTable, path: Path, preprocess: Preprocess | BareInput, images: ImageSet, wish: TaskWish
) -> _OwnOutput:
    if onnx_bounds.is_onnx(path):
        model = adoption.adopt(path, stated_of_graph(source)).model
        value = model.graph.outputs[0]
        axes = () if value.shape is None else onnx_file.specs((value,))[0].shape
        if len(axes) != 2 and any(not isinstance(side, int) for side in axes[1:]):
            raise InputError(
                f"{path}: its output '{value.name}' has open sides: {list(axes)}",
                hint="name the input's size, which they follow from: --input HxW",
            )
        # Of rows the class path measures whatever their length; other shapes are known by now.
        shape = tuple(side if isinstance(side, int) else 0 for side in axes[1:]) or (0,)

        def each(part: ImageSet, folder: Path, context: Context, taken: Preprocess | BareInput) -> Iterator[np.ndarray]:
            onnx_file.save(model, folder / "model.onnx")
            target = inference.InferenceTarget(
                engine="onnxruntime", path=folder / "model.onnx", options={"optimize": False}
            )
            with inference.loaded_engine(context.connection, target) as engine:
                yield from engine.each(part, taken, 4 * math.prod(shape))

        return _OwnOutput(shape=shape, classes=onnx_file.classes(model) or images.classes, each=each)
    from deploy_kit.checkpoint.network.torch_logits import torch_logits

    network = _network_once(path, sha256_of(path), codec.canonical_json(source.model_dump()))
    if wish.task is None and network.spec.decoder is None:  # it ends in a row of classes
        return _OwnOutput(shape=(0,), classes=images.classes, each=lambda *_: iter(()))
    first = next(torch_logits(network.model, images.first(1), preprocess))

    def rows(part: ImageSet, folder: Path, context: Context, taken: Preprocess | BareInput) -> Iterator[np.ndarray]:
        for batch in torch_logits(network.model, part, taken):
            yield from batch

    return _OwnOutput(shape=first.shape[1:], classes=tuple(network.classes or images.classes), each=rows)


def _streamed(
    file: Path,
    record: ReferenceLogits,
    found: _OwnOutput,
    images: ImageSet,
    preprocess: Preprocess | BareInput,
    context: Context,
) -> ReferenceLogits:
    """Write the outputs of each image to an npy file, one at a time, once all labels fit."""
    scoring = tasks.scoring_of(record.task)
    if record.crops > 1:
        raise InputError(f"task '{record.task}': expected one crop an image, found {record.crops}", hint="--crops 1")
    if record.ignore_index is not None and scoring.labels != "masks":
        raise InputError(f"--ignore-index is about masks, and task '{record.task}' takes {scoring.labels}")
    labelled = task_comparison.takes_labels(scoring, images)
    settings = tasks.TaskSettings(shape=found.shape, ignore_index=record.ignore_index, classes=found.classes)
    case = task_comparison.TaskCase(
        scoring=scoring, settings=settings, images=images, preprocess=preprocess, labelled=labelled
    )
    for index in range(images.n if labelled else 0):
        case.label(index)  # what does not fit is said before minutes are spent
    low, high = math.inf, -math.inf
    outputs = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(images.n, *found.shape))
    with file.open("r+b") as held:  # on a full disk a mapped page that is not reserved ends the process
        os.posix_fallocate(held.fileno(), 0, file.stat().st_size)
    with temporary_folder() as folder:
        for index, output in enumerate(found.each(images, folder, context, preprocess)):
            outputs[index] = output
            low, high = min(low, float(output.min())), max(high, float(output.max()))
            context.report("reference", "computing the checkpoint's outputs", done=index + 1, total=images.n)
    outputs.flush()
    if low == high == 0 or not math.isfinite(low - high):
        raise InputError(
            f"{images.name}: the checkpoint's outputs are {'all zero' if low == high else 'no finite numbers'}",
            hint="its weights look untrained or damaged: export it again with those of the training",
        )
    return replace(record, sha256=sha256_of(file), labelled=labelled, probabilities=low >= 0 and high <= 1)


def _verify_wish(task: str, wish: TaskWish, images: ImageSet) -> None:
    """Refuse labels and options that are of another task than one row of classes an image."""
    several = "multilabel" if images.multilabel else "classify"
    if wish.task is not None and images.labels is not None and task != several:
        raise InputError(
            f"{images.name}: task '{task}' is stated, and its labels are of task '{several}'",
            hint=f"leave --task out, or say --task {several}",
        )
    if wish.ignore_index is not None or images.truth is not None:
        kind = images.truth.kind if images.truth is not None else "--ignore-index"
        raise InputError(
            f"{images.name}: {kind} do not belong to task '{task}'", hint="give class numbers as labels, or --task"
        )


def _of_the_checkpoint(path: Path, preprocess: Preprocess | BareInput, authority: str) -> Preprocess | BareInput:
    """Return how images become the checkpoint's own input: normalized, unless it is a graph that takes pixels."""
    if authority == "torch" or preprocess == preprocess.normalized:
        return preprocess.normalized
    carried = onnx_file.preprocess(onnx_file.load(path))
    return preprocess if carried is not None and carried.input_pixels else preprocess.normalized


def _written(
    folder: Path,
    home: str,
    logits: np.ndarray,
    images: ImageSet,
    *,
    made_by: MadeBy | None = None,
    crops: Crops = 1,
) -> ReferenceLogits:
    """Write logits (n, classes) beside the labels of their images, and return their record."""
    arrays, top1 = {"logits": logits}, None
    if images.labels is not None:
        arrays["labels"] = images.labels
        top1 = None if images.multilabel else float(metrics.top1_hits(logits, images.labels).mean())
    np.savez(folder / "answers.npz", **arrays)  # type: ignore[arg-type]  # numpy types only keyword flags
    return ReferenceLogits(
        path=f"{home}/answers.npz",
        sha256=sha256_of(folder / "answers.npz"),
        images=images.name,
        n=images.n,
        labelled=images.labels is not None,
        top1=top1,
        made_by=made_by or MadeBy(),
        skipped=len(images.skipped),
        crops=crops,
        images_sha256=images.digest,
    )


def of_file(file: Path, images: ImageSet, context: Context) -> tuple[ReferenceLogits, bool]:
    """Take logits that were computed elsewhere as the reference, e.g. a bundle's golden outputs.

    Args:
        file: npz file with ``logits`` (n, classes) float32.
        images: The images that they are of, in their order.
        context: Where.

    Raises:
        InputError: Not such a file, of another number of images, or not finite.
    """
    logits = npz.read_logits(file)
    if len(logits) != images.n:
        raise InputError(f"{file}: logits of {len(logits)} images, and {images.name} has {images.n}")

    def make(folder: Path, home: str) -> ReferenceLogits:
        check_sets.verify_labels(images, logits.shape[1])
        return _written(folder, home, logits, images)

    return context.produce(
        ReferenceLogits,
        make,
        stage="answers",
        name=file.name.split(".")[0],
        inputs=(sha256_of(file), images.digest),
        options=["given", images.name],
        versions=(("stage", VERSION),),
    )


def _logits(
    source: SourceTable,
    path: Path,
    preprocess: Preprocess | BareInput,
    context: Context,
    *,
    images: ImageSet,
    crops: Crops,
) -> np.ndarray:
    """Return the logits (n, classes); each part of the set is kept by its pixels, without labels and names."""
    authority, digest = "onnxruntime" if onnx_bounds.is_onnx(path) else "torch", sha256_of(path)
    network: Checkpoint | None = None
    parts, done = list[np.ndarray](), 0

    def on_batch(n: int) -> None:
        context.report("reference", "computing the checkpoint's logits", done=done + n, total=images.n)

    def compute(part: ImageSet) -> np.ndarray:
        nonlocal network
        if authority == "onnxruntime":
            graph = folder / "model.onnx"
            if not graph.is_file():
                _write_normal(source, path, graph)
            target = inference.InferenceTarget(engine="onnxruntime", path=graph, options={"optimize": False})
            return inference.infer_all(context.connection, target, part, preprocess, crops=crops).logits
        from deploy_kit.checkpoint.network.torch_logits import torch_logits

        if network is None:
            network = _network_once(path, digest, codec.canonical_json(source.model_dump()))
        return np.concatenate(list(torch_logits(network.model, part, preprocess, crops=crops, on_batch=on_batch)))

    data = onnx_file.data_digests(path)

    def key_of(part: ImageSet) -> Key:
        return Key(
            stage="logits",
            name=path.name.split(".")[0],
            inputs=(digest, *probe_digest(source), *data, part.pixel_digest),
            options=[preprocess, stated_options(source), crops],
            versions=(("stage", VERSION), *versions_of(authority)),
        )

    request = LogitsRequest(
        source=source, path=path.resolve(), sha256=digest, preprocess=preprocess, crops=crops, images=images.name,
        reading=(images.skip_bad, images.orientation), hashes=images.hashes,
    )  # fmt: skip
    elsewhere = _computed_elsewhere(request, images, key_of, context)
    with temporary_folder() as folder:
        for part in images.parts(_PART):

            def make(kept_in: Path, home: str, part: ImageSet = part) -> LogitsPart:
                found = elsewhere(part)
                write_npy(kept_in / "logits.npy", compute(part) if found is None else found)
                return LogitsPart(path=f"{home}/logits.npy", sha256=sha256_of(kept_in / "logits.npy"), n=part.n)

            kept, _ = context.store.produce(LogitsPart, key_of(part), make)
            parts.append(np.load(context.store.root / kept.path, allow_pickle=False))
            if done == 0:  # before the others are computed, which may take minutes
                check_sets.verify_labels(images, parts[0].shape[1])
            done += part.n
            on_batch(0)
    return np.concatenate(parts)


@dataclass(frozen=True, kw_only=True)
class LogitsRequest:
    """Logits to compute wherever the same files are, e.g. in another process.

    Attributes:
        source: The checkpoint, and what was said of it.
        path: Its file.
        sha256: Its hash.
        preprocess: How an image becomes the input.
        crops: Crops of each image.
        images: Name of the image set.
        reading: How images of the set are read: (skip_bad, orientation).
        hashes: sha256 of each image.
        threads: Threads of torch, on which the order in which it sums may depend; 0 leaves them as they are.
    """

    source: SourceTable
    path: Path
    sha256: str
    preprocess: Preprocess | BareInput
    crops: Crops
    images: str
    reading: tuple[bool, Orientation | None]
    hashes: tuple[str, ...]
    threads: int = 0


def answer(request: LogitsRequest) -> np.ndarray:
    """Compute logits (n, classes) float32 by torch.

    Raises:
        InputError: This process sees another checkpoint or other images under the same names.
    """
    import torch

    from deploy_kit.checkpoint.network.torch_logits import torch_logits

    network = _network_once(request.path, request.sha256, codec.canonical_json(request.source.model_dump()))
    skip_bad, orientation = request.reading
    part = part_of(request.images, request.preprocess, request.hashes, skip_bad=skip_bad, orientation=orientation)
    torch.set_num_threads(request.threads or torch.get_num_threads())
    return np.concatenate(list(torch_logits(network.model, part, request.preprocess, crops=request.crops)))


@functools.lru_cache(maxsize=1)
def _network_once(path: Path, sha256: str, source: str) -> Checkpoint:
    """Read a checkpoint once for all requests of a process."""
    if sha256_of(path) != sha256:
        raise InputError(
            f"{path}: a worker sees another file here",
            hint="put the same checkpoint at the same path on every machine, e.g. in a shared folder",
        )
    network = checkpoint.read_checkpoint(path, checkpoint.stated_facts(SourceTable.model_validate_json(source)))
    _expect_one_head(network, path)
    return network


def _computed_elsewhere(
    request: LogitsRequest, images: ImageSet, key_of: Callable[[ImageSet], Key], context: Context
) -> Callable[[ImageSet], np.ndarray | None]:
    """Hand the parts that the store lacks to the context's workers.

    Returns:
        Part of the set → its logits; None where this process is to compute them itself.
    """
    if context.workers is ONE_PROCESS or onnx_bounds.is_onnx(request.path):
        return lambda part: None
    import torch

    request = dataclasses.replace(request, threads=torch.get_num_threads())
    missing = [part for part in images.parts(_PART) if context.store.kept(LogitsPart, key_of(part)) is None]
    requests = [dataclasses.replace(request, hashes=part.hashes) for part in missing]
    results = zip(missing, context.workers.map(answer, requests), strict=True)

    def elsewhere(part: ImageSet) -> np.ndarray | None:
        for found, logits in results:
            if found.hashes == part.hashes:
                return logits
        return None

    return elsewhere


def _write_normal(source: SourceTable, path: Path, file: Path) -> None:
    """Write an ONNX file in the normal form that `export` has compared with it."""
    model = adoption.adopt(path, stated_of_graph(source)).model
    onnx_file.save(model, file)


def _expect_one_head(network: Checkpoint, path: Path) -> None:
    names = [head.name for head in network.spec.heads]
    if len(names) > 1:
        raise InputError(
            f"{path}: {len(names)} heads ({', '.join(names)}): what comes after the export measures one",
            hint="choose one: --head NAME, or 'source.head' in a recipe",
        )
