"""Files that a command writes where the user says, beside its result."""

from pathlib import Path

from deploy_kit import recipe
from deploy_kit.base.errors import DeployKitError, InputError
from deploy_kit.cli._console import Console
from deploy_kit.pipeline import Run
from deploy_kit.records.artifacts import Artifact
from deploy_kit.store import verify_place


def verify_recipe_file(path: Path) -> None:
    """Refuse to put a recipe in the place of another file, before any work.

    Raises:
        InputError: A folder, a folder that does not exist, or a file that is not a recipe.
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
    if out is not None:
        run.store.copy_out(artifact, out)
        console.say(f"copied to {out}, with its passport")
