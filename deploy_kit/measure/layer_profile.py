"""An engine's own layer times, by region of the network: stem, dense blocks, transitions and head.

Profiling slows every layer, the small ones most. So it runs in a worker of its own after the latency was measured, and
its total stands beside that latency. A layer whose name leads to no node of the graph stays ``unknown``.
"""

import json
import statistics
from collections.abc import Iterable, Mapping

from deploy_kit import engines
from deploy_kit.devices.links import Connection
from deploy_kit.graph import layer_location, onnx_file
from deploy_kit.graph.layer_location import LayerLocation
from deploy_kit.measure.source_graph import source_graph
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.layer_times import UNKNOWN_REGION, LayerKind, LayerProfile, LayerTime, ProfiledLayer, Trace
from deploy_kit.store import Store

RUNS = 20
"""Number of profiled runs."""
# Kinds by an engine's own name of an operation, for what the graph does not show: what engines insert and what they
# fuse. A name that is not here gets the kind of the nodes it was made from.
_KINDS: Mapping[str, LayerKind] = {
    **dict.fromkeys(("Reorder", "ReorderInput", "ReorderOutput", "Transpose", "Reshape", "MemcpyToHost"), "copy"),
    "MemcpyFromHost": "copy",
    **dict.fromkeys(("Convert", "Cast", "QuantizeLinear", "DequantizeLinear", "FakeQuantize"), "requantize"),
    **dict.fromkeys(("Convolution", "GroupConvolution", "Conv", "FusedConv", "NhwcFusedConv"), "conv"),
    "QLinearConv": "conv",
    **dict.fromkeys(("FullyConnected", "MatMul", "Gemm", "QGemm", "FusedGemm", "QLinearMatMul"), "gemm"),
    **dict.fromkeys(("Concat", "Concatenation", "QLinearConcat"), "concat"),
}


def profile_layers(engine: Artifact, *, path: str, inputs: str, store: Store, connection: Connection) -> LayerProfile:
    """Profile one engine in a worker of its own.

    Args:
        engine: Engine to profile.
        path: Path of the engine's file, as a worker sees it.
        inputs: Path of an npy file with the input (N, C, H, W) float32, as a worker sees it.
        store: Store that holds the graph it was built from; without the graph every region is ``unknown``.
        connection: Connection to the machine that runs it.

    Returns:
        The layers with their times; no layers and a remark where the engine does not time them.

    Raises:
        StageError: The engine failed, or its profile could not be read.
    """
    assert engine.engine is not None
    if engines.CATALOGUE.get(engine.engine).profile is None:
        why = f"engine '{engine.engine}' does not time its layers"
        return LayerProfile(source="", runs=0, run_ms=0.0, layers=(), remark=why)
    options = json.loads(engine.options)
    with connection.worker() as worker:
        answer = worker.ask(
            "profile", engine.path, engine=engine.engine, path=path, options=options, inputs=inputs, runs=RUNS
        )
    trace = codec.from_json(Trace, answer["trace"])
    graph = source_graph(engine, store)
    locations = layer_location.locations(onnx_file.load(store.path(graph))) if graph is not None else {}
    return attribute_layers(trace, locations)


def attribute_layers(trace: Trace, locations: Mapping[str, LayerLocation]) -> LayerProfile:
    """Assign each layer to the region and kind of the nodes that it was made from.

    Args:
        trace: Output of the engine's profiler.
        locations: Name of a node or value → its location in the network.
    """
    return LayerProfile(
        source=trace.source,
        runs=len(trace.runs_ms),
        run_ms=statistics.median(trace.runs_ms),
        layers=tuple(
            _profiled_layer(layer, [locations[name] for name in layer.origins if name in locations])
            for layer in trace.layers
        ),
    )


def _profiled_layer(layer: LayerTime, origins: list[LayerLocation]) -> ProfiledLayer:
    samples = layer.samples_ms
    return ProfiledLayer(
        name=layer.name,
        op=layer.op,
        kind=_kind_of_layer(layer.op, origins),
        region=_region_of_layer(origins),
        total_ms=sum(samples),
        mean_ms=statistics.fmean(samples),
        median_ms=statistics.median(samples),
    )


def _region_of_layer(origins: list[LayerLocation]) -> str:
    """Return the region of a layer; where nodes were fused across a border, that of the convolutions and products."""
    work = [location for location in origins if location.kind in ("conv", "gemm")]
    regions = {location.region for location in work or origins}
    return regions.pop() if len(regions) == 1 else UNKNOWN_REGION


def _kind_of_layer(op: str, origins: Iterable[LayerLocation]) -> LayerKind:
    """Return the kind of a layer: that of the graph's nodes where it is known, else that of the engine's operation.

    The graph comes first because an engine may write a BN as a convolution. A fused convolution may have only the name
    of the ReLU at its end; then the node that computes the ReLU's input decides.
    """
    kinds = {location.kind for location in origins}
    own = _KINDS.get(op)
    if own == "conv" and kinds:
        work = kinds | {location.made_by for location in origins}
        return next((kind for kind in ("conv", "gemm", "pool", "bn_relu") if kind in work), own)
    if own is not None:
        return own
    ranked: tuple[LayerKind, ...] = ("conv", "gemm", "pool", "concat", "bn_relu", "requantize", "copy")
    return next((kind for kind in ranked if kind in kinds), "other")
