"""Which weights processors multiply and add in pairs, in 16 bits: x64 without VNNI, by VPMADDUBSW.

    |a₁·w₁ + a₂·w₂| < 2¹⁵ for all a in 0 … 255   ⇔   |w₁| ≤ 128, |w₂| ≤ 128 and |w₁ + w₂| ≤ 128

Seven bits for every weight are one way to keep this, and cost a bit of all. The sums alone cost less: weights that are
neighbours are seldom both large. Both runtimes take the weights of an output tap by tap, its channels innermost. ONNX
Runtime pairs them in this order throughout, oneDNN, which computes for OpenVINO, begins anew with each tap: the same
where channels are even in number. (Measured on integers that saturate in any other order: onnxruntime 1.31.1,
openvino 2026.4.1, convolutions of one to three dimensions, grouped, dilated and strided, Gemm and MatMul.) Depthwise
convolutions add in 32 bits in both, and so does ONNX Runtime's ConvInteger.
"""

import numpy as np
import onnx_ir as ir

from deploy_kit.base.file_notes import SUMS_FIT
from deploy_kit.graph import edit, onnx_file

MOST = 128
"""The largest |w₁ + w₂|."""
NO_PAIRS = np.empty((0, 2), np.int64)
# Where operators read weights, and their zero point.
_WEIGHT_AND_ZERO = {
    "DequantizeLinear": (0, 2), "QLinearConv": (3, 5), "QLinearMatMul": (3, 5), "MatMulInteger": (1, 3),
}  # fmt: skip
_ALONE = 64  # what any two weights may be, in whatever order they are added


def pairs(inputs: int, taps: int, *, depthwise: bool = False) -> np.ndarray:
    """List the weights of an output that are added in pairs.

    Args:
        inputs: Channels that an output reads.
        taps: Pixels of the kernel.
        depthwise: Whether it is a convolution with one input and one output channel in each group.

    Returns:
        (M, 2) indexes into (inputs · taps) weights in ONNX's order, taps innermost.
    """
    if depthwise:
        return NO_PAIRS
    order = np.arange(inputs * taps).reshape(inputs, taps).T
    through = order.reshape(-1)[: inputs * taps // 2 * 2].reshape(-1, 2)
    anew = order[:, : inputs // 2 * 2].reshape(-1, 2)
    return np.unique(np.concatenate([through, anew]), axis=0)


def pairs_of(rows: np.ndarray, group: int = 1) -> np.ndarray:
    """List the pairs of a convolution's weights (outputs, inputs / groups, …)."""
    return pairs(rows.shape[1], int(np.prod(rows.shape[2:])), depthwise=rows.shape[1] == 1 and group == len(rows))


def largest(rows: np.ndarray, paired: np.ndarray) -> np.ndarray:
    """Return the largest |w| or |w₁ + w₂| of each output, (outputs,), for weights (outputs, …)."""
    flat = rows.reshape(len(rows), -1)
    alone = np.abs(flat).max(1)
    if not len(paired):
        return np.asarray(alone)
    return np.asarray(np.maximum(alone, np.abs(flat[:, paired[:, 0]] + flat[:, paired[:, 1]]).max(1)))


def fit(model: ir.Model) -> bool:
    """Return whether all sums of two products of weights and uint8 activations are known to fit into 16 bits.

    Weights that the file does not store as integers, such as floats behind a Q/DQ pair, are not known.
    """
    fed = set(onnx_file.inputs(model))
    for node in model.graph:
        if fed.intersection(filter(None, node.inputs)):
            fed.update(node.outputs)
        if node.op_type not in _WEIGHT_AND_ZERO:
            continue
        inputs = dict(enumerate(node.inputs))
        read, zero_point = (inputs.get(index) for index in _WEIGHT_AND_ZERO[node.op_type])
        weight, zero = edit.numbers(read), edit.numbers(zero_point)
        if weight is None and read is not None and read not in fed:
            return False
        if weight is None or weight.dtype not in (np.int8, np.uint8):
            continue
        # uint8 around 128 is computed as int8
        whole = weight.astype(np.int64) - (0 if zero is None or not zero.size else int(zero.flat[0]))
        if np.abs(whole).max(initial=0) <= _ALONE:
            continue
        readers = node.outputs[0].uses() if node.op_type == "DequantizeLinear" else ((node, 1),)
        for user, index in readers:
            rows = _rows(user, index, whole)
            if rows is None or largest(*rows).max() > MOST:
                return False
    return True


def _rows(user: ir.Node, index: int, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return weights (outputs, inputs / groups, …) and their pairs as a node reads them; None where it is not known."""
    if index != 1 or whole.ndim < 2:
        return None
    if user.op_type in ("Conv", "QLinearConv"):
        return whole, pairs_of(whole, user.attributes.get_int("group", 1))
    if user.op_type not in ("Gemm", "MatMul", "QLinearMatMul", "MatMulInteger") or whole.ndim != 2:
        return None
    rows = whole if user.op_type == "Gemm" and user.attributes.get_int("transB") else whole.T
    return rows, pairs(rows.shape[1], 1)


def note(model: ir.Model) -> None:
    """Note in a graph of integers that its sums fit, where they do: engines compute it at full speed then.

    A note that another program left is dropped where it is not true.
    """
    if onnx_file.precision(model) == "int8" and fit(model):
        model.metadata_props[SUMS_FIT] = "1"
    else:
        model.metadata_props.pop(SUMS_FIT, None)
