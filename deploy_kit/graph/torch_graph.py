"""An ONNX graph computed by torch, node by node: any part of it, with other weights, with gradients, or exported.

Covers the operators of convolutional classifiers in float32. Whoever uses it compares it with ONNX Runtime first.
"""

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it

from deploy_kit.base.errors import InputError
from deploy_kit.graph import onnx_file

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

Behind: TypeAlias = Callable[[ir.Node, torch.Tensor], torch.Tensor]


class TorchGraph:
    """The nodes of a graph, and its constants as tensors."""

    def __init__(self, model: ir.Model, *, quantized: bool = False) -> None:
        """Read a graph; Q/DQ pairs of one that may be `quantized` are computed by whoever walks it.

        Raises:
            InputError: It has an operator, or a form of one, that is not covered.
        """
        self.nodes = tuple(model.graph)
        if unknown := [name for name in unknown_operators(model) if not (quantized and name in onnx_file.PAIR)]:
            raise InputError(
                f"the graph has operators that torch is not told how to compute: {', '.join(unknown)}",
                hint="simplify the graph first: deploykit simplify",
            )
        self.input = str(onnx_file.inputs(model)[0].name)
        self.output = str(model.graph.outputs[0].name)
        size = onnx_file.specs(onnx_file.inputs(model))[0].shape[0]
        self._batch = size if isinstance(size, int) else 1
        held = [(value.name, value.const_value) for value in model.graph.initializers.values()]
        held += [(n.outputs[0].name, n.attributes["value"].as_tensor()) for n in self.nodes if n.op_type == "Constant"]
        self.constants = {
            str(name): torch.from_numpy(np.array(tensor.numpy())) for name, tensor in held if tensor is not None
        }

    def compute(self, node: ir.Node, inputs: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Compute the first output of one node.

        Args:
            node: One of the graph's nodes.
            inputs: Its inputs; the first axis of activations may be of any size.

        Raises:
            InputError: A form of the operator that is not covered.
        """
        if node.op_type == "Reshape":
            return _reshape(inputs, self._batch)
        return _OPERATORS[node.op_type](node, inputs)

    def run(self, values: dict[str, torch.Tensor], wanted: Iterable[ir.Node], behind: Behind | None = None) -> None:
        """Compute nodes in graph order and add their outputs to `values`.

        Args:
            values: Activations by name; holds what the nodes read, except constants.
            wanted: Nodes to compute, in graph order.
            behind: (node, its result) → what its readers see instead.
        """
        for node in wanted:
            if node.op_type != "Constant":
                inputs = [None if value is None else self._value(values, str(value.name)) for value in node.inputs]
                result = self.compute(node, inputs)
                values[str(node.outputs[0].name)] = result if behind is None else behind(node, result)

    def _value(self, values: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
        return values[name] if name in values else self.constants[name]

    def forward(
        self,
        images: np.ndarray | torch.Tensor,
        visit: Callable[[ir.Node, torch.Tensor], None] | None = None,
        behind: Behind | None = None,
    ) -> torch.Tensor:
        """Compute the output of images (N, C, …); activations are dropped behind their last reader.

        Args:
            images: float32; a tensor may be on any device, if the constants are.
            visit: Called for each node with its first input, before it is computed.
            behind: As for `run`.
        """
        last = {str(v.name): node for node in self.nodes for v in node.inputs if v is not None}
        values = {self.input: torch.as_tensor(images)}
        for node in self.nodes:
            if visit is not None and node.inputs and node.inputs[0] is not None:
                source = values.get(str(node.inputs[0].name))
                if source is not None:
                    visit(node, source)
            self.run(values, (node,), behind)
            for value in node.inputs:
                if value is not None and last[str(value.name)] is node and str(value.name) != self.output:
                    values.pop(str(value.name), None)
        return values[self.output]


def unknown_operators(model: ir.Model) -> list[str]:
    """List the operators of a graph that are not covered; Q/DQ pairs are not."""
    return sorted({node.op_type for node in model.graph} - _OPERATORS.keys())


@dataclass(frozen=True)
class _Grid:
    """Numbers that an int8 tensor stands for: (integer - zero) * scale."""

    scale: float
    zero: int


class TorchModule(torch.nn.Module):
    """The graph as a module for `torch.export`: weights are buffers; scales, zero points and shapes are numbers.

    Quantized tensors are int8; uint8 ones are moved by 128, as are their zero points. An operator that reads one
    computes on the numbers that it stands for and writes the same grid, so that a backend sees the pattern that it
    fuses: dequantize, operator, quantize. Biases of int32 are float.
    """

    def __init__(self, model: ir.Model) -> None:
        """Read a graph.

        Raises:
            InputError: It has an operator, a form of one, or a quantizer, that is not covered.
        """
        import torch.ao.quantization.fx._decomposed  # registers the operators of Q/DQ pairs; takes a second

        super().__init__()
        self._graph = TorchGraph(model, quantized=True)
        self._constants = self._graph.constants
        self._grids, self._weight_grids = dict[str, _Grid](), dict[str, _Grid]()
        self._rescaled = dict[str, tuple[torch.Tensor, torch.Tensor]]()
        for node in self._graph.nodes:
            self._plan(node)
        self._flat = {name: held.flatten() for name, held in self._constants.items() if held.dim() < 2}
        self._buffer_names = {name: f"constant{index}" for index, name in enumerate(self._constants)}
        for name, key in self._buffer_names.items():
            self.register_buffer(key, self._constants[name])

    def _plan(self, node: ir.Node) -> None:
        """Find the grid of a node's output, and compute what depends on constants alone."""
        names, out = _names(node.inputs), str(node.outputs[0].name)
        if node.op_type == "QuantizeLinear":
            own = self._scaling(node)
            readers = [reader for reader, index in node.outputs[0].uses() if reader.op_type == "DequantizeLinear"]
            scale, zero = self._scaling(readers[0]) if readers else own
            if scale.numel() != 1 or any(not _same(self._scaling(reader), (scale, zero)) for reader in readers):
                raise _unsupported(node, "a scale of each channel, or a tensor that is read in several ways,")
            self._grids[out] = _Grid(float(scale.item()), int(zero.item()))
            if not _same(own, (scale, zero)):
                # Read on another grid than it was written on, as pixels are: y / scale + zero is the integer.
                shape = [-1 if axis == node.attributes.get_int("axis", 1) else 1 for axis in range(4)]
                factor, offset = scale / own[0], (own[1] - zero) * scale
                self._rescaled[out] = (factor.reshape(shape), offset.to(torch.float32).reshape(shape))
        elif node.op_type == "DequantizeLinear":
            held = self._constants.get(names[0] or "")
            if held is None:
                return
            scale, zero = self._scaling(node)
            if held.dtype == torch.int8 and _requantized(node) and scale.numel() == 1:
                # Read here: numbers that are read while torch.export traces would be unknown to it.
                self._weight_grids[out] = _Grid(float(scale.item()), int(zero.item()))
            elif held.dtype == torch.int8 and _requantized(node):  # backends want a scale of each channel as a buffer
                self._constants |= {f"{out}/scale": scale, f"{out}/zero": zero.to(torch.int64)}
            else:  # a bias, or weights of what writes float: the numbers that they stand for
                axis = node.attributes.get_int("axis", 1) if scale.numel() > 1 else 0
                shape = [-1 if index == axis else 1 for index in range(held.dim())]
                self._constants[out] = (_signed(held).float() - zero.reshape(shape)) * scale.reshape(shape)
        elif quantized := [name for name in names if name in self._grids]:
            grid = self._grids[quantized[0]]
            if any(self._grids[name] != grid for name in quantized):
                raise _unsupported(node, "integers of several scales")
            self._grids[out] = grid
            for name in names:
                if name in self._constants and self._constants[name].dtype in (torch.uint8, torch.int8):
                    self._constants[name] = (_signed(self._constants[name]).float() - grid.zero) * grid.scale

    def _scaling(self, node: ir.Node) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and zero point (float32, int32) of a quantizer, the zero point as of int8."""
        names = _names(node.inputs)
        scale = self._constants.get(names[1] or "")
        zero = self._constants.get(names[2] or "") if len(names) > 2 else torch.zeros(1, dtype=torch.uint8)
        if scale is None or zero is None or zero.dtype not in (torch.uint8, torch.int8, torch.int32):
            raise _unsupported(node, "a scale that is computed, or a type other than 8 bits,")
        return scale.float(), _signed(zero).to(torch.int32)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the output of images of the graph's own batch size."""
        values = {self._graph.input: images}
        for node in self._graph.nodes:
            out = str(node.outputs[0].name)
            if out not in self._constants:
                values[out] = self._compute(node, out, values)
        return values[self._graph.output]

    def _compute(self, node: ir.Node, out: str, values: dict[str, torch.Tensor]) -> torch.Tensor:
        names = _names(node.inputs)
        inputs = [None if name is None else self._real(name, values) for name in names]
        if node.op_type in (
            "Clip",
            "Pad",
        ):  # their bounds and fill are numbers, which a buffer would hide from the trace
            inputs[1:] = [None if name is None else self._flat[name] for name in names[1:]]
        if node.op_type == "DequantizeLinear":
            return _first(inputs) if names[0] in self._grids else self._weights(node, str(names[0]))
        if node.op_type == "QuantizeLinear":
            found = _first(inputs)
            if out in self._rescaled:
                factor, offset = self._rescaled[out]
                found = found * factor + offset
        else:
            found = self._graph.compute(node, inputs)
        grid = self._grids.get(out)
        if grid is None:
            return found
        quantize = torch.ops.quantized_decomposed.quantize_per_tensor
        return torch.as_tensor(quantize(found, grid.scale, grid.zero, -128, 127, torch.int8))

    def _real(self, name: str, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return a tensor as real numbers; integers that are no activations as they are."""
        if name not in values:
            constant = self._constants[name]
            return self.get_buffer(self._buffer_names[name]) if constant.is_floating_point() else constant
        grid = self._grids.get(name)
        if grid is None:
            return values[name]
        restore = torch.ops.quantized_decomposed.dequantize_per_tensor
        return torch.as_tensor(restore(values[name], grid.scale, grid.zero, -128, 127, torch.int8))

    def _weights(self, node: ir.Node, name: str) -> torch.Tensor:
        out, held = str(node.outputs[0].name), self.get_buffer(self._buffer_names[name])
        if (grid := self._weight_grids.get(out)) is not None:
            one = torch.ops.quantized_decomposed.dequantize_per_tensor
            return torch.as_tensor(one(held, grid.scale, grid.zero, -128, 127, torch.int8))
        scale, zero = (self.get_buffer(self._buffer_names[f"{out}/{key}"]) for key in ("scale", "zero"))
        each, axis = torch.ops.quantized_decomposed.dequantize_per_channel, node.attributes.get_int("axis", 1)
        return torch.as_tensor(each(held, scale, zero, axis, -128, 127, torch.int8))


def _names(values: Iterable[ir.Value | None]) -> list[str | None]:
    return [None if value is None else str(value.name) for value in values]


def _signed(integers: torch.Tensor) -> torch.Tensor:
    """Return 8-bit integers as int8, uint8 moved by 128."""
    return (integers.to(torch.int16) - 128).to(torch.int8) if integers.dtype == torch.uint8 else integers


def _requantized(weights: ir.Node) -> bool:
    """Return whether the one reader of weights writes integers, by itself or through its ReLU."""
    readers = [reader for reader, _ in weights.outputs[0].uses()]
    if len(readers) == 1 and readers[0].op_type != "QuantizeLinear":
        readers = [reader for reader, _ in readers[0].outputs[0].uses()]
    if len(readers) == 1 and readers[0].op_type == "Relu":
        readers = [reader for reader, _ in readers[0].outputs[0].uses()]
    return len(readers) == 1 and readers[0].op_type == "QuantizeLinear"


def _same(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(
        a.numel() == b.numel() and bool((a.flatten() == b.flatten()).all()) for a, b in zip(one, other, strict=True)
    )


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of returning each to the system; where there is no glibc, do nothing.

    Fresh pages are zeroed by the kernel at the first touch: a small DenseNet's forward pass of 10,000 images took 57 s
    with it, 6 s without.
    """
    allocator: Any = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(_M_MMAP_MAX, 0)
        allocator.mallopt(_M_TRIM_THRESHOLD, 2_000_000_000)


Inputs = Sequence[torch.Tensor | None]


def _given(inputs: Inputs, index: int) -> torch.Tensor | None:
    return inputs[index] if len(inputs) > index else None


def _first(inputs: Inputs) -> torch.Tensor:
    assert inputs[0] is not None
    return inputs[0]


def _both(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    assert inputs[0] is not None
    assert inputs[1] is not None
    return inputs[0], inputs[1]


def _unsupported(node: ir.Node, what: str) -> InputError:
    return InputError(f"{node.op_type} '{node.name}': {what} is not covered")


def _pads(node: ir.Node, rank: int, x: torch.Tensor, fill: float) -> tuple[torch.Tensor, list[int]]:
    """Pad by hand where the two ends differ; return what is left for torch to pad."""
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise _unsupported(node, "auto_pad")
    pads = node.attributes.get_ints("pads", [0] * 2 * rank)
    begins, ends = list(pads[:rank]), list(pads[rank:])
    if begins == ends:
        return x, begins
    flat = [n for pair in zip(reversed(begins), reversed(ends), strict=True) for n in pair]
    return F.pad(x, flat, value=fill), [0] * rank


def _conv(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    x, weight = _both(inputs)
    rank, moves = weight.dim() - 2, node.attributes
    x, padding = _pads(node, rank, x, 0.0)
    call = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}.get(rank)
    if call is None:
        raise _unsupported(node, f"a kernel of {rank} axes")
    ones = [1] * rank
    return call(
        x,
        weight,
        _given(inputs, 2),
        stride=list(moves.get_ints("strides", ones)),
        padding=padding,
        dilation=list(moves.get_ints("dilations", ones)),
        groups=moves.get_int("group", 1),
    )


def _norm(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    gamma, beta, mean, variance = inputs[1:5]
    return F.batch_norm(
        _first(inputs), mean, variance, gamma, beta, training=False, eps=node.attributes.get_float("epsilon", 1e-5)
    )


def _gemm(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    a, b = _both(inputs)
    moves, c = node.attributes, _given(inputs, 2)
    a = a.T if moves.get_int("transA", 0) else a
    plain = moves.get_float("alpha", 1.0) == moves.get_float("beta", 1.0) == 1 and (c is None or c.dim() == 1)
    if plain and moves.get_int("transB", 0) == 1:
        return F.linear(a, b, c)  # one operator, which backends know
    b = b.T if moves.get_int("transB", 0) else b
    product = moves.get_float("alpha", 1.0) * (a @ b)
    return product if c is None else product + moves.get_float("beta", 1.0) * c


def _pool(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    x, moves = _first(inputs), node.attributes
    kernel = list(moves.get_ints("kernel_shape"))
    rank, most = len(kernel), node.op_type == "MaxPool"
    if rank not in (1, 2, 3):
        raise _unsupported(node, f"a kernel of {rank} axes")
    dilations = list(moves.get_ints("dilations", [1] * rank))
    x, padding = _pads(node, rank, x, -torch.inf if most else 0.0)
    if not most and (dilations != [1] * rank or (x is not inputs[0] and not moves.get_int("count_include_pad", 0))):
        raise _unsupported(node, "dilated, or padded differently at both ends,")
    strides = list(moves.get_ints("strides", [1] * rank))
    ceil = bool(moves.get_int("ceil_mode", 0))
    if most:
        largest = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[rank]
        return torch.as_tensor(largest(x, kernel, strides, padding, dilations, ceil_mode=ceil))
    mean: Any = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[rank]
    counted = bool(moves.get_int("count_include_pad", 0))
    return torch.as_tensor(mean(x, kernel, strides, padding, ceil_mode=ceil, count_include_pad=counted))


def _reduce_mean(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    x, given = _first(inputs), _given(inputs, 1)
    axes = given.tolist() if given is not None else list(node.attributes.get_ints("axes", ()))
    return x.mean(dim=axes or list(range(x.dim())), keepdim=bool(node.attributes.get_int("keepdims", 1)))


def _reshape(inputs: Inputs, batch: int) -> torch.Tensor:
    """Reshape; a size that was written for the graph's own batch stands for any."""
    x, wanted = _both(inputs)
    shape = wanted.tolist()  # reads the constant itself: `int` of an item would be traced by torch.export
    if shape and shape[0] == batch:
        shape[0] = x.shape[0]
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


def _squeeze(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    x, given = _first(inputs), _given(inputs, 1)
    axes = given.tolist() if given is not None else list(node.attributes.get_ints("axes", ()))
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.squeeze(axis)
    return x


def _number(constant: torch.Tensor) -> float:
    """Return the one number of a constant; torch.export traces that of a tensor without axes."""
    found = constant.tolist()
    return float(found[0] if isinstance(found, list) else found)


def _clip(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    low, high, moves = _given(inputs, 1), _given(inputs, 2), node.attributes
    bottom: Any = _number(low) if low is not None else moves.get_float("min", -torch.inf)
    top: Any = _number(high) if high is not None else moves.get_float("max", torch.inf)
    return _first(inputs).clamp(bottom, top)


def _pad(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    """Pad with a constant; the widths are those of all axes, begins before ends."""
    x, widths = _both(inputs)
    if node.attributes.get_string("mode", "constant") != "constant" or _given(inputs, 3) is not None:
        raise _unsupported(node, "a mode other than constant, or some axes alone,")
    fill, rank = _given(inputs, 2), x.dim()
    sides = widths.tolist()
    flat = [sides[axis + end * rank] for axis in reversed(range(rank)) for end in (0, 1)]
    return F.pad(x, flat, value=0.0 if fill is None else _number(fill))


def _cast(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    if node.attributes.get_int("to") != ir.DataType.FLOAT:
        raise _unsupported(node, "a type other than float32")
    return _first(inputs).float()


def _where(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    condition, yes, no = inputs
    assert condition is not None
    assert yes is not None
    assert no is not None
    return torch.where(condition, yes, no)


def _over_pixels(x: torch.Tensor) -> list[int]:
    return list(range(2, x.dim()))


_OPERATORS: dict[str, Callable[[ir.Node, Inputs], torch.Tensor]] = {
    "Add": lambda node, inputs: torch.add(*_both(inputs)),
    "AveragePool": _pool,
    "BatchNormalization": _norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat([x for x in inputs if x is not None], node.attributes.get_int("axis")),
    "Constant": lambda node, inputs: torch.as_tensor(node.attributes["value"].as_tensor().numpy()),
    "Conv": _conv,
    "Div": lambda node, inputs: torch.div(*_both(inputs)),
    "Dropout": lambda node, inputs: _first(inputs),
    "Elu": lambda node, inputs: F.elu(_first(inputs), node.attributes.get_float("alpha", 1.0)),
    "Flatten": lambda node, inputs: _first(inputs).flatten(node.attributes.get_int("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, inputs: _first(inputs).mean(_over_pixels(_first(inputs)), keepdim=True),
    "GlobalMaxPool": lambda node, inputs: _first(inputs).amax(_over_pixels(_first(inputs)), keepdim=True),
    "HardSigmoid": lambda node, inputs: (
        node.attributes.get_float("alpha", 0.2) * _first(inputs) + node.attributes.get_float("beta", 0.5)
    ).clamp(0, 1),
    "HardSwish": lambda node, inputs: F.hardswish(_first(inputs)),
    "Identity": lambda node, inputs: _first(inputs),
    "LeakyRelu": lambda node, inputs: F.leaky_relu(_first(inputs), node.attributes.get_float("alpha", 0.01)),
    "MatMul": lambda node, inputs: torch.matmul(*_both(inputs)),
    "Max": lambda node, inputs: reduce(torch.maximum, (x for x in inputs if x is not None)),
    "MaxPool": _pool,
    "Min": lambda node, inputs: reduce(torch.minimum, (x for x in inputs if x is not None)),
    "Mul": lambda node, inputs: torch.mul(*_both(inputs)),
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": lambda node, inputs: F.relu(_first(inputs)),
    "Reshape": lambda node, inputs: _reshape(inputs, 1),
    "Sigmoid": lambda node, inputs: torch.sigmoid(_first(inputs)),
    "Softmax": lambda node, inputs: torch.softmax(_first(inputs), node.attributes.get_int("axis", -1)),
    "Squeeze": _squeeze,
    "Sub": lambda node, inputs: torch.sub(*_both(inputs)),
    "Tanh": lambda node, inputs: torch.tanh(_first(inputs)),
    "Transpose": lambda node, inputs: _first(inputs).permute(*node.attributes.get_ints("perm")),
    "Where": _where,
}
