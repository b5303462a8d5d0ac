"""Compute once what does not depend on the input: onnxscript's constant folder, then constants as initializers.

torch's exporter leaves a CastLike, a Shape and an Expand before each convolution for the bias that is not there.
"""

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from deploy_kit.base.errors import SimplifyError
from deploy_kit.graph.passes import Outcome, Pass

_MOST = 2**26  # numbers of one folded constant: 256 MiB as float32; what is larger stays to be computed
_FEW = 64  # numbers of a shape or a border, which others are computed of
_GROWING = frozenset({"Expand", "Tile", "Range", "Pad", "Resize", "OneHot", "ConstantOfShape"})
# What turns weights into the integers that are stored; from half precision runtimes round in different ways.
_QUANTIZING = frozenset(
    {("QuantizeLinear", ir.DataType.FLOAT), ("Clip", ir.DataType.INT8), ("Clip", ir.DataType.UINT8)}
)


def apply(model: ir.Model) -> Outcome:
    """Fold to a fixed point; counts the nodes that are gone.

    Raises:
        SimplifyError: A node of constants cannot be computed.
    """
    before = len(model.graph)
    try:
        optimizer.fold_constants(model, should_fold=_affordable)
    except RuntimeError as error:
        raise SimplifyError(f"{error}: {error.__cause__}") from error
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    return Outcome(fired=before - len(model.graph))


def _affordable(node: ir.Node) -> bool | None:
    """Refuse a result that is too large to be written out; None leaves the choice to the library's own rules.

    The folder computes a node before it looks at the size of the result. Of a Q/DQ pair on weights it leaves both: what
    quantizes them is computed here, and the DequantizeLinear stays, as it is their precision.
    """
    for value in node.outputs:
        if value.shape is not None and value.shape.is_static():
            if math.prod(side for side in value.shape if isinstance(side, int)) > _MOST:
                return False
        elif node.op_type in _GROWING and _stated_size(node) > _MOST:
            return False
    # The library leaves these, however small: behind one, torch.jit's exporter computes the border of a Pad.
    if node.op_type == "ConstantOfShape" and _stated_size(node) <= _FEW:
        return True
    kind = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
    return True if (node.op_type, kind) in _QUANTIZING else None


def _stated_size(node: ir.Node) -> float:
    """Bound the size of a result whose shape its constant inputs state: by the product of their numbers."""
    tensors = [value.const_value for value in node.inputs if value is not None and value.const_value is not None]
    numbers = [tensor.numpy().astype(np.float64) for tensor in tensors if 0 < tensor.size <= 64]
    return math.prod(float(np.maximum(np.abs(array), 1).prod()) for array in numbers) * max(
        (tensor.size for tensor in tensors), default=1
    )


# First: behind the nodes that compute it from constants, no other pass sees a weight or an axis.
PASS = Pass(apply=apply, promise=1e-6, order=10)
