"""Remove what no output depends on: nodes, initializers, operator sets, and the exporter's notes on each node."""

import onnx_ir as ir
from onnx_ir.passes import common

from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Remove all of it; counts the nodes and initializers that are gone. The model's own metadata stays."""
    before = len(model.graph) + len(model.graph.initializers)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    kept = dict(model.metadata_props)
    common.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.update(kept)
    return Outcome(fired=before - len(model.graph) - len(model.graph.initializers))


# Last: it removes what every other pass left behind.
PASS = Pass(apply=apply, promise=0.0, order=110)
