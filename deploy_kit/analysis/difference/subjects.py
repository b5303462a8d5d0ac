"""What can be held against another: an engine or a graph of the store, a file, a checkpoint; and what is within it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deploy_kit import checkpoint, engines
from deploy_kit.analysis.difference import module_hooks, points
from deploy_kit.analysis.difference.points import Point
from deploy_kit.base import bundled
from deploy_kit.base.errors import InputError, RequestError, UnknownNameError, nearest
from deploy_kit.base.lazy import need
from deploy_kit.base.whole_files import digest_of, sha256_of
from deploy_kit.checkpoint.network import map_sizes
from deploy_kit.devices.links import Connection, Worker
from deploy_kit.graph import onnx_bounds
from deploy_kit.graph import onnx_file as graph
from deploy_kit.images.arrays import write_npy
from deploy_kit.recipe import SourceTable
from deploy_kit.records.artifacts import Artifact, BareInput, Exported, Precision, Preprocess
from deploy_kit.records.engine_table import plain
from deploy_kit.records.results import Simplified
from deploy_kit.store import Store

CHECKPOINT = "checkpoint"


class SubjectSession(Protocol):
    """A subject at work on a set of images."""

    def observe(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Compute once; give the logits (n, classes), and what was found at these points: (n, C, …) each."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One of the two artifacts that are compared.

    Attributes:
        label: Name for messages.
        digest: sha256 of its content.
        precision: Precision of its graph.
        how: What computes it, in words.
        input: Preprocessing or shape of its input.
        points: Points within the network by name, in the order of computation.
        named: Likewise, by the names that all forms keep for values; empty where torch computes.
        where: Path of its file.
        target: Name and options of its engine; None where torch computes the checkpoint.
        observed: ONNX file whose copies show the tensors within; None where the engine's own file does.
        model: torch module, where there is no target.
        batch: Images per run; 0 where any number is accepted.
    """

    label: str
    digest: str
    precision: Precision
    how: str
    input: Preprocess | BareInput
    points: Mapping[str, Point]
    where: Path
    named: Mapping[str, Point] = field(default_factory=dict)
    target: tuple[str, Mapping[str, Any]] | None = None
    observed: bool = False
    model: Any = None
    batch: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Return one image's tensor behind the normalization of a graph that takes pixels."""
        return tuple(self.input.normalized.shape)


def find_subject(name: str, store: Store, source: SourceTable) -> Subject:
    """Find a subject.

    Args:
        name: ``checkpoint``; the label of an engine in the store (``int8 · openvino``); the name of a graph there
            (``int8``, ``fp32``, ``exported``); or a file: checkpoint, ONNX, or the engine of one of the store.
        store: Where engines and graphs are looked for.
        source: What the recipe says of the checkpoint.

    Raises:
        UnknownNameError: Nothing is called so.
        InputError: The file is an engine whose graph is not known, or has no preprocessing and shape to feed.
        RequestError: The engine does not show what is within it.
    """
    path = Path(name)
    if name == CHECKPOINT:
        path = bundled.resolve_bundled("models", source.checkpoint)
    built = {plain(engine.label): engine for engine in reversed(store.all(Artifact, "build"))}
    made = {plain(one.name): one for one in reversed(_graphs(store))}
    if plain(name) in built:
        return _engine(built[plain(name)], store)
    if plain(name) in made:
        return _graph(store.path(made[plain(name)]), made[plain(name)].name)
    if not path.is_file():
        known = [CHECKPOINT, *(engine.label for engine in built.values()), *(one.name for one in made.values())]
        raise UnknownNameError(
            f"no file, engine or graph of {store.root} is called '{name}'", hint=nearest(name, known)
        )
    if onnx_bounds.is_onnx(path):
        return _graph(path, CHECKPOINT if name == CHECKPOINT else path.name)
    digest = digest_of(path)
    if engine := next((engine for engine in built.values() if engine.sha256 == digest), None):
        return _engine(engine, store)
    if path.suffix in {Path(engines.CATALOGUE.get(one).file_name).suffix for one in engines.CATALOGUE.names()}:
        raise InputError(
            f"{path}: an engine of which {store.root} has no graph: it does not say where its layers are",
            hint="build it here, and give its label",
        )
    return _checkpoint(path, name, source)


def _graphs(store: Store) -> list[Artifact]:
    """List the graphs of a store, newest first; ``fp32`` is the simplified one, as in a recipe."""
    simple = [one.onnx for one in store.all(Simplified, "simplify")]
    fp32 = [Artifact(**(vars(one) | {"name": "fp32"})) for one in simple[:1]]
    return [*store.all(Artifact, "quantize"), *fp32, *simple, *(one.onnx for one in store.all(Exported, "export"))]


