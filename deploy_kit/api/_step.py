"""What every function of the API opens: the store, the recipe that a result was made under, the devices, progress."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from deploy_kit import pipeline, recipe
from deploy_kit.base.errors import RequestError
from deploy_kit.base.progress import ProgressCallback, ProgressEvent, no_progress
from deploy_kit.base.progress_display import ProgressDisplay, can_move
from deploy_kit.devices import links
from deploy_kit.parallel import ray_workers
from deploy_kit.pipeline import Run
from deploy_kit.recipe import Recipe, overrides
from deploy_kit.records.artifacts import Artifact, Device, Exported
from deploy_kit.records.results import Simplified
from deploy_kit.records.slimming import Slimmed
from deploy_kit.stages import simplify
from deploy_kit.store import Store

PathLike: TypeAlias = str | os.PathLike[str]
Graph: TypeAlias = Exported | Simplified | Slimmed | Artifact | PathLike
StoreLike: TypeAlias = Store | PathLike | None
Progress: TypeAlias = ProgressCallback | Literal["auto"] | None

STORE, STORE_VARIABLE = ".deploykit", "DEPLOYKIT_STORE"


@dataclass(frozen=True, kw_only=True)
class OpenedStep:
    """One call at work.

    Attributes:
        run: Recipe, store and devices, as the pipeline's functions take them.
        remark: Called with what a user should know beside the result.
    """

    run: Run
    remark: Callable[[str], None]


def open_store(store: StoreLike) -> Store:
    """Return the store that is meant: the one given, the one that the environment names, or ``.deploykit``."""
    if isinstance(store, Store):
        return store
    return Store(store if store is not None else os.environ.get(STORE_VARIABLE) or STORE)


def find_device(device: Device | str) -> Device:
    """Return the device that is meant.

    Raises:
        DeviceError: No device of this name is known.
    """
    return links.find_device(device) if isinstance(device, str) else device


@contextlib.contextmanager
def opened(
    recipe_in_force: Recipe,
    store: Store,
    on_progress: Progress,
    *,
    stage: str,
    device: Device | str = "local",
    on: str = "",
) -> Iterator[OpenedStep]:
    """Open the devices under a recipe, and draw progress meanwhile.

    Args:
        recipe_in_force: The recipe; results are journaled under it.
        store: Keeps every result.
        on_progress: As the API's functions take it.
        stage: The stage's word, for remarks.
        device: Where to build, check and measure.
        on: Where to compute what needs no particular machine; see `parallel.ray_workers.open_workers`.
    """
    target = find_device(device)
    with (
        followed(on_progress, stage) as (callback, remark),
        ray_workers.open_workers(on, remark) as workers,
        pipeline.open_run(recipe_in_force, store, target, callback, workers=workers) as run,
    ):
        yield OpenedStep(run=run, remark=remark)


@contextlib.contextmanager
def followed(on_progress: Progress, stage: str) -> Iterator[tuple[ProgressCallback, Callable[[str], None]]]:
    """Turn what the API's functions take into a callback for events, and one for remarks that stay on the screen."""
    if on_progress == "auto" and can_move():
        with ProgressDisplay(moving=True) as display:
            yield display.on_progress, display.write
        return
    callback = on_progress if callable(on_progress) else no_progress
    yield callback, lambda text: callback(ProgressEvent(stage=stage, text=text))


def recipe_of(graph: Graph, store: Store) -> Recipe:
    """Return the recipe that a graph or an engine was made under; the bundled default for a user's own file.

    Raises:
        RequestError: It was not made in this store.
    """
    if isinstance(graph, (str, os.PathLike)):
        return overrides.for_checkpoint(os.fspath(graph))
    artifact = artifact_of(graph)
    folder = str(PurePosixPath(artifact.path).parent)
    entry = next((entry for entry in store.entries() if entry.recipe and entry.folder == folder), None)
    if entry is None:
        raise RequestError(
            f"{store.root}: '{artifact.path}' was not made in this store", hint="give store=, the folder it was made in"
        )
    return recipe.parse_recipe(dict(entry.recipe))


def artifact_of(graph: Exported | Simplified | Slimmed | Artifact) -> Artifact:
    """Return the passport of a graph."""
    return graph if isinstance(graph, Artifact) else graph.onnx


def exported(run: Run, graph: Graph) -> Artifact:
    """Return the graph that is meant; a user's own file is exported first."""
    return pipeline.exported(run).onnx if isinstance(graph, (str, os.PathLike)) else artifact_of(graph)


def simplified(run: Run, graph: Graph) -> Artifact:
    """Return the graph that is meant; a user's own file is exported first, and an exported graph simplified.

    Where the recipe slims, what was exported is slimmed as well.
    """
    artifact = exported(run, graph)
    return pipeline.float_graph(run, simplified_of(run, artifact)) if artifact.stage == "export" else artifact


def simplified_of(run: Run, graph: Artifact) -> Simplified:
    """Simplify an exported graph by the recipe in force."""
    table = run.recipe.simplify
    return run.timed("simplify", graph.name, lambda: simplify.run(graph, table, run.host))


def path_or_none(path: PathLike | None) -> Path | None:
    """Return a path that may have been given as text."""
    return None if path is None else Path(path)


def text_or_none(path: PathLike | None) -> str | None:
    """Return a path, or the name of a bundled file, as a recipe holds it."""
    return None if path is None else os.fspath(path)
