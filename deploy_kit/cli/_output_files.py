"""Files that a command writes where the user says, beside its result."""

from pathlib import Path

from deploy_kit import recipe
from deploy_kit.base.errors import DeployKitError, InputError
from deploy_kit.base.plain_text import shell_word
from deploy_kit.base.whole_files import verify_place
from deploy_kit.cli._console import Console
from deploy_kit.pipeline import Run
from deploy_kit.recipe import Recipe
from deploy_kit.records.artifacts import Artifact
from deploy_kit.stages import report
from deploy_kit.stages.report import page


def verify_recipe_file(path: Path, chosen: Recipe) -> None:
    """Refuse to put a recipe in the place of another file, before any work.

    Raises:
        InputError: A folder, a folder that does not exist, a name that no recipe can have, or a file that holds
            anything but this recipe.
    """
    verify_place(path, f"--save-recipe {shell_word(path / 'my.yaml')}")
    if not path.exists():
        if path.suffix not in (".yaml", ".yml"):
            raise InputError(
                f"{path}: expected a file that ends in .yaml, as `deploykit run` reads it",
                hint=f"--save-recipe {shell_word(path.with_name(path.name + '.yaml'))}",
            )
        return
    try:
        earlier = recipe.load_recipe(str(path))
    except DeployKitError as error:
        raise InputError(f"{path}: exists, and is not a recipe", hint="choose another --save-recipe") from error
    if earlier != chosen:
        raise InputError(f"{path}: exists, and is another recipe", hint="delete it, or choose another --save-recipe")


def verify_page(path: Path) -> None:
    """Refuse to put a page in the place of another file, before any work.

    Raises:
        InputError: A folder, a folder that does not exist, or a file that is no page of deploykit's.
    """
    verify_place(path, f"--html {shell_word(path / 'comparison.html')}")
    if path.exists() and not page.is_page(path):
        raise InputError(f"{path}: exists, and was not written by deploykit", hint="choose another --html")


def verify_report_folder(folder: Path, checkpoint: str) -> None:
    """Refuse to put a report in the place of another checkpoint's, before any work.

    Raises:
        InputError: The folder holds the report of another checkpoint, or a file of its name that is no report.
    """
    file = folder / "report.json"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder for the report, found a file", hint="choose another --out")
    if not file.exists():
        return
    other = report.load_report(file).checkpoint.name
    if other != checkpoint:
        raise InputError(f"{file}: is the report of another checkpoint: {other}", hint="choose another --out")


def copy_out(run: Run, artifact: Artifact, out: Path | None, console: Console) -> None:
    """Copy a result and its passport to where the user wants it: whole, or not at all.

    Raises:
        InputError: The folder of the target does not exist.
        RequestError: The artifact is marked rejected.
    """
    if out is not None:
        run.store.copy_out(artifact, out)
        console.say(f"copied to {out}, with its passport")
