"""What a step works on: the newest fitting result in the store, or one that is made now."""

from collections.abc import Iterable
from pathlib import Path

from deploy_kit import pipeline
from deploy_kit.base.errors import RequestError, UnknownNameError, nearest
from deploy_kit.cli._console import Console
from deploy_kit.pipeline import Run
from deploy_kit.records.artifacts import Artifact, Exported, Preprocess
from deploy_kit.records.results import Simplified
from deploy_kit.store import Store


def exported(run: Run, console: Console) -> Exported:
    """Return the export of the recipe in force: from the store, or made now."""
    result = pipeline.exported(run)
    inputs = _inputs_told_apart(run, result.onnx)
    console.say(f"using {result.onnx.path} ({result.checkpoint.title} of {result.checkpoint.name}){inputs}")
    return result


def simplified(run: Run, console: Console) -> Simplified:
    """Return the simplified graph of the recipe in force: from the store, or made now, which is reported."""
    source = exported(run, console)
    result = pipeline.simplified(run, source)
    if not run.times[-1].reused:
        console.say(f"simplified first: {result.onnx.path}")
    return result


def float_graph(run: Run, console: Console) -> Artifact:
    """Return the graph to quantize: the simplified one, or where the recipe in force slims, the slimmed one."""
    graph = pipeline.float_graph(run, simplified(run, console))
    if graph.made_by.slimmed:
        console.say(f"using {graph.path}: {graph.made_by.slimmed}")
    return graph


def graph_to_build(run: Run, console: Console, variant: str | None = None) -> Artifact:
    """Return the graph to build: the variant named, else the newest quantized one, else the float one, simplified.

    Raises:
        UnknownNameError: No variant of this name was made from the graph in force.
    """
    source = exported(run, console)
    simple = run.store.newest(Simplified, "simplify", where=lambda result: result.onnx.parent == source.onnx.sha256)
    lean = pipeline.float_graph(run, simple[0] if simple else pipeline.simplified(run, source))
    quantized = [graph for graph in run.store.all(Artifact, "quantize") if graph.parent == lean.sha256]
    if variant is not None:
        by_name = {lean.name: lean} | {graph.name: graph for graph in reversed(quantized)}
        if variant not in by_name:
            raise UnknownNameError(f"no variant is called '{variant}' here", hint=nearest(variant, by_name))
        return by_name[variant]
    if quantized:
        console.say(f"building {quantized[0].path} ({quantized[0].precision})")
        return quantized[0]
    console.say(f"nothing is quantized here yet: building {lean.path} ({lean.precision})")
    return lean


def engines_in_force(run: Run, source: Exported | None = None) -> list[Artifact]:
    """List the engines in the store that come from one export, or from any export of the checkpoint in force.

    Returns:
        The engines, newest first.
    """
    checkpoint = run.recipe.source.checkpoint
    exports = [source] if source else [
        one for one in run.store.all(Exported, "export") if one.checkpoint.name == checkpoint
    ]  # fmt: skip
    family = {digest for one in exports for digest in (one.onnx.sha256, *pipeline.graphs_of(run.store, one))}
    return [engine for engine in run.store.all(Artifact, "build") if engine.parent in family]


def require_engines(run: Run, source: Exported | None = None) -> list[Artifact]:
    """List the engines that `engines_in_force` does.

    Raises:
        RequestError: There is none.
    """
    built = engines_in_force(run, source)
    if not built:
        others = run.store.newest(Artifact, "build") is not None
        of = f"'{run.recipe.source.checkpoint}', the checkpoint in force"
        if source:  # e.g. the newest of several, whose deployment was interrupted
            of = f"the export in force ({source.onnx.preprocess.words})"
        hint = "deploykit build --engine onnxruntime, after quantize where it is to be int8"
        if source and engines_in_force(run):
            hint += "; or take an earlier export up again: --recipe with the recipe.yaml of its report"
        raise RequestError(
            f"{run.store.root}: no engine was built here yet{f' from {of}' if others else ''}", hint=hint
        )
    return built


def newest_engine(
    run: Run,
    console: Console,
    source: Exported | None = None,
    *,
    engine: str | None = None,
    variant: str | None = None,
) -> Artifact:
    """Return the newest engine in the store that comes from one export, or from the checkpoint in force.

    Args:
        run: The run.
        console: Told which engine it is.
        source: The export; None for the checkpoint in force.
        engine: Name of its engine; None for any.
        variant: Name of its variant; None for any.

    Raises:
        RequestError: There is none.
    """
    built = require_engines(run, source)
    meant = [one for one in built if engine in (None, one.engine) and variant in (None, one.name)]
    if not meant:
        wanted = f"{variant or 'any variant'} · {engine or 'any engine'}"
        every = run.store.all(Artifact, "build")
        others = [one for one in every if engine in (None, one.engine) and variant in (None, one.name)]
        if others:
            raise RequestError(
                f"{run.store.root}: '{wanted}' was built here of another export than the newest, which has: "
                f"{_words(built[0])}",
                hint=f"give its delivered file, or export again as it was first: {_words(others[0])}",
            )
        raise RequestError(
            f"{run.store.root}: '{wanted}' was not built here yet",
            hint=nearest(wanted, [one.label for one in built]),
        )
    console.say(f"using {meant[0].path} ({meant[0].label}){_inputs_told_apart(run, meant[0])}")
    return meant[0]


def _words(engine: Artifact) -> str:
    return engine.preprocess.words if isinstance(engine.preprocess, Preprocess) else f"input {engine.inputs[0].shape}"


def tell_inputs_apart(run: Run, console: Console, engines: Iterable[Artifact]) -> None:
    """Name the input of each engine where the checkpoint in force was exported for different ones."""
    for engine in engines:
        if inputs := _inputs_told_apart(run, engine):
            console.say(f"using {engine.path} ({engine.label}){inputs}")


def _inputs_told_apart(run: Run, taken: Artifact) -> str:
    """Name the input of a graph or engine where the checkpoint in force was exported for different ones."""
    checkpoint = run.recipe.source.checkpoint
    exports = [one for one in run.store.all(Exported, "export") if one.checkpoint.name == checkpoint]
    return f": {taken.preprocess.words}" if len({one.onnx.preprocess for one in exports}) > 1 else ""


def newest_graph(root: Path, console: Console) -> Path:
    """Return the newest quantized graph in a store, else the simplified one, else the exported one.

    Raises:
        RequestError: There is none.
    """
    store = Store(root)
    quantized, simple, raw = (
        store.newest(Artifact, "quantize"), store.newest(Simplified, "simplify"), store.newest(Exported, "export")
    )  # fmt: skip
    graph = quantized[0] if quantized else simple[0].onnx if simple else raw[0].onnx if raw else None
    if graph is None:
        raise RequestError(f"{root}: no graph was made here yet", hint="deploykit lint model.onnx, or deploykit export")
    console.say(f"checking {graph.path} ({graph.precision})")
    return store.path(graph)
