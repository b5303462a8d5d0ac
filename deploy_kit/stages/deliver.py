"""Accepted engines → a folder of files under speaking names, each with its passport; no other file is touched."""

import glob
from dataclasses import dataclass
from pathlib import Path

from deploy_kit.base.errors import InputError
from deploy_kit.recipe import Recipe, overrides
from deploy_kit.records.artifacts import Artifact, Origin
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.passports import PASSPORT, read_passport
from deploy_kit.records.results import ParityReport, Report
from deploy_kit.store import Store


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What a delivery left in its folder.

    Attributes:
        files: (label, main file) of each engine that was copied.
        earlier: Files of its engines that an earlier delivery wrote and this one did not; they were kept.
    """

    files: tuple[tuple[str, Path], ...] = ()
    earlier: tuple[Path, ...] = ()


NOTHING = Delivered()


def run(report: Report, folder: Path, store: Store) -> Delivered:
    """Copy every engine into a folder whose accuracy its check accepted, and that no limit on latency rejects.

    A file is called by checkpoint, variant and, where two engines take files of one kind, engine:
    ``best-int8.onnx``, ``best-int8.xml`` with ``best-int8.bin``. Its passport is ``FILE.passport.json``.

    Args:
        report: What was built and checked.
        folder: Folder to write; it is created.
        store: Store that keeps the engines.

    Raises:
        InputError: A file of a name that is to be written was not written by deploykit.
        StoreError: A file cannot be written.
    """
    checked = [(row, row.artifact, row.parity) for row in report.rows if row.artifact and not row.failed]
    made = [
        (row, artifact, parity)
        for row, artifact, parity in checked
        if isinstance(parity, ParityReport) and parity.passed and not row.misses and not store.rejected(artifact)
    ]
    stem = overrides.name_of(report.checkpoint.name)
    names = _names(stem, tuple(artifact for _, artifact, _ in made))
    delivered = []
    for row, artifact, parity in made:
        out = folder / names[artifact.label]
        require_own(out)
        delivered.append((row.label, store.copy_out(artifact, out, _origin(report, artifact, parity))))
    old = {folder / name for _, one, _ in checked for name in (_plain(stem, one), _told_apart(stem, one))}
    old |= {path for path in folder.glob(f"{glob.escape(stem)}-*") if _is_of(report.checkpoint.name, path)}
    old -= {path for _, path in delivered}
    return Delivered(files=tuple(delivered), earlier=tuple(sorted(filter(_is_own, old))))


def require_room(recipe: Recipe, folder: Path) -> None:
    """Refuse a folder that holds files of the same names that deploykit did not write, before any work.

    Raises:
        InputError: It does, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder to deliver to, found a file", hint="choose another folder: -o")
    stem = overrides.name_of(recipe.source.checkpoint)
    for entry in recipe.build.engines:
        for variant in entry.variants:
            for path in sorted(folder.glob(f"{glob.escape(stem)}-{glob.escape(variant)}.*")):
                if path.suffix != ".bin" and not path.name.endswith(PASSPORT):
                    require_own(path)


def require_own(path: Path) -> None:
    """Refuse to put a file in the place of another that no earlier delivery wrote.

    Raises:
        InputError: It has no passport beside it.
    """
    if path.exists() and not _is_own(path):
        raise InputError(f"{path}: exists, and was not written by deploykit", hint="choose another folder: -o")


def _is_own(path: Path) -> bool:
    return path.is_file() and path.with_name(path.name + PASSPORT).is_file()


def _is_of(checkpoint: str, path: Path) -> bool:
    """Return whether a file was delivered for a checkpoint, by its passport."""
    passport = read_passport(path)
    return passport is not None and passport.origin is not None and passport.origin.checkpoint == checkpoint


def _names(stem: str, artifacts: tuple[Artifact, ...]) -> dict[str, str]:
    """Name each engine's file by its label: the engine is in the name only where it is needed to tell two apart."""
    plain = {artifact.label: _plain(stem, artifact) for artifact in artifacts}
    doubled = {name for name in plain.values() if list(plain.values()).count(name) > 1}
    return {
        artifact.label: _told_apart(stem, artifact) if plain[artifact.label] in doubled else plain[artifact.label]
        for artifact in artifacts
    }


def _plain(stem: str, artifact: Artifact) -> str:
    return f"{stem}-{artifact.name}{Path(artifact.path).suffix}"


def _told_apart(stem: str, artifact: Artifact) -> str:
    return f"{stem}-{artifact.name}-{artifact.engine}{Path(artifact.path).suffix}"


def _origin(report: Report, artifact: Artifact, parity: ParityReport) -> Origin:
    drop = parity.drop
    graphs = {graph.sha256: graph.made_by for graph in report.lineage}
    made_by = graphs.get(artifact.parent, MadeBy())
    return Origin(
        checkpoint=report.checkpoint.name,
        checkpoint_sha256=report.checkpoint.sha256,
        accuracy=parity.verdict.text,
        images=parity.images,
        n_images=parity.n,
        drop=f"{drop.what} {drop.points:+.2f} [{drop.low:+.2f}, {drop.high:+.2f}] points" if drop else "",
        answers_sha256=report.answers.sha256,
        images_sha256=report.answers.images_sha256,
        calibration=made_by.calibration,
        calibration_sha256=made_by.calibration_sha256,
        graph_made_by=made_by,
    )
