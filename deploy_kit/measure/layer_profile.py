"""Where an engine's time goes: its own layer times, put into stem, dense blocks, transitions and head.

Profiling slows every layer, the small ones most. So it runs in a worker of its own after the latency was measured, and
its total stands beside that latency. A layer whose name leads to no node of the graph stays ``unknown``.
"""

import itertools
import json
import statistics
from collections.abc import Iterable, Mapping

from deploy_kit import engines
from deploy_kit.devices.links import Connection
from deploy_kit.graph import layer_location, onnx_file
from deploy_kit.graph.layer_location import LayerLocation
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, Exported
from deploy_kit.records.layer_times import UNKNOWN_REGION, LayerKind, LayerProfile, LayerTime, ProfiledLayer, Trace
from deploy_kit.records.results import Simplified
from deploy_kit.store import Store

RUNS = 20
# An engine's own word for an operation, as far as it says more than the graph does: what it inserts and what it fuses.
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
        engine: What to profile.
        path: Its file, as a worker sees it.
        inputs: npy file of the input (N, C, H, W) float32, as a worker sees it.
        store: Has the graph it was built from; where it does not, no layer has a region.
        connection: Where.

    Returns:
        Its layers; none, and why, where the engine does not time them.

    Raises:
        StageError: The engine failed, or its profile is not as expected.
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
    typed = built_from(engine, store)
    return attribute_layers(
        trace, layer_location.locations(onnx_file.load(store.path(typed))) if typed is not None else {}
    )


def built_from(engine: Artifact, store: Store) -> Artifact | None:
    """Find the graph that an engine was built from; None where the store no longer has it."""
    graphs = itertools.chain(
        store.all(Artifact, "quantize"),
        (found.onnx for found in store.all(Simplified, "simplify")),
        (found.onnx for found in store.all(Exported, "export")),
    )
    return next((found for found in graphs if found.sha256 == engine.parent), None)


def attribute_layers(trace: Trace, places: Mapping[str, LayerLocation]) -> LayerProfile:
    """Put each layer where the names it was made of stand in the graph.

    Args:
        trace: What the engine said.
        places: Name of a node or value → where it stands.
    """
    return LayerProfile(
        source=trace.source,
        runs=len(trace.runs_ms),
        run_ms=statistics.median(trace.runs_ms),
        layers=tuple(
            _layer(layer, [places[name] for name in layer.origins if name in places]) for layer in trace.layers
        ),
    )


def _layer(layer: LayerTime, origins: list[LayerLocation]) -> ProfiledLayer:
    samples = layer.samples_ms
    return ProfiledLayer(
        name=layer.name,
        op=layer.op,
        kind=_kind(layer.op, origins),
        region=_region(origins),
        total_ms=sum(samples),
        mean_ms=statistics.fmean(samples),
        median_ms=statistics.median(samples),
    )


def _region(origins: list[LayerLocation]) -> str:
    """Give the region of a layer: where several nodes were fused across a border, that of those with the work."""
    work = [place for place in origins if place.kind in ("conv", "gemm")]
    found = {place.region for place in work or origins}
    return found.pop() if len(found) == 1 else UNKNOWN_REGION


def _kind(op: str, origins: Iterable[LayerLocation]) -> LayerKind:
    """Give the kind of a layer: the graph's word where it is known, for an engine may write a BN as a convolution.

    A fused convolution may bear the name of the ReLU at its end alone; then what made the ReLU's input decides.
    """
    kinds = {place.kind for place in origins}
    own = _KINDS.get(op)
    if own == "conv" and kinds:
        work = kinds | {place.made_by for place in origins}
        return next((kind for kind in ("conv", "gemm", "pool", "bn_relu") if kind in work), own)
    if own is not None:
        return own
    ranked: tuple[LayerKind, ...] = ("conv", "gemm", "pool", "concat", "bn_relu", "requantize", "copy")
    return next((kind for kind in ranked if kind in kinds), "other")
