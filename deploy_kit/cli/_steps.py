"""What single steps share: the recipe in force, the newest fitting result, a copy for the user."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from deploy_kit import pipeline, recipe
from deploy_kit.base.errors import DeployKitError, DeviceError, InputError, RequestError, UnknownNameError, nearest
from deploy_kit.cli._console import Console
from deploy_kit.devices import links
from deploy_kit.pipeline import Run
from deploy_kit.recipe import Recipe, overrides
from deploy_kit.records.artifacts import Artifact, Exported
from deploy_kit.records.results import Simplified
from deploy_kit.store import JournalEntry, Store, verify_out, verify_place

DEMO = "demo"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a user may say about any step."""

    store: Path
    device: str = "local"
    recipe: str | None = None
    model: Path | None = None
    calibration: str | None = None
    images: str | None = None
    out: Path | None = None
    skip_bad: bool = False
    crops: int | None = None


def started(asked: Asked, console: Console, chosen: Recipe | None = None) -> AbstractContextManager[Run]:
    """Open store and device under the recipe in force.

    The recipe is, in this order: the one given, the one named, the bundled default for a model given, the one the
    newest result in the store was made under.

    Raises:
        RequestError: There is none: nothing was exported here yet.
    """
    device = links.find_device(asked.device)
    verify_out(asked.out)
    store = Store(asked.store)
    base = chosen or _in_force(asked, store, store.in_force(), console)
    return pipeline.opened(changed(base, asked), store, device, console.on_progress)


def changed(base: Recipe, asked: Asked) -> Recipe:
    """Apply what was said on the command line to a recipe."""
    return overrides.with_inputs(
        base,
        checkpoint=None if asked.model is None else str(asked.model),
        calibration=asked.calibration,
        images=asked.images,
        skip_bad=asked.skip_bad,
        crops=asked.crops,
    )


def _in_force(asked: Asked, store: Store, earlier: JournalEntry | None, console: Console) -> Recipe:
    if asked.recipe is not None:
        return recipe.load_recipe(asked.recipe)
    if asked.model is not None:
        console.say(f"recipe '{overrides.DEFAULT}' (limits and passes that ship with deploykit)")
        return overrides.for_checkpoint(str(asked.model))
    if earlier is None:
        raise RequestError(
            f"{store.root}: nothing was exported here yet",
            hint="deploykit export CHECKPOINT (without one it takes the bundled demo)",
        )
    return recipe.parse_recipe(dict(earlier.recipe))


def exported(run: Run, console: Console) -> Exported:
    """Give the export of the recipe in force: from the store, or made now."""
    result = pipeline.exported(run)
    console.say(f"using {result.onnx.path} ({result.checkpoint.title} of {result.checkpoint.name})")
    return result


def simplified(run: Run, console: Console) -> Simplified:
    """Give the simplified graph of the recipe in force: from the store, or made now, which is said."""
    source = exported(run, console)
    result = pipeline.simplified(run, source)
    if not run.times[-1].reused:
        console.say(f"simplified it first: {result.onnx.path}")
    return result


def newest_engine(run: Run, console: Console, source: Exported | None = None) -> Artifact:
    """Give the newest engine in the store, or the newest that comes from one export.

    Raises:
        RequestError: There is none.
    """
    family = {source.onnx.sha256, *pipeline.graphs_of(run.store, source)} if source is not None else None
    found = run.store.newest(Artifact, "build", where=lambda one: family is None or one.parent in family)
    if found is None and run.store.newest(Artifact, "build") is not None:
        raise RequestError(
            f"{run.store.root}: no engine was built here yet from the export in force",
            hint="deploykit build --engine onnxruntime, after quantize where it is to be int8",
        )
    if found is None:
        raise RequestError(
            f"{run.store.root}: no engine was built here yet", hint="deploykit build --engine onnxruntime"
        )
    console.say(f"using {found[0].path} ({found[0].label})")
    return found[0]


def newest_graph(root: Path, console: Console) -> Path:
    """Give the newest quantized graph in a store, else the simplified one, else the exported one.

    Raises:
        RequestError: There is none.
    """
    store = Store(root)
    quantized, simple, raw = (
        store.newest(Artifact, "quantize"), store.newest(Simplified, "simplify"), store.newest(Exported, "export")
    )  # fmt: skip
    found = quantized[0] if quantized else simple[0].onnx if simple else raw[0].onnx if raw else None
    if found is None:
        raise RequestError(f"{root}: no graph was made here yet", hint="deploykit lint model.onnx, or deploykit export")
    console.say(f"looking at {found.path} ({found.precision})")
    return store.path(found)


def quantized(run: Run, console: Console, variant: str | None = None) -> Artifact:
    """Give the graph to build: the variant named, else the newest quantized one, else the float one, simplified.

    Raises:
        UnknownNameError: No variant of this name was made from the graph in force.
    """
    source = exported(run, console)
    simple = run.store.newest(Simplified, "simplify", where=lambda found: found.onnx.parent == source.onnx.sha256)
    source_graph = simple[0].onnx if simple else pipeline.simplified(run, source).onnx
    made = [graph for graph in run.store.all(Artifact, "quantize") if graph.parent == source_graph.sha256]
    if variant is not None:
        by_name = {source_graph.name: source_graph} | {graph.name: graph for graph in reversed(made)}
        if variant not in by_name:
            raise UnknownNameError(f"no variant is called '{variant}' here", hint=nearest(variant, by_name))
        return by_name[variant]
    if made:
        console.say(f"building {made[0].path} ({made[0].precision})")
        return made[0]
    console.say(f"nothing is quantized here yet: building {source_graph.path} ({source_graph.precision})")
    return source_graph


def not_run(label: str, why: str) -> DeviceError:
    """Give the error for an engine that cannot run here: no answer is not a yes."""
    return DeviceError(f"{label}: not run: {why}", hint="run this step on a machine that has what the engine needs")


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
        raise InputError(f"{path}: exists, and is no recipe", hint="choose another --save-recipe") from error


def copy_out(run: Run, artifact: Artifact, out: Path | None, console: Console) -> None:
    """Copy a result and its passport to where the user wants it: whole, or not at all.

    Raises:
        InputError: The folder of the target does not exist.
        RequestError: The artifact is marked rejected.
    """
    if out is not None:
        run.store.copy_out(artifact, out)
        console.say(f"copied to {out}, passport beside it")
