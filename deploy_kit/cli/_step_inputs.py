"""What a step works on: the newest fitting result in the store, or one that is made now."""

from pathlib import Path

from deploy_kit import pipeline
from deploy_kit.base.errors import RequestError, UnknownNameError, nearest
from deploy_kit.cli._console import Console
from deploy_kit.pipeline import Run
from deploy_kit.records.artifacts import Artifact, Exported
from deploy_kit.records.results import Simplified
from deploy_kit.store import Store


def exported(run: Run, console: Console) -> Exported:
    """Return the export of the recipe in force: from the store, or made now."""
    result = pipeline.exported(run)
    console.say(f"using {result.onnx.path} ({result.checkpoint.title} of {result.checkpoint.name})")
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


def newest_engine(run: Run, console: Console, source: Exported | None = None) -> Artifact:
    """Return the newest engine in the store, or the newest that comes from one export.

    Raises:
        RequestError: There is none.
    """
    family = {source.onnx.sha256, *pipeline.graphs_of(run.store, source)} if source is not None else None
    newest = run.store.newest(Artifact, "build", where=lambda engine: family is None or engine.parent in family)
    if newest is None and run.store.newest(Artifact, "build") is not None:
        raise RequestError(
            f"{run.store.root}: no engine was built here yet from the export in force",
            hint="deploykit build --engine onnxruntime, after quantize where it is to be int8",
        )
    if newest is None:
        raise RequestError(
            f"{run.store.root}: no engine was built here yet", hint="deploykit build --engine onnxruntime"
        )
    console.say(f"using {newest[0].path} ({newest[0].label})")
    return newest[0]


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
