"""Checkpoint → ONNX, re-run and compared before it is kept; and the checkpoint's own answers on real images.

A file that is ONNX already is taken as it is: its own float answers stand for the checkpoint's.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deploy_kit import checkpoint, images
from deploy_kit.accuracy import metrics
from deploy_kit.base import bundled
from deploy_kit.base.errors import ExportError, InputError
from deploy_kit.base.lazy import need
from deploy_kit.base.progress import ProgressCallback, ProgressEvent, no_progress
from deploy_kit.checkpoint import Checkpoint
from deploy_kit.checkpoint.network import map_sizes as inputs
from deploy_kit.devices import inference
from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file
from deploy_kit.images import Crops, ImageSet, mean_of_crops
from deploy_kit.machine.environment import library_versions
from deploy_kit.recipe import ExportTable, SourceTable
from deploy_kit.records.artifacts import Artifact, BareInput, CheckpointFacts, Exported, Preprocess, ReferenceLogits
from deploy_kit.store import Key, Store, sha256_of

VERSION = "3"
_LIBRARIES = ("torch", "onnx", "onnxscript", "onnx-ir")
_VERIFIED_IMAGES, _BATCH = 32, 16
# float32 against float64 through 264 layers; seen: 2e-6.
_REBUILT = 1e-4
_DYNAMIC_BATCHES = (1, 3)


def run(
    source: SourceTable,
    part: ExportTable,
    check_images: str,
    *,
    store: Store,
    connection: Connection,
    on_progress: ProgressCallback = no_progress,
    skip_bad: bool = False,
) -> tuple[Exported, bool]:
    """Export a checkpoint.

    Args:
        source: The checkpoint, its preprocessing where the file does not carry it, and what shapes cannot say.
        part: How.
        check_images: Image set whose first images the ONNX file is verified on.
        store: Keeps the result.
        connection: Runs the ONNX file.
        on_progress: Called with progress events.
        skip_bad: Leave out images that cannot be read.

    Returns:
        The graph with its facts, and whether the store had it.

    Raises:
        CheckpointError: The checkpoint cannot be read, or leaves a question open.
        InputError: The input's size is not known, or the preprocessing does not fit the checkpoint.
        ExportError: torch cannot export it, or the ONNX file disagrees with the checkpoint.
    """
    path = bundled.resolve_bundled("models", source.checkpoint)
    digest = sha256_of(path)
    versions = tuple(row for row in library_versions() if row[0] in _LIBRARIES)
    stated = source.preprocess.record() if source.preprocess else None
    key = Key(
        stage="export",
        name=path.name.split(".")[0],
        inputs=(digest, *_probe_digest(source)),
        options=[part.model_dump(), stated, check_images, _said_of(source)],
        versions=(("stage", VERSION), *versions),
    )

    def make(folder: Path, home: str) -> Exported:
        from deploy_kit.checkpoint.network import to_onnx

        on_progress(ProgressEvent(stage="export", text=f"reading {path.name}"))
        if onnx_file.is_onnx(path):
            return _adopt(path, digest, source, stated, folder, home)
        read = checkpoint.read_checkpoint(path, checkpoint.stated_facts(source))
        what, told = inputs.input_of(read, source.input, stated, path)
        sample = images.open_set(check_images, what, skip_bad=skip_bad).first(_VERIFIED_IMAGES)
        on_progress(ProgressEvent(stage="export", text=f"torch's {part.exporter} exporter, opset {part.opset}"))
        file = folder / "model.onnx"
        to_onnx.write_onnx(read, what, part, file)
        on_progress(ProgressEvent(stage="export", text="re-running the file in ONNX Runtime"))
        difference, verified = _verify(read, file, sample, what, part, connection)
        rebuilt = _verify_rebuilt(read, sample, what)
        made_by = (("exporter", part.exporter), ("opset", str(part.opset)), *versions)
        onnx = _artifact(file, f"{home}/model.onnx", digest, what, made_by)
        return Exported(
            checkpoint=_facts(read, source.checkpoint, path, digest, (*told, rebuilt)),
            onnx=onnx,
            difference=difference,
            verified_on=verified,
        )

    return store.produce(Exported, key, make)


def answers(
    source: SourceTable,
    preprocess: Preprocess | BareInput,
    check_images: str,
    *,
    store: Store,
    connection: Connection,
    on_progress: ProgressCallback = no_progress,
    skip_bad: bool = False,
    crops: Crops = 1,
) -> tuple[ReferenceLogits, bool]:
    """Compute the checkpoint's logits on the check set, in torch (of an ONNX file: in ONNX Runtime, node by node).

    With `skip_bad`, images that cannot be read are left out, counted and named. With ten crops, the mean of an image's
    logits is its answer.

    Returns:
        The answers, and whether the store had them.
    """
    path = bundled.resolve_bundled("models", source.checkpoint)
    digest = sha256_of(path)
    image_set = images.open_set(check_images, preprocess, skip_bad=skip_bad)
    left_out = (("left out", image_set.left_out),) if image_set.skipped else ()
    if left_out:
        on_progress(ProgressEvent(stage="export", text=image_set.left_out))
    authority = "onnxruntime" if onnx_file.is_onnx(path) else "torch"
    versions = tuple(row for row in library_versions() if row[0] == authority)
    key = Key(
        stage="answers",
        name=image_set.name.removeprefix(bundled.PREFIX).replace("/", "_")[-40:],
        inputs=(digest, image_set.digest, *_probe_digest(source)),
        options=[
            check_images,
            image_set.files,
            image_set.classes,
            preprocess,
            _said_of(source),
            *left_out,
            *([crops] if crops > 1 else []),
        ],
        versions=(("stage", VERSION), *versions),
    )

    def make(folder: Path, home: str) -> ReferenceLogits:
        if authority == "torch":
            read = checkpoint.read_checkpoint(path, checkpoint.stated_facts(source))
            _expect_one_head(read, path)
            logits = np.concatenate(list(_torch_logits(read, image_set, preprocess, on_progress, crops)))
        else:
            onnx_file.expect_classes(onnx_file.load(path), path)
            target = inference.InferenceTarget(engine="onnxruntime", path=path, options={"optimize": False})
            logits = inference.infer_all(connection, target, image_set, preprocess, crops=crops).logits
        arrays = {"logits": logits}
        top1 = None
        if image_set.labels is not None:
            _verify_labels(image_set, logits.shape[1])
            arrays["labels"] = image_set.labels
            top1 = None if image_set.multilabel else float(metrics.top1_hits(logits, image_set.labels).mean())
        np.savez(folder / "answers.npz", **arrays)  # type: ignore[arg-type]  # numpy types only keyword flags
        return ReferenceLogits(
            path=f"{home}/answers.npz",
            sha256=sha256_of(folder / "answers.npz"),
            images=check_images,
            n=image_set.n,
            labelled=image_set.labels is not None,
            top1=top1,
            made_by=(*versions, *left_out),
            skipped=len(image_set.skipped),
            crops=crops,
        )

    return store.produce(ReferenceLogits, key, make)


def _said_of(source: SourceTable) -> dict[str, object]:
    """Give all that a recipe says of its checkpoint but where it lies, for the store's key."""
    return source.model_dump(exclude={"checkpoint", "preprocess", "probe"}, exclude_defaults=True)


