"""Compute once what does not depend on the input: onnxscript's constant folder, then constants as initializers.

torch's exporter leaves a CastLike, a Shape and an Expand before each convolution for the bias that is not there.
"""

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Fold to a fixed point; counts the nodes that are gone."""
    before = len(model.graph)
    optimizer.fold_constants(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    return Outcome(fired=before - len(model.graph))


# First: behind the nodes that compute it from constants, no other pass sees a weight or an axis.
PASS = Pass(apply=apply, promise=1e-6, order=10)
