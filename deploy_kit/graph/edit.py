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


def numbers(value: ir.Value | None) -> np.ndarray | None:
    """Return the numbers of an initializer or of a Constant node; None where there is no value, or a computed one."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


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
    return automatic(node) or any(node.attributes.get_ints("pads", ()))


def automatic(node: ir.Node) -> bool:
    """Return whether the padding follows from the size of the input."""
    return node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


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


def put_in_place(model: ir.Model, old: ir.Node, value: ir.Value, made: ir.Node) -> None:
    """Let the only output of a new node take the place of `value`, the only output that is read of `old`."""
    new, name = made.outputs[0], value.name
    new.shape, new.type = value.shape, value.type
    model.graph.insert_before(old, made)
    value.replace_all_uses_with(new, replace_graph_outputs=True)
    if not any(output.uses() for output in old.outputs):
        model.graph.remove(old, safe=True)
    value.name, new.name = None, name


def put_slice(
    model: ir.Model, before: ir.Node, value: ir.Value | None, of: tuple[ir.Value, int], ends: tuple[int, int]
) -> ir.Value:
    """Add a Slice of one axis in front of a node, and return its result.

    Args:
        model: The graph.
        before: The node.
        value: What the result takes the place of, name and all; None for a value of its own.
        of: What is sliced, and the axis.
        ends: First index, and the one behind the last.
    """
    source, axis = of
    name = str(value.name if value is not None else f"{source.name}.slice{axis}")
    numbers = {"from": ends[0], "to": ends[1], "axis": axis}
    inputs = [initializer(model, f"{name}.{word}", np.array([n]), ir.DataType.INT64) for word, n in numbers.items()]
    made = ir.node("Slice", [source, *inputs])
    new = made.outputs[0]
    new.type = source.type
    if source.shape is not None:
        new.shape = ir.Shape([*source.shape.dims[:axis], ends[1] - ends[0], *source.shape.dims[axis + 1 :]])
    model.graph.insert_before(before, made)
    if value is None:
        new.name = free_name(model, name)
    else:
        value.replace_all_uses_with(new, replace_graph_outputs=True)
        value.name, new.name = None, name
    return new


def slice_of(node: ir.Node) -> tuple[int, int, int, int] | None:
    """Return (axis, begin, end, step) of a Slice of one axis of known size, counted from the front; None otherwise."""
    source = node.inputs[0] if node.inputs else None
    shape = source.shape if source is not None else None
    if node.op_type != "Slice" or shape is None or len(node.inputs) < 4 or None in node.inputs:
        return None
    if not all(constant(value) for value in node.inputs[1:] if value is not None):
        return None
    given = [value.const_value for value in node.inputs[1:] if value is not None]
    numbers = [np.asarray(one.numpy(), np.int64).reshape(-1) for one in given if one is not None]
    if any(len(part) != 1 for part in numbers):
        return None
    begin, end, axis, step = (int(part[0]) for part in (*numbers, np.ones(1))[:4])
    size = shape[axis % len(shape)]
    if not isinstance(size, int) or step < 1:
        return None
    begin, end, step = slice(begin, end, step).indices(size)
    return axis % len(shape), begin, end, step


def rounded_otherwise(model: ir.Model) -> ir.Model:
    """Move each float32 weight to the next number above or below, by a seeded coin; the model itself is returned."""
    generator = np.random.default_rng(0)
    for name, value in model.graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT and value.const_value is not None:
            weights = value.const_value.numpy()
            towards = np.where(generator.random(weights.shape) < 0.5, np.float32(np.inf), np.float32(-np.inf))
            value.const_value = ir.Tensor(np.nextafter(weights, towards), name=name)
    return model
