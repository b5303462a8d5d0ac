"""Checkpoint → ONNX, re-run and compared before it is kept; and the checkpoint's own answers on real images.

A file that is ONNX already is taken as it is: its own float answers stand for the checkpoint's.
"""

import contextlib
import ctypes
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploy_kit import bundled, checkpoint, codec, graph, images, infer, metrics
from deploy_kit.checkpoint import Checkpoint
from deploy_kit.devices import Connection
from deploy_kit.environment import library_versions
from deploy_kit.errors import ExportError, InputError
from deploy_kit.images import ImageSet
from deploy_kit.recipe import ExportTable, SourceTable
from deploy_kit.records import Answers, Artifact, CheckpointFacts, Exported, Preprocess
from deploy_kit.store import Key, Store, sha256_of
from deploy_kit.watch import Event, Watch, silent

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = "1"
INPUT, OUTPUT = "input", "logits"
_LIBRARIES = ("torch", "onnx", "onnxscript", "onnx-ir")
_VERIFIED_IMAGES = 32
_NAME_IT = (
    "name it: --input 224x224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, or 'source.preprocess' in a recipe"
)
_DYNAMIC_BATCHES = (1, 3)


def run(
    source: SourceTable,
    part: ExportTable,
    check_images: str,
    *,
    store: Store,
    link: Connection,
    watch: Watch = silent,
) -> tuple[Exported, bool]:
    """Export a checkpoint.

    Args:
        source: The checkpoint, and its preprocessing where the file does not carry it.
        part: How.
        check_images: Image set whose first images the ONNX file is verified on.
        store: Keeps the result.
        link: Runs the ONNX file.
        watch: Hears of progress.

    Returns:
        The graph with its facts, and whether the store had it.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        InputError: The preprocessing is missing or does not fit the checkpoint.
        ExportError: torch cannot export it, or the ONNX file disagrees with the checkpoint.
    """
    path = bundled.resolve("models", source.checkpoint)
    digest = sha256_of(path)
    versions = tuple(row for row in library_versions() if row[0] in _LIBRARIES)
    stated = source.preprocess.record() if source.preprocess else None
    key = Key(
        stage="export",
        name=path.name.split(".")[0],
        inputs=(digest,),
        options=[part.model_dump(), stated, check_images],
        versions=(("stage", VERSION), *versions),
    )

    def make(folder: Path, home: str) -> Exported:
        watch(Event(stage="export", text=f"reading {path.name}"))
        if graph.is_onnx(path):
            return _adopt(path, digest, source.checkpoint, stated, folder, home)
        read = checkpoint.read(path)
        preprocess = _preprocess(read, stated, path)
        sample = images.open_set(check_images, preprocess).first(_VERIFIED_IMAGES)
        watch(Event(stage="export", text=f"torch's {part.exporter} exporter, opset {part.opset}"))
        file = folder / "model.onnx"
        _to_onnx(read, preprocess, part, file)
        watch(Event(stage="export", text="re-running the file in ONNX Runtime"))
        difference, verified = _verify(read, file, sample, preprocess, part, link)
        made_by = (("exporter", part.exporter), ("opset", str(part.opset)), *versions)
        onnx = _artifact(file, f"{home}/model.onnx", digest, preprocess, made_by)
        return Exported(
            checkpoint=_facts(read, source.checkpoint, path, digest),
            onnx=onnx,
            difference=difference,
            verified_on=verified,
        )

    return store.produce(Exported, key, make)


