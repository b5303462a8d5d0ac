"""What single steps share: the recipe in force, and the run under it."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy_kit import recipe
from deploy_kit.base.errors import DeployKitError, DeviceError, RequestError
from deploy_kit.cli import _output_files
from deploy_kit.cli._console import Console
from deploy_kit.cli._options import StepOptions
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.pipeline import Run
from deploy_kit.recipe import Recipe
from deploy_kit.store import JournalEntry, Store

DEMO, DEFAULT = "demo", "default"


@contextmanager
def open_run(step: StepOptions, console: Console, chosen: Recipe | None = None) -> Iterator[Run]:
    """Open store and device under the recipe in force.

    The recipe is, in this order: the one chosen, the one named, the bundled default for a model given, the one the
    newest result in the store was made under.

    Args:
        step: Options of the step.
        console: Draws progress.
        chosen: Recipe of a command that puts its own together.

    Raises:
        RequestError: There is none: nothing was exported here yet.
    """
    device = links.find_device(step.device)
    _output_files.verify_out(step.out)
    store = Store(step.store)
    earlier = store.in_force()
    in_force = with_options(chosen or _recipe_in_force(step, store, earlier, console), step)
    store.recipe = in_force.model_dump(mode="json")
    with links.connect_device(links.LOCAL) as here, links.connect_device(device) as there:
        host = Context(store=store, connection=here, on_progress=console.on_progress)
        try:
            yield Run(recipe=in_force, host=host, target=dataclasses.replace(host, connection=there))
        except DeployKitError:
            if earlier is not None:
                store.stand_by(earlier)  # options of a step that failed must not carry over to the next one
            raise


def with_options(base: Recipe, step: StepOptions) -> Recipe:
    """Return a recipe with the options of the command line put over it."""
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
    if step.calibration is not None:
        data["quantize"]["calibration"] = step.calibration
    if step.images is not None:
        data["check"]["images"] = step.images
    if step.skip_bad:
        data["quantize"]["skip_bad"] = data["check"]["skip_bad"] = True
    if step.crops is not None:
        data["check"]["crops"] = step.crops
    if step.model is not None:
        data["source"]["checkpoint"] = str(step.model)
    return recipe.parse_recipe(data)


def default_recipe(model: Path) -> Recipe:
    """Return the bundled default recipe for a user's own file."""
    data = recipe.load_recipe(DEFAULT).model_dump(mode="json", exclude_none=True)
    data["source"]["checkpoint"] = str(model)
    return recipe.parse_recipe(data)


def not_run_error(label: str, why: str) -> DeviceError:
    """Return the error for an engine that cannot run here: no answer is not a yes."""
    return DeviceError(f"{label}: not run: {why}", hint="run this step on a machine that has what the engine needs")


def _recipe_in_force(step: StepOptions, store: Store, earlier: JournalEntry | None, console: Console) -> Recipe:
    if step.recipe is not None:
        return recipe.load_recipe(step.recipe)
    if step.model is not None:
        console.say(f"using recipe '{DEFAULT}' (limits and passes that ship with deploykit)")
        return default_recipe(step.model)
    if earlier is None:
        raise RequestError(
            f"{store.root}: nothing was exported here yet",
            hint="deploykit export CHECKPOINT (without CHECKPOINT it exports the bundled demo)",
        )
    return recipe.parse_recipe(dict(earlier.recipe))