def _engine(engine: Artifact, store: Store) -> Subject:
    assert engine.engine is not None
    kind, path = engines.CATALOGUE.get(engine.engine), store.path(engine)
    if kind.observe is None:
        raise RequestError(
            f"{engine.label}: engine '{engine.engine}' does not show what is within it",
            hint=f"compare its graph, which ONNX Runtime computes: '{engine.name}'",
        )
    is_onnx = kind.file_name.endswith(".onnx")
    parent = path if is_onnx else next((store.path(g) for g in _graphs(store) if g.sha256 == engine.parent), None)
    if parent is None:
        raise InputError(
            f"{engine.label}: the graph it was built from is gone, and it does not say where its layers are",
            hint=f"deploykit build --engine {engine.engine}",
        )
    options = json.loads(engine.options)
    return _of(parent, engine.label, path, (engine.engine, options), engine.sha256, observed=is_onnx)


def _graph(path: Path, label: str) -> Subject:
    """Let ONNX Runtime compute a graph, as it does by default."""
    return _of(path, label, path, ("onnxruntime", {}), sha256_of(path), observed=True)


def _of(
    onnx_file: Path,
    label: str,
    path: Path,
    target: tuple[str, Mapping[str, Any]],
    digest: str,
    *,
    observed: bool,
) -> Subject:
    model = graph.load(onnx_file)
    graph.expect_output(model, onnx_file)
    size = graph.specs(graph.inputs(model))[0].shape[0]
    return Subject(
        label=label,
        digest=digest,
        precision=graph.precision(model),
        how=target[0],
        input=map_sizes.input_of_graph(model, onnx_file),
        points={point.name: point for point in points.points_of(model, label)},
        named=points.named_points_of(model),
        where=path,
        target=target,
        observed=observed,
        batch=size if isinstance(size, int) else 0,
    )


def _checkpoint(path: Path, label: str, source: SourceTable) -> Subject:
    read = checkpoint.read_checkpoint(path, checkpoint.stated_facts(source))
    if len(read.spec.heads) > 1:
        raise InputError(
            f"{path}: expected one head, found {len(read.spec.heads)}", hint="choose one in the recipe: source.head"
        )
    if read.spec.decoder is not None:
        raise InputError(
            f"{path}: a checkpoint with a decoder, whose layers are compared as graphs and engines alone",
            hint="name its graph in the place of the checkpoint: 'exported'",
        )
    what, _ = map_sizes.input_of(
        read.spec, source.input, path, stated=source.preprocess, carried=read.preprocess, beside=read.sides
    )
    return Subject(
        label=label if label == CHECKPOINT else path.name,
        digest=sha256_of(path),
        precision="fp32",
        how="torch",
        input=what,
        points={name: Point(name=name, tensor=name) for name in module_hooks.names(read.model)},
        where=path,
        model=read.model,
    )


@contextmanager
def opened_subject(subject: Subject, images: np.ndarray, connection: Connection) -> Iterator[SubjectSession]:
    """Get a subject to work on images (n, C, …): torch in this process, all else in a worker of its own."""
    with ExitStack() as stack:
        if subject.target is None:
            yield _TorchSession(subject, images)
        else:
            yield _EngineSession(subject, images, connection, stack.enter_context(connection.worker()))


class _TorchSession:
    """Hooks on the module change nothing, so it computes once and keeps every point."""

    def __init__(self, subject: Subject, images: np.ndarray) -> None:
        self._found = module_hooks.observe_module(subject.model, images)
        self._logits = self._found[points.LOGITS]

    def observe(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return self._logits, {name: self._found[name] for name in names}


class _EngineSession:
    """A worker that loads the engine anew for each set of points."""

    def __init__(self, subject: Subject, images: np.ndarray, connection: Connection, worker: Worker) -> None:
        self._subject, self._connection, self._worker = subject, connection, worker
        # One subject may take pixels where the other takes tensors.
        self._inputs = connection.folder / f"images-{subject.digest[:16]}.npy"
        write_npy(self._inputs, images)

    def observe(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        subject, connection = self._subject, self._connection
        assert subject.target is not None
        tensors = tuple(dict.fromkeys(subject.points[name].tensor for name in names if name != points.LOGITS))
        with connection.outbox(connection.folder) as outbox:
            self._worker.ask(
                "observe",
                str(subject.where),
                engine=subject.target[0],
                options=dict(subject.target[1]),
                path=self._file(tensors),
                tensors=tensors,
                batch=subject.batch,
                inputs=connection.send(self._inputs),
                outputs=f"{outbox}/observed.npz",
            )
        with np.load(connection.folder / "observed.npz") as data:
            logits, *arrays = (data[key] for key in sorted(data.files, key=int))
        by_tensor = dict(zip(tensors, arrays, strict=True)) | {subject.points[points.LOGITS].tensor: logits}
        return logits, {name: by_tensor[subject.points[name].tensor] for name in names}

    def _file(self, tensors: tuple[str, ...]) -> str:
        """Return the engine's file as the worker sees it; of an ONNX file a copy with these outputs."""
        if not self._subject.observed or not tensors:
            return self._connection.send(self._subject.where, keep=True)
        onnx = need("onnx", by="observing ONNX files")
        model, copy = onnx.load(self._subject.where), self._connection.folder / "observed.onnx"
        model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
        onnx.save(model, copy)
        return self._connection.send(copy)