def answers(
    source: SourceTable,
    preprocess: Preprocess,
    check_images: str,
    *,
    store: Store,
    link: Connection,
    watch: Watch = silent,
) -> tuple[Answers, bool]:
    """Compute the checkpoint's logits on the check set, in torch (of an ONNX file: in ONNX Runtime, node by node).

    Returns:
        The answers, and whether the store had them.
    """
    path = bundled.resolve("models", source.checkpoint)
    digest = sha256_of(path)
    image_set = images.open_set(check_images, preprocess)
    authority = "onnxruntime" if graph.is_onnx(path) else "torch"
    versions = tuple(row for row in library_versions() if row[0] == authority)
    key = Key(
        stage="answers",
        name=image_set.name.removeprefix(bundled.PREFIX).replace("/", "_")[-40:],
        inputs=(digest, image_set.digest),
        options=preprocess,
        versions=(("stage", VERSION), *versions),
    )

    def make(folder: Path, home: str) -> Answers:
        if authority == "torch":
            read = checkpoint.read(path)
            logits = np.concatenate(list(_torch_logits(read, image_set, preprocess, watch)))
        else:
            target = infer.Target(engine="onnxruntime", path=path, options={"optimize": False})
            logits = infer.run(link, target, image_set, preprocess).logits
        arrays = {"logits": logits}
        top1 = None
        if image_set.labels is not None:
            _verify_labels(image_set, logits.shape[1])
            arrays["labels"] = image_set.labels
            top1 = float(metrics.hits(logits, image_set.labels).mean())
        np.savez(folder / "answers.npz", **arrays)  # type: ignore[arg-type]  # numpy types only keyword flags
        return Answers(
            path=f"{home}/answers.npz",
            sha256=sha256_of(folder / "answers.npz"),
            images=check_images,
            n=image_set.n,
            labelled=image_set.labels is not None,
            top1=top1,
            made_by=versions,
        )

    return store.produce(Answers, key, make)


def _adopt(path: Path, digest: str, name: str, stated: Preprocess | None, folder: Path, home: str) -> Exported:
    """Take an ONNX file as it is, once it is whole and fits its preprocessing."""
    model = graph.load(path)
    preprocess = stated or graph.preprocess(model)
    if preprocess is None:
        raise InputError(f"{path}: the file does not say how images become its input", hint=_NAME_IT)
    graph.expect_input(model, preprocess, path)
    graph.embed(model, preprocess)
    file = folder / "model.onnx"
    graph.save(model, file)
    facts = CheckpointFacts(
        name=name,
        sha256=digest,
        size_bytes=path.stat().st_size,
        container="ONNX",
        spec=None,
        parameters=graph.parameters(model),
        remarks=("an ONNX file: its own float answers are the reference",),
    )
    onnx = _artifact(file, f"{home}/model.onnx", digest, preprocess, (("exporter", model.producer_name or "unknown"),))
    return Exported(checkpoint=facts, onnx=onnx, difference=0.0, verified_on="taken as it is")


def _torch_logits(read: Checkpoint, image_set: ImageSet, preprocess: Preprocess, watch: Watch) -> Iterator[np.ndarray]:
    import torch

    done = 0
    for batch in image_set.batches(preprocess, 64):
        yield read.model(torch.from_numpy(batch)).numpy()
        done += len(batch)
        watch(Event(stage="export", text="the checkpoint's own answers", done=done, total=image_set.n))


def _verify_labels(image_set: ImageSet, classes: int) -> None:
    assert image_set.labels is not None
    if image_set.labels.min() < 0 or image_set.labels.max() >= classes:
        raise InputError(
            f"{image_set.name}: labels reach {image_set.labels.max()}, and the checkpoint has {classes} classes",
            hint="give the images of this checkpoint's classes",
        )


def _preprocess(read: Checkpoint, stated: Preprocess | None, path: Path) -> Preprocess:
    preprocess = stated or read.preprocess
    if preprocess is None:
        raise InputError(
            f"{path}: the file does not say how images become its input",
            hint=_NAME_IT,
        )
    if preprocess.channels != read.spec.in_channels:
        raise InputError(
            f"{path}: the checkpoint reads {read.spec.in_channels} channels, "
            f"the preprocessing gives {preprocess.channels} ({preprocess.color})",
            hint="set the color to gray, rgb or bgr as the model was trained",
        )
    return preprocess


