"""What the stages are handed by the pipeline, made from what tests have at hand."""

from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.images import ImageSource
from deploy_kit.pipeline import Run
from deploy_kit.recipe import Recipe
from deploy_kit.store import Store


def images_of(name: object, *, skip_bad: bool = False) -> ImageSource | None:
    """Return the source of this name; None where there is none."""
    return None if name is None else ImageSource(name=str(name), skip_bad=skip_bad)


def run_of(recipe: Recipe, store: Store, connection: Connection, on_progress: ProgressCallback = no_progress) -> Run:
    """Return a run whose host and target are one connection."""
    context = Context(store=store, connection=connection, on_progress=on_progress)
    return Run(recipe=recipe, host=context, target=context)
