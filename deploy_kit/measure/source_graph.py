"""The ONNX graph that an engine was built from, found in the store by its hash."""

import itertools

from deploy_kit.records.artifacts import Artifact, Exported
from deploy_kit.records.results import Simplified
from deploy_kit.store import Store


def source_graph(engine: Artifact, store: Store) -> Artifact | None:
    """Find the graph that an engine was built from; None where the store no longer holds it."""
    graphs = itertools.chain(
        store.all(Artifact, "quantize"),
        (simplified.onnx for simplified in store.all(Simplified, "simplify")),
        (exported.onnx for exported in store.all(Exported, "export")),
    )
    return next((graph for graph in graphs if graph.sha256 == engine.parent), None)
