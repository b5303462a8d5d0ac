"""Helpers of graph rewrites: constants in and out, properties of nodes, and two neighbors that change places."""

import numpy as np
import onnx_ir as ir


def array(value: ir.Value | None) -> np.ndarray:
    """Return a constant as float64, so that what is computed from it is rounded once, to the graph's type."""
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float64)


def constant(value: ir.Value | None) -> bool:
    """Return whether a value exists and is a constant."""
    return value is not None and value.const_value is not None


def bias(node: ir.Node, n: int) -> np.ndarray:
    """Return the bias (n,) of a Conv or Gemm as float64, zeros where it has none."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return np.zeros(n) if value is None else np.broadcast_to(array(value).reshape(-1), (n,))


def initializer(model: ir.Model, name: str, values: np.ndarray, dtype: ir.DataType) -> ir.Value:
    """Register a constant under `name`, or under the next free name like it."""
    free = free_name(model, name)
    tensor = ir.Tensor(values.astype(dtype.numpy()), dtype=dtype, name=free)
    value = ir.Value(name=free, const_value=tensor, type=ir.TensorType(dtype), shape=ir.Shape(values.shape))
    model.graph.register_initializer(value)
    return value


def free_name(model: ir.Model, name: str) -> str:
    """Return `name`, or with a number behind it the first that no value of the graph has."""
    taken = {value.name for node in model.graph for value in node.outputs}
    taken |= {value.name for value in model.graph.inputs} | set(model.graph.initializers)
    free, number = name, 1
    while free in taken:
        free, number = f"{name}.{number}", number + 1
    return free


def alone(value: ir.Value) -> bool:
    """Return whether one node reads the value, once, and nothing else does."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def pads(node: ir.Node) -> bool:
    """Return whether a convolution or a pool reads beyond its input."""
    automatic = node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return automatic or any(node.attributes.get_ints("pads", ()))


def misses(pool: ir.Node) -> bool:
    """Return whether a window of the pool may hold padding alone: a dilated one can step over a small input."""
    return pads(pool) and any(step != 1 for step in pool.attributes.get_ints("dilations", ()))


def averages_padding(pool: ir.Node) -> bool:
    """Return whether the weights of an average pool may sum to less than one, because padding counts."""
    counted = bool(pool.attributes.get_int("count_include_pad", 0))
    return misses(pool) or (counted and (pads(pool) or bool(pool.attributes.get_int("ceil_mode", 0))))


def trains(norm: ir.Node) -> bool:
    """Return whether a BN normalizes by its own batch; before operator set 14 its further outputs say so."""
    return bool(norm.attributes.get_int("training_mode", 0)) or len(norm.outputs) > 1


def affine(norm: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """Return a and b of a BatchNormalization y = a·x + b, float64 per channel: a = γ/√(σ² + ε), b = β − a·μ."""
    gamma, beta, mean, variance = (array(value) for value in norm.inputs[1:5])
    scale = gamma / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    return scale, beta - scale * mean


def swap(model: ir.Model, first: ir.Node, second: ir.Node, between: ir.Shape | None) -> None:
    """Let `second`, the only reader of `first`, run before it: x → first → second becomes x → second → first.

    Args:
        model: The graph of both nodes.
        first: Node that runs first now; keeps its parameters.
        second: Node that will run first; keeps its attributes, and has one input.
        between: Shape of the value between the two afterwards.
    """
    source, middle, result = first.inputs[0], first.outputs[0], second.outputs[0]
    assert source is not None
    name, shape = result.name, result.shape
    result.replace_all_uses_with(middle, replace_graph_outputs=True)
    second.replace_input_with(0, source)
    first.replace_input_with(0, result)
    model.graph.remove(first)
    model.graph.insert_after(second, first)
    result.name, middle.name = middle.name, name
    result.shape, middle.shape = between, shape
