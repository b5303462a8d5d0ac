"""Helpers of rules about quantized graphs: Q and DQ nodes, and zero points."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, onnx_file


def pairs(model: ir.Model) -> Iterator[ir.Node]:
    """Iterate over every QuantizeLinear and DequantizeLinear."""
    return (node for node in model.graph if node.op_type in onnx_file.PAIR)


def shifted(node: ir.Node) -> bool:
    """Return whether a Q or DQ has a zero point that is not 0, or one that is not known."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is None:
        return False
    numbers = edit.numbers(zero)
    return numbers is None or bool(numbers.astype(np.int64).any())


def stored(node: ir.Node) -> ir.DataType | None:
    """Return the type of a Q's output or of a DQ's input."""
    value = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    if value is not None and value.dtype is not None:
        return value.dtype
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.dtype
