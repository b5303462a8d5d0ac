"""Where slimming saves time: the layers of the float engine before and after, measured one after the other."""

from collections.abc import Mapping

from deploy_kit import engines
from deploy_kit.context import Context
from deploy_kit.graph import layer_names, onnx_file
from deploy_kit.graph.layer_location import LayerLocation
from deploy_kit.images import ImageSource
from deploy_kit.images.arrays import write_npy
from deploy_kit.measure import layer_profile
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.layer_times import Trace
from deploy_kit.records.slimming import LayerSaving


def savings(
    before: Artifact, after: Artifact, engine: str, context: Context, images: ImageSource
) -> tuple[tuple[LayerSaving, ...], str]:
    """Profile both graphs in float32 and put their layer groups beside each other.

    Args:
        before: The graph before.
        after: The slimmed graph.
        engine: Engine that runs them.
        context: Where.
        images: Images, of which the first batch is run.

    Returns:
        A row for each layer group, and why there are none; empty where there are.
    """
    if engines.CATALOGUE.get(engine).profile is None:
        return (), f"engine '{engine}' does not time its layers"
    with context.connection.worker() as worker:
        why = str(worker.ask("why_unavailable", before.path, engine=engine)["why"])
    if why:
        return (), why
    # A layer that went shifts the numbers of those behind it: both graphs' nodes have the names of the first's groups.
    locations = layer_names.named_locations(onnx_file.load(context.store.path(before)))
    first, second = (_medians(graph, engine, context, images, locations) for graph in (before, after))
    return tuple(LayerSaving(name=name, before_ms=first[name], after_ms=second.get(name, 0.0)) for name in first), ""


def _medians(
    graph: Artifact, engine: str, context: Context, images: ImageSource, locations: Mapping[str, LayerLocation]
) -> dict[str, float]:
    """Return the time of each layer group in ms, summed over the medians of its layers."""
    size, file = graph.inputs[0].shape[0], context.store.path(graph)
    batch = next(images.open(graph.preprocess).batches(graph.preprocess, size if isinstance(size, int) else 1))
    inputs = context.connection.folder / "image.npy"
    write_npy(inputs, batch)
    context.report("slim", f"profiling {engine}: {graph.path}")
    with context.connection.worker() as worker:
        answer = worker.ask(
            "profile",
            graph.path,
            engine=engine,
            path=context.connection.send(file),
            options={},
            inputs=context.connection.send(inputs),
            runs=layer_profile.RUNS,
        )
    trace = codec.from_json(Trace, answer["trace"])
    found = layer_profile.attribute_layers(trace, locations)
    totals: dict[str, float] = {}
    for layer in found.layers:
        totals[layer.region] = totals.get(layer.region, 0.0) + layer.median_ms
    return totals