def _probe_digest(source: SourceTable) -> tuple[str, ...]:
    if source.probe is None:
        return ()
    if not Path(source.probe).is_file():
        raise InputError(f"{source.probe}: no such file", hint="check the path given to --probe")
    return (sha256_of(Path(source.probe)),)


def _adopt(
    path: Path, digest: str, source: SourceTable, stated: Preprocess | None, folder: Path, home: str
) -> Exported:
    """Take an ONNX file as it is, once it is whole and fits its preprocessing."""
    model = onnx_file.load(path)
    what = stated or onnx_file.preprocess(model) or inputs.input_of_graph(model, path)
    onnx_file.expect_input(model, what, path)
    onnx_file.embed(model, what)
    file = folder / "model.onnx"
    onnx_file.save(model, file)
    unknown = (inputs.UNKNOWN,) if isinstance(what, BareInput) else ()
    facts = CheckpointFacts(
        name=source.checkpoint,
        sha256=digest,
        size_bytes=path.stat().st_size,
        container="ONNX",
        spec=None,
        parameters=onnx_file.parameters(model),
        remarks=("an ONNX file: its own float answers are the reference", *unknown),
    )
    onnx = _artifact(file, f"{home}/model.onnx", digest, what, (("exporter", model.producer_name or "unknown"),))
    return Exported(checkpoint=facts, onnx=onnx, difference=0.0, verified_on="taken as it is")


