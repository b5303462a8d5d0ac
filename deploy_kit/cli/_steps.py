"""What single steps share: the recipe in force, and the run under it."""

import contextlib
from collections.abc import Iterator, Sequence

from deploy_kit import pipeline, recipe
from deploy_kit.base.errors import DeviceError, RequestError
from deploy_kit.cli._console import Console
from deploy_kit.cli._options import StepOptions
from deploy_kit.devices import links
from deploy_kit.parallel import ray_workers
from deploy_kit.pipeline import Run
from deploy_kit.recipe import Recipe, overrides
from deploy_kit.records.passports import verify_out
from deploy_kit.store import Store


@contextlib.contextmanager
def open_run(
    step: StepOptions, console: Console, chosen: Recipe | None = None, *, lasting: bool = True
) -> Iterator[Run]:
    """Open store and device under the recipe in force.

    The recipe is, in this order: the one chosen, the one named, for a model given the bundled default with what the
    model's last export was told, the one the newest result in the store was made under.

    Args:
        step: Options of the step.
        console: Draws progress.
        chosen: Recipe of a command that puts its own together.
        lasting: Whether what is said to this step is also said to the next.

    Raises:
        RequestError: There is none: nothing was exported here yet.
    """
    device = links.find_device(step.device)
    verify_out(step.out)
    store = Store(step.store)
    base = chosen or recipe_in_force(step, store, console)
    with (
        ray_workers.open_workers(step.on, console.say) as workers,
        pipeline.open_run(
            with_inputs(base, step), store, device, console.on_progress, lasting=lasting, workers=workers
        ) as run,
    ):
        yield run


def with_inputs(base: Recipe, step: StepOptions) -> Recipe:
    """Return a recipe with the inputs of the command line put over it."""
    return overrides.with_inputs(
        base,
        checkpoint=None if step.model is None else str(step.model),
        calibration=step.calibration,
        images=step.images,
        skip_bad=step.skip_bad,
        orientation=step.orientation,
        crops=step.crops,
        task=step.task,
        masks=step.masks,
        ignore_index=step.ignore_index,
        every_image=step.every_image,
    )


def with_device(rows: Sequence[tuple[str, str]], device: str) -> list[tuple[str, str]]:
    """Say below the first of (name, value) lines on which device they were found, unless that is this machine."""
    place = [("device", device)] if device != links.LOCAL.name else []
    return [*rows[:1], *place, *rows[1:]]


def not_run_error(label: str, why: str) -> DeviceError:
    """Return the error for an engine that cannot run here: no answer is not a yes."""
    return DeviceError(f"{label}: not run: {why}", hint="run this step on a machine that has what the engine needs")


def recipe_in_force(step: StepOptions, store: Store, console: Console) -> Recipe:
    """Return the recipe in force, as `open_run` says.

    Raises:
        RequestError: There is none: nothing was exported here yet.
    """
    if step.recipe is not None:
        return recipe.load_recipe(step.recipe)
    if step.model is not None:
        given = overrides.for_checkpoint(str(step.model))
        last = store.in_force(given.source.checkpoint)
        like = ", and the settings of the last export" if last else ""
        console.say(f"using recipe '{overrides.DEFAULT}' (limits and passes that ship with deploykit){like}")
        if last is None:
            return given
        told = recipe.parse_recipe(dict(last.recipe))
        return given.model_copy(update={"source": told.source, "export": told.export})
    earlier = store.in_force()
    if earlier is None:
        raise RequestError(
            f"{store.root}: nothing was exported here yet",
            hint="deploykit export CHECKPOINT (without CHECKPOINT it exports the bundled demo)",
        )
    return recipe.parse_recipe(dict(earlier.recipe))
