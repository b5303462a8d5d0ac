"""Accepted engines → a folder of files under speaking names, each with its passport; no other file is touched."""

import dataclasses
import glob
import shlex
from dataclasses import dataclass
from pathlib import Path

from deploy_kit.base.errors import InputError
from deploy_kit.recipe import Recipe, overrides
from deploy_kit.records.artifacts import Artifact, Exported, Origin
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.passports import PASSPORT, files_of_copy, mismatch, read_passport
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
_LONGEST = 120  # characters of a value in a refusal


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


def require_unmixed(recipe: Recipe, source: Exported, folder: Path) -> None:
    """Refuse a folder in which a run would leave files of another checkpoint or preprocessing beside its own.

    What such a file holds cannot be told from its name, and who takes the wrong one feeds it wrong images.

    Args:
        recipe: What is to be done: files that it writes again are no obstacle.
        source: The export that all of its engines come from.
        folder: Folder to deliver to.

    Raises:
        InputError: It holds delivered files of another checkpoint or preprocessing that the recipe does not write.
    """
    stem = overrides.name_of(recipe.source.checkpoint)
    planned = {(entry.engine, name) for entry in recipe.build.engines for name in entry.variants}
    found = dict[Path, str]()
    for passport in sorted(folder.glob(f"*{PASSPORT}")):
        path = passport.with_name(passport.name.removesuffix(PASSPORT))
        earlier = read_passport(path)
        if earlier is None or earlier.origin is None:
            continue
        again = (earlier.engine, earlier.name) in planned and path.name in (
            _plain(stem, earlier), _told_apart(stem, earlier)
        )  # fmt: skip
        if not again and (other := _otherness(earlier, earlier.origin, source)):
            found[path] = other
    if not found:
        return
    first, other = next(iter(found.items()))
    more = f" (and {len(found) - 1} more of that kind)" if len(found) > 1 else ""
    files = shlex.join(str(part) for path in found for part in files_of_copy(path))
    raise InputError(
        f"{first}: is {other}, and would be left beside what this run delivers{more}",
        hint=f"choose another folder: -o; or remove what another run left: rm {files}",
    )


def _otherness(earlier: Artifact, origin: Origin, source: Exported) -> str:
    """Say of what a delivered file is; empty where it is of the same checkpoint and preprocessing as an export."""
    if origin.checkpoint_sha256 != source.checkpoint.sha256:
        same = origin.checkpoint == source.checkpoint.name
        return f"of {'an earlier content of ' if same else 'another checkpoint, '}{origin.checkpoint}"
    if earlier.preprocess != source.onnx.preprocess:
        return f"for another preprocessing ({earlier.preprocess.words})"
    return ""


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


def verify_passports(report: Report, folder: Path) -> int:
    """Refuse a report beside whose record passports lie that are not those it would deliver.

    Args:
        report: As it was read from its record.
        folder: Folder of the record.

    Returns:
        The number of passports that say what the report says.

    Raises:
        InputError: A passport was changed, is of another file, or says otherwise; the message names the field.
    """
    rows, agreeing = {row.label: row for row in report.rows}, 0
    for label, name in report.delivered:
        file, row = folder / name, rows.get(label)
        if not file.is_file() or row is None or row.artifact is None or not isinstance(row.parity, ParityReport):
            continue
        hint = "take the report, the files and their passports as they were delivered"
        if wrong := mismatch(file):
            raise InputError(f"{file}: {wrong}", hint=hint)
        passport = read_passport(file)
        if passport is None:
            continue
        told: list[tuple[str, Artifact | Origin, Artifact | Origin]] = [("", row.artifact, passport)]
        if passport.origin is not None:
            told.append(("origin.", _origin(report, row.artifact, row.parity), passport.origin))
        for place, ours, theirs in told:
            for entry in dataclasses.fields(ours):
                wanted, found = getattr(ours, entry.name), getattr(theirs, entry.name)
                # What a passport of an earlier version does not say contradicts nothing.
                if entry.name != "origin" and found not in (None, "") and found != wanted:
                    what = f"{file.name}: the report and the passport beside it differ in {place}{entry.name}"
                    raise InputError(f"{what}: {_short(wanted)} and {_short(found)}", hint=hint)
        agreeing += 1
    return agreeing


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


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
        max_drop=parity.limits.max_drop,
        min_top1=parity.limits.min_top1,
    )
