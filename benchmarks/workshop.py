"""Makes the files of candidates, ours through deploykit's own stages and stock ones in child processes, once each."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import child, stock, subjects
from benchmarks.candidates import Candidate, Ours, Stock, Unavailable
from benchmarks.subjects import Subject
from deploy_kit.base.errors import StageError
from deploy_kit.base.lazy import install_line, present
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.base.whole_files import digest_of, sha256_of
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file
from deploy_kit.images import SYNTHETIC, ImageSource
from deploy_kit.machine.environment import library_version
from deploy_kit.recipe import BuildEntry, ExportTable, SimplifyTable, Variant
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, Preprocess
from deploy_kit.records.results import Simplified
from deploy_kit.stages import build, export, quantize, simplify
from deploy_kit.store import Key, Store

_VERSION = "1"
_BUILT = ("executorch", "ncnn")  # engines that read no ONNX file themselves; both are called as their packages are
_TOLERANCE = 1e-4  # of the largest logit; export and every pass report what they measured


@dataclass(frozen=True, kw_only=True)
class File:
    """A stock file: its path within the store, its hash, and what making it cost."""

    path: str
    sha256: str
    seconds: float
    peak_mib: int


@dataclass(frozen=True, kw_only=True)
class Made:
    """A candidate's file, or why there is none.

    Attributes:
        candidate: Whose.
        path: The file.
        why: Why there is none; empty where there is one.
        image: npy file that it runs on; None for the subject's images.
        taken: What it takes, where `image` is pixels and a run ends with the class; None where a run is the
            computation alone.
    """

    candidate: Candidate
    path: Path | None
    why: str = ""
    image: Path | None = None
    taken: Preprocess | None = None


class Workshop:
    """The store of all files, and the connection that makes them."""

    def __init__(self, folder: Path, connection: Connection) -> None:
        """Keep everything below `folder`."""
        self.folder = folder
        self.store = Store(folder / "store")
        self.connection = connection
        self.context = Context(store=self.store, connection=connection, on_progress=self.on_progress)

    def on_progress(self, event: ProgressEvent) -> None:
        """Print one line on standard error."""
        if not event.done:
            sys.stderr.write(f"{event.stage}: {event.text}\n")

    def make(self, candidate: Candidate, subject: Subject, n_images: int) -> Made:
        """Make a candidate's file, calibrated with `n_images` at most, or say why there is none."""
        try:
            if isinstance(candidate.file, Ours) and candidate.engine in _BUILT:
                path = self._built(candidate.engine, self._ours(candidate.file, subject, n_images))
            else:
                path = self.file(candidate.file, subject, n_images)
        except (StageError, Unavailable) as error:
            return Made(candidate=candidate, path=None, why=child.plain(str(error)))
        return Made(candidate=candidate, path=path)

    def file(self, file: Stock | Ours, subject: Subject, n_images: int) -> Path:
        """Make a file, calibrated with `n_images` at most.

        Raises:
            StageError: A tool failed or crashed.
            Unavailable: It is not installed.
        """
        if isinstance(file, Ours):
            return self.store.path(self._ours(file, subject, n_images))
        return self._stock(file.recipe, subject, n_images)

    def macs(self, candidate: Candidate, subject: Subject) -> int:
        """Count the multiply-accumulates of one image in the float graph that a candidate is made from."""
        file = candidate.file
        source = Ours(passes=file.passes) if isinstance(file, Ours) else Stock(recipe="raw")
        return onnx_file.macs(onnx_file.load(self.file(source, subject, 0)))

    def calibration(self, n: int) -> Path:
        """Return the first `n` calibration images as npz."""
        return subjects.subset(subjects.CALIBRATION, n, self.folder)

    def simplified(self, subject: Subject, passes: tuple[str, ...]) -> Simplified:
        """Export with deploykit and simplify."""
        part = ExportTable(
            tolerance=_TOLERANCE,
            batch=max(1, subject.batch),
            dynamic=not subject.batch,
            input_pixels=subject.preprocess.input_pixels,
        )
        exported, _ = export.run(subject.source, part, self.context, images=ImageSource(name=SYNTHETIC))
        table = SimplifyTable(passes=passes)
        lean, _ = simplify.run(exported.onnx, table, self.context)
        return lean

    def _built(self, engine: str, graph: Artifact) -> Path:
        if not present(engine):
            raise Unavailable(install_line(engine))
        built, _ = build.run(graph, BuildEntry(engine=engine, variants=(graph.name,)), self.context)
        return self.store.path(built)

    def _ours(self, file: Ours, subject: Subject, n_images: int) -> Artifact:
        lean = self.simplified(subject, file.passes).onnx
        if file.scheme is None:
            return lean
        variant = Variant(name=file.scheme, scheme=file.scheme, options=dict(file.options))
        used = ImageSource(name=str(self.calibration(n_images))) if n_images else None
        typed, _ = quantize.run(lean, variant, self.context, calibration=used)
        return typed

    def _stock(self, recipe: str, subject: Subject, n_images: int) -> Path:
        if recipe == "checkpoint":
            return subject.path
        raw = self._raw(subject)
        if recipe == "raw":
            return self.store.root / raw.path
        chosen = stock.RECIPES[recipe]
        n = max(1, chosen.most_images(n_images, subject.preprocess))  # recipes that do not calibrate get a set too
        images, preprocess = self.calibration(n), codec.to_json(subject.preprocess)
        decides = [recipe, chosen.options, preprocess, subject.batch]
        made = self._produce(
            "stock:make",
            _key(recipe, (raw.sha256, sha256_of(images)), decides, chosen.libraries),
            recipe=recipe,
            source=str(self.store.root / raw.path),
            calibration=str(images),
            n=n,
            preprocess=preprocess,
            batch=subject.batch,
        )
        return self.store.root / made.path

    def _raw(self, subject: Subject) -> File:
        preprocess = codec.to_json(subject.preprocess)
        if subject.path.suffix == ".onnx":  # torch's own export already
            return File(path=str(subject.path.resolve()), sha256=sha256_of(subject.path), seconds=0.0, peak_mib=0)
        return self._produce(
            "stock:export",
            _key("raw", (sha256_of(subject.path),), [preprocess, subject.batch], ("torch", "onnx", "onnxscript")),
            checkpoint_file=str(subject.path),
            preprocess=preprocess,
            batch=subject.batch,
        )

    def _produce(self, function: str, key: Key, **arguments: object) -> File:
        """Return the stock file kept under `key`, or let a child process make it."""

        def make(folder: Path, home: str) -> File:
            self.on_progress(ProgressEvent(stage="stock", text=key.name))
            ended = child.call(function, folder=str(folder), **arguments)
            if ended.why.startswith(("failed", "crashed")):
                raise StageError(f"{key.name} {ended.why}")
            if ended.why:
                raise Unavailable(ended.why)
            digest = digest_of(folder / ended.value)
            return File(path=f"{home}/{ended.value}", sha256=digest, seconds=ended.seconds, peak_mib=ended.peak_mib)

        return self.store.produce(File, key, make)[0]


def _key(name: str, inputs: tuple[str, ...], options: list[object], libraries: tuple[str, ...]) -> Key:
    versions = tuple((library, library_version(library)) for library in libraries)
    return Key(stage="stock", name=name, inputs=inputs, options=options, versions=(("stock", _VERSION), *versions))


@contextmanager
def opened(folder: Path) -> Iterator[Workshop]:
    """Open the workshop below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with links.connect_device(links.LOCAL) as connection:
        yield Workshop(folder, connection)
