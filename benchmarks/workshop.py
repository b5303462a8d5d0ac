"""Makes the files of candidates, ours through deploykit's own stages and stock ones in child processes, once each."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import child, stock, subjects
from benchmarks.candidates import Candidate, Ours
from benchmarks.subjects import Subject
from deploy_kit import codec, devices, export, graph, quantize, simplify
from deploy_kit.devices import Connection
from deploy_kit.environment import library_version
from deploy_kit.errors import StageError
from deploy_kit.images import SYNTHETIC
from deploy_kit.recipe import ExportTable, SimplifyTable, Variant
from deploy_kit.results import Simplified
from deploy_kit.store import Key, Store, digest_of, sha256_of
from deploy_kit.watch import Event

_VERSION = "1"
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
    """A candidate's file, or why there is none."""

    candidate: Candidate
    path: Path | None
    why: str = ""


class Workshop:
    """The store of all files, and the connection that makes them."""

    def __init__(self, folder: Path, link: Connection) -> None:
        """Keep everything below `folder`."""
        self.folder = folder
        self.store = Store(folder / "store")
        self.link = link

    def watch(self, event: Event) -> None:
        """Say one line on standard error."""
        if not event.done:
            sys.stderr.write(f"{event.stage}: {event.text}\n")

    def make(self, candidate: Candidate, subject: Subject, n_images: int) -> Made:
        """Make a candidate's file, calibrated with `n_images` at most."""
        try:
            if isinstance(candidate.file, Ours):
                path = self.ours(candidate.file, subject, n_images)
            else:
                path = self.stock(candidate.file.recipe, subject, n_images)
        except (StageError, child.Unavailable) as error:
            return Made(candidate=candidate, path=None, why=str(error))
        return Made(candidate=candidate, path=path)

    def simplified(self, subject: Subject, passes: tuple[str, ...]) -> Simplified:
        """Export with deploykit and simplify."""
        part = ExportTable(tolerance=_TOLERANCE, batch=subject.batch)
        exported, _ = export.run(subject.source, part, SYNTHETIC, store=self.store, link=self.link, watch=self.watch)
        table = SimplifyTable(passes=passes)
        lean, _ = simplify.run(exported.onnx, table, store=self.store, link=self.link, watch=self.watch)
        return lean

    def ours(self, file: Ours, subject: Subject, n_images: int) -> Path:
        """Make one of deploykit's files."""
        lean = self.simplified(subject, file.passes).onnx
        if file.scheme is None:
            return self.store.path(lean)
        variant = Variant(name=file.scheme, scheme=file.scheme, options=dict(file.options))
        typed, _ = quantize.run(
            lean, variant, str(self.calibration(n_images)), store=self.store, link=self.link, watch=self.watch
        )
        return self.store.path(typed)

    def stock(self, recipe: str, subject: Subject, n_images: int) -> Path:
        """Make a stock file.

        Raises:
            StageError: The tool failed or crashed.
            Unavailable: It is not installed.
        """
        if recipe == "checkpoint":
            return subject.path
        raw = self._raw(subject)
        if recipe == "raw":
            return self.store.root / raw.path
        chosen = stock.RECIPES[recipe]
        n = min(n_images, chosen.n_images or n_images)
        made = self._produce(
            recipe,
            (raw.sha256, sha256_of(self.calibration(n))),
            chosen.libraries,
            "stock:make",
            recipe=recipe,
            source=str(self.store.root / raw.path),
            calibration=str(self.calibration(n)),
            n=n,
            preprocess=codec.to_json(subject.preprocess),
            batch=subject.batch,
        )
        return self.store.root / made.path

    def raw_macs(self, subject: Subject) -> int:
        """Count the multiply-accumulates of the stock export, per image."""
        return graph.macs(graph.load(self.stock("raw", subject, 0)))

    def calibration(self, n: int) -> Path:
        """Give the first `n` calibration images as npz."""
        return subjects.calibration(n, self.folder)

    def _raw(self, subject: Subject) -> File:
        return self._produce(
            f"raw-batch{subject.batch}",
            (sha256_of(subject.path),),
            ("torch", "onnx", "onnxscript"),
            "stock:export",
            checkpoint_file=str(subject.path),
            preprocess=codec.to_json(subject.preprocess),
            batch=subject.batch,
        )

    def _produce(
        self, name: str, inputs: tuple[str, ...], libraries: tuple[str, ...], function: str, **arguments: object
    ) -> File:
        key = Key(
            stage="stock",
            name=name,
            inputs=inputs,
            options=[function, name, arguments.get("batch"), arguments["preprocess"]],
            versions=(("stock", _VERSION), *((library, library_version(library)) for library in libraries)),
        )

        def make(folder: Path, home: str) -> File:
            self.watch(Event(stage="stock", text=name))
            ended = child.call(function, folder=str(folder), **arguments)
            if ended.why.startswith(("failed", "crashed")):
                raise StageError(f"{name} {ended.why}")
            if ended.why:
                raise child.Unavailable(ended.why)
            digest = digest_of(folder / ended.value)
            return File(path=f"{home}/{ended.value}", sha256=digest, seconds=ended.seconds, peak_mib=ended.peak_mib)

        return self.store.produce(File, key, make)[0]


@contextmanager
def opened(folder: Path) -> Iterator[Workshop]:
    """Open the workshop below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with devices.connect(devices.LOCAL) as link:
        yield Workshop(folder, link)
