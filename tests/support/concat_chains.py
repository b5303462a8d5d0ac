"""What several tests of chain_concats share."""

import numpy as np
import onnx_ir as ir
import tiny_graphs

SHAPE = (1, 2, 3, 4)


def drawn(n: int, *, axis: int = 1, shape: tuple[int, ...] = SHAPE) -> list[np.ndarray]:
    """Draw inputs that differ in their size along the axis, so that an exchange would show."""
    generator = np.random.default_rng(6)
    sizes = [[*shape[:axis], shape[axis] + index, *shape[axis + 1 :]] for index in range(n)]
    return [generator.standard_normal(size).astype(np.float32) for size in sizes]


def parse(body: str, inputs: list[np.ndarray], outputs: str) -> ir.Model:
    """Read a graph of the inputs a, b, c, … in this order."""
    rank = len(inputs[0].shape)
    takes = ", ".join(f"float[{','.join(map(str, x.shape))}] {name}" for name, x in zip("abcdef", inputs, strict=False))
    gives = ", ".join(f"float[{','.join(f'{name}{axis}' for axis in range(rank))}] {name}" for name in outputs)
    return tiny_graphs.parse(f"g ({takes}) => ({gives}) {{ {body} }}")


def read(model: ir.Model) -> list[str]:
    """List what each concatenation reads."""
    return [
        "".join(value.name for value in node.inputs if value is not None)
        for node in model.graph
        if node.op_type == "Concat"
    ]
