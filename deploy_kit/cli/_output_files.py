"""Files a command writes where the user says: refused before any work, and whole or not at all."""

from pathlib import Path

from deploy_kit import recipe
from deploy_kit.base.errors import DeployKitError, InputError, RequestError
from deploy_kit.cli._console import Console
from deploy_kit.pipeline import Run
from deploy_kit.records.artifacts import Artifact
from deploy_kit.store import copy_whole, parts_of, write_whole

_PASSPORT = ".passport.json"


def verify_out(out: Path | None) -> None:
    """Refuse a target that cannot be written or is not ours to replace, before any work.

    Raises:
        InputError: A folder, a file in a folder that does not exist, or a file that no earlier copy made.
    """
    if out is None:
        return
    verify_place(out, f"--out '{out / 'model.onnx'}'")
    if out.exists() and not _passport_of(out).is_file():
        raise InputError(f"{out}: exists, and was not written by deploykit", hint="choose another --out")


def verify_place(file: Path, rather: str) -> None:
    """Refuse a file that cannot be written, before any work.

    Args:
        file: File to write.
        rather: What to write instead where it is a folder.

    Raises:
        InputError: A folder, or a file in a folder that does not exist.
    """
    if file.is_dir():
        raise InputError(f"{file}: expected a file to write, found a folder", hint=rather)
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: no such folder", hint=f"mkdir -p '{file.parent}'")


def verify_recipe_file(path: Path) -> None:
    """Refuse to put a recipe in the place of another file, before any work.

    Raises:
        InputError: A folder, a folder that does not exist, or a file that is no recipe.
    """
    verify_place(path, f"--save-recipe '{path / 'my.yaml'}'")
    try:
        if path.exists():
            recipe.load_recipe(str(path))
    except DeployKitError as error:
        raise InputError(f"{path}: exists, and is not a recipe", hint="choose another --save-recipe") from error


def copy_out(run: Run, artifact: Artifact, out: Path | None, console: Console) -> None:
    """Copy a result and its passport to where the user wants it: whole, or not at all.

    Raises:
        InputError: The folder of the target does not exist.
        RequestError: The artifact is marked rejected.
    """
    if out is None:
        return
    if run.store.rejected(artifact):
        raise RequestError(f"{artifact.path}: rejected by its last check, not copied", hint="deploykit check")
    source = run.store.path(artifact)
    parts = [part for part in parts_of(source) if not part.name.endswith(_PASSPORT)]
    for part in parts:
        copy_whole(part, out.with_suffix(part.suffix) if len(parts) > 1 else out)
    passport = (source.parent / "record.json").read_text(encoding="utf-8")
    write_whole(_passport_of(out), passport)
    console.say(f"copied to {out}, with its passport")


def _passport_of(out: Path) -> Path:
    return out.with_name(out.name + _PASSPORT)
