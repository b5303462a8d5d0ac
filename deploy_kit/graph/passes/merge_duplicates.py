"""Merge what is computed or stored twice: common subexpressions and equal initializers, by the library's passes."""

import onnx_ir as ir
from onnx_ir.passes import common

from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Merge both; counts the nodes and initializers that are gone."""
    before = len(model.graph) + len(model.graph.initializers)
    common.CommonSubexpressionEliminationPass()(model)
    common.DeduplicateInitializersPass(size_limit=1 << 20)(model)
    return Outcome(fired=before - len(model.graph) - len(model.graph.initializers))


# Behind all passes that rewrite nodes and weights: what they made equal is merged, too.
PASS = Pass(apply=apply, promise=0.0, order=100)