def _to_onnx(read: Checkpoint, preprocess: Preprocess, part: ExportTable, file: Path) -> None:
    """Export in eval mode and embed the preprocessing; refuse a graph that still trains."""
    import torch

    # A dummy batch of 1 would be taken for a constant by the tracer where the batch shall stay open.
    batch = 2 if part.dynamic else part.batch
    dummy = torch.zeros(batch, preprocess.channels, preprocess.height, preprocess.width)
    try:
        with _quiet():
            if part.exporter == "dynamo":
                shapes = ({0: torch.export.Dim("N")},) if part.dynamic else None
                program = torch.onnx.export(
                    read.model,
                    (dummy,),
                    dynamo=True,
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    opset_version=part.opset,
                    optimize=False,  # `simplify` does that, pass by pass and verified
                    verbose=False,
                    dynamic_shapes=shapes,
                )
                assert program is not None
                model = program.model
            else:
                axes = {INPUT: {0: "N"}, OUTPUT: {0: "N"}} if part.dynamic else None
                torch.onnx.export(
                    read.model,
                    (dummy,),
                    str(file),
                    dynamo=False,
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    opset_version=part.opset,
                    dynamic_axes=axes,
                )
                model = graph.load(file)
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(
            f"torch's {part.exporter} exporter failed: {error}", hint=f"try the other one: --exporter {_other(part)}"
        ) from error
    model.ir_version = min(model.ir_version or 10, 10)  # what ONNX Runtime 1.18 and later read
    graph.embed(model, preprocess)
    model.metadata_props["deploykit.exporter"] = part.exporter
    model.metadata_props["deploykit.densenet"] = codec.canonical(read.spec)
    model.graph.name = "densenet"
    _forget_paths(model)
    graph.save(model, file)
    _verify_file(graph.load(file), part)


def _other(part: ExportTable) -> str:
    return "torchscript" if part.exporter == "dynamo" else "dynamo"


def _forget_paths(model: "ir.Model") -> None:
    """Drop the exporter's notes on each node: stack traces with paths of the machine that exported."""
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    model.graph.metadata_props.clear()


def _verify_file(model: "ir.Model", part: ExportTable) -> None:
    if graph.opset(model) != part.opset:
        raise ExportError(
            f"asked for opset {part.opset}, the file has {graph.opset(model)}",
            hint=f"torch's {part.exporter} exporter cannot write it: use --opset {graph.opset(model)}",
        )
    for node in model.graph:
        if node.op_type == "Dropout" or node.attributes.get_int("training_mode"):
            raise ExportError(f"node '{node.name}' ({node.op_type}) is in training mode")


def _verify(
    read: Checkpoint, file: Path, sample: ImageSet, preprocess: Preprocess, part: ExportTable, link: Connection
) -> tuple[float, str]:
    """Re-run the file in ONNX Runtime and compare with torch, relative to the largest |logit|."""
    target = infer.Target(engine="onnxruntime", path=file, options={})
    wanted = np.concatenate(list(_torch_logits(read, sample, preprocess, silent)))
    if not wanted.any():
        raise ExportError(
            f"the checkpoint's logits are all zero on {sample.name}", hint="its weights look untrained or wiped"
        )
    batches = _DYNAMIC_BATCHES if part.dynamic else (part.batch,)
    worst = 0.0
    for batch in batches:
        found = infer.run(link, target, sample, preprocess, batch=batch)
        worst = max(worst, metrics.relative_difference(wanted, found.logits))
    if not worst <= part.tolerance:
        raise ExportError(
            f"the ONNX file differs from the checkpoint by {worst:.2g} of the largest logit, "
            f"at most {part.tolerance:g} asked for",
            hint=f"try the other exporter: --exporter {_other(part)}; the file was not kept",
        )
    return worst, f"{sample.n} images ({sample.name}), batch {' and '.join(map(str, batches))}"


def _artifact(
    file: Path, path: str, parent: str, preprocess: Preprocess, made_by: tuple[tuple[str, str], ...]
) -> Artifact:
    model = graph.load(file)
    return Artifact(
        kind="onnx",
        name="exported",
        path=path,
        sha256=sha256_of(file),
        size_bytes=file.stat().st_size,
        precision=graph.precision(model),
        inputs=graph.specs(graph.inputs(model)),
        outputs=graph.specs(tuple(model.graph.outputs)),
        preprocess=preprocess,
        stage="export",
        parent=parent,
        made_by=made_by,
    )


def _facts(read: Checkpoint, name: str, path: Path, digest: str) -> CheckpointFacts:
    return CheckpointFacts(
        name=name,
        sha256=digest,
        size_bytes=path.stat().st_size,
        container=read.container,
        spec=read.spec,
        parameters=sum(tensor.numel() for tensor in read.model.parameters()),
        remarks=read.remarks,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what torch's exporters print, from Python and from C++: results alone go to standard output."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    sys.stdout.flush()
    kept, sink = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C++ still holds back belongs into the sink too
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