def _torch_logits(
    read: Checkpoint, image_set: ImageSet, what: Preprocess | BareInput, on_progress: ProgressCallback, crops: Crops = 1
) -> Iterator[np.ndarray]:
    """Give the model's answers, a batch at a time; of several heads side by side."""
    import torch

    done = 0
    for batch in image_set.batches(what, max(1, _BATCH // crops), crops):
        found = read.model(torch.from_numpy(batch))
        yield mean_of_crops((torch.cat(found, 1) if isinstance(found, tuple) else found).numpy(), crops)
        done += len(batch) // crops
        on_progress(ProgressEvent(stage="export", text="the checkpoint's own answers", done=done, total=image_set.n))


def _expect_one_head(read: Checkpoint, path: Path) -> None:
    names = [head.name for head in read.spec.heads]
    if len(names) > 1:
        raise InputError(
            f"{path}: {len(names)} heads ({', '.join(names)}): what comes after the export measures one",
            hint="choose one: --head NAME, or 'source.head' in a recipe",
        )


def _verify_labels(image_set: ImageSet, classes: int) -> None:
    """Refuse labels that are not of this checkpoint: out of range, or of classes whose numbers nobody can know."""
    assert image_set.labels is not None
    named = image_set.labels.shape[1] if image_set.multilabel else len(image_set.classes)
    if (named or image_set.multilabel) and named != classes:
        raise InputError(
            f"{image_set.name}: labels of {named} classes, and the checkpoint has {classes}",
            hint="name all of the checkpoint's classes in its order, one a line, in classes.txt beside the images",
        )
    outside = np.flatnonzero((image_set.labels < 0) | (image_set.labels >= classes))
    if len(outside) and not image_set.multilabel:
        first = int(outside[0])
        raise InputError(
            f"{image_set.name}: {image_set.name_of(first)}: label {image_set.labels[first]}, and the checkpoint has "
            f"{classes} classes (and {len(outside) - 1} more such images)",
            hint="give the images of this checkpoint's classes, numbered from 0",
        )


def _verify(
    read: Checkpoint,
    file: Path,
    sample: ImageSet,
    what: Preprocess | BareInput,
    part: ExportTable,
    connection: Connection,
) -> tuple[float, str]:
    """Re-run the file in ONNX Runtime and compare with torch, relative to the largest |logit|."""
    from deploy_kit.checkpoint.network import to_onnx

    wanted = np.concatenate(list(_torch_logits(read, sample, what, no_progress)))
    if not wanted.any():
        raise ExportError(
            f"the checkpoint's logits are all zero on {sample.name}", hint="its weights look untrained or wiped"
        )
    batches = _DYNAMIC_BATCHES if part.dynamic else (part.batch,)
    worst = 0.0
    for batch in batches:
        worst = max(
            worst, metrics.relative_difference(wanted, _onnx_logits(read, file, sample, what, batch, connection))
        )
    if not worst <= part.tolerance:
        raise ExportError(
            f"the ONNX file differs from the checkpoint by {worst:.2g} of the largest logit, "
            f"at most {part.tolerance:g} asked for",
            hint=f"try the other exporter: --exporter {to_onnx.other(part)}; the file was not kept",
        )
    noun = "noise tensors" if isinstance(what, BareInput) else "images"
    return worst, f"{sample.n} {noun} ({sample.name}), batch {' and '.join(map(str, batches))}"


def _verify_rebuilt(read: Checkpoint, sample: ImageSet, what: Preprocess | BareInput) -> str:
    """Hold the rebuilt network against the same function written out on the file's own tensors, in float64."""
    import torch

    first = sample.first(1)
    image = torch.from_numpy(next(first.batches(what, 1)).astype(np.float64))
    wanted = torch.cat(read.equations.answers(image), 1).numpy()
    found = np.concatenate(list(_torch_logits(read, first, what, no_progress)))
    difference = metrics.relative_difference(wanted, found)
    if not difference <= _REBUILT:
        raise ExportError(
            f"the rebuilt network differs from the equations on the file's own tensors by {difference:.2g} of the "
            f"largest logit, at most {_REBUILT:g} is float32's own error",
            hint="this is a fault of deploykit, and the file was not kept: report it with the names in the checkpoint",
        )
    return f"rebuilt network against the equations on the file's own tensors: {difference:.1g} of the largest logit off"


def _onnx_logits(
    read: Checkpoint, file: Path, sample: ImageSet, what: Preprocess | BareInput, batch: int, connection: Connection
) -> np.ndarray:
    """Run the file: in a worker; with several heads here, where all outputs can be fetched."""
    if len(read.spec.heads) < 2:
        target = inference.InferenceTarget(engine="onnxruntime", path=file, options={})
        return inference.infer_all(connection, target, sample, what, batch=batch).logits
    from deploy_kit.checkpoint.network import to_onnx

    session = need("onnxruntime", by="re-running the file").InferenceSession(str(file))
    rows = []
    for images_of_batch in sample.batches(what, batch):
        full = np.resize(images_of_batch, (batch, *images_of_batch.shape[1:]))
        found = np.concatenate(session.run(None, {to_onnx.INPUT: full}), axis=1)
        rows.append(found[: len(images_of_batch)])
    return np.concatenate(rows)


def _artifact(
    file: Path, path: str, parent: str, what: Preprocess | BareInput, made_by: tuple[tuple[str, str], ...]
) -> Artifact:
    model = onnx_file.load(file)
    return Artifact(
        kind="onnx",
        name="exported",
        path=path,
        sha256=sha256_of(file),
        size_bytes=file.stat().st_size,
        precision=onnx_file.precision(model),
        inputs=onnx_file.specs(onnx_file.inputs(model)),
        outputs=onnx_file.specs(tuple(model.graph.outputs)),
        preprocess=what,
        stage="export",
        parent=parent,
        made_by=made_by,
    )


def _facts(read: Checkpoint, name: str, path: Path, digest: str, told: tuple[str, ...]) -> CheckpointFacts:
    return CheckpointFacts(
        name=name,
        sha256=digest,
        size_bytes=path.stat().st_size,
        container=read.container,
        spec=read.spec,
        parameters=sum(tensor.numel() for tensor in read.model.parameters()),
        remarks=(*read.remarks, *told),
    )
