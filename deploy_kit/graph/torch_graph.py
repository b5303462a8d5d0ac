"""An ONNX graph computed by torch, node by node: any part of it, with other weights, and with gradients.

Covers the operators of convolutional classifiers in float32. `verified` compares it with ONNX Runtime before use.
"""

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it

from deploy_kit.base.errors import InputError, SlimError
from deploy_kit.base.lazy import need
from deploy_kit.graph import onnx_file

_AGREES = 1e-3  # of the largest output; float32 sums in another order differ by 1e-6 to 1e-5
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

Behind: TypeAlias = Callable[[ir.Node, torch.Tensor], torch.Tensor]


class TorchGraph:
    """The nodes of a graph, and its constants as tensors."""

    def __init__(self, model: ir.Model) -> None:
        """Read a graph.

        Raises:
            InputError: It has an operator, or a form of one, that is not covered.
        """
        self.nodes = tuple(model.graph)
        unknown = sorted({node.op_type for node in self.nodes} - _OPERATORS.keys())
        if unknown:
            raise InputError(
                f"slim: the graph has operators that it does not compute: {', '.join(unknown)}",
                hint="simplify the graph first (deploykit simplify), or leave slimming out",
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
        images: np.ndarray,
        visit: Callable[[ir.Node, torch.Tensor], None] | None = None,
        behind: Behind | None = None,
    ) -> torch.Tensor:
        """Compute the output of images (N, C, …); activations are dropped behind their last reader.

        Args:
            images: float32.
            visit: Called for each node with its first input, before it is computed.
            behind: As for `run`.
        """
        last = {str(v.name): node for node in self.nodes for v in node.inputs if v is not None}
        values = {self.input: torch.from_numpy(images)}
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


def verified(model: ir.Model, path: Path, images: np.ndarray) -> TorchGraph:
    """Return the graph once torch computes of a few images what ONNX Runtime does.

    Args:
        model: The graph as loaded from `path`.
        path: Its file.
        images: (N, C, …) float32, of the graph's own batch size.

    Raises:
        InputError: The graph is not covered.
        SlimError: The two differ.
    """
    ort = need("onnxruntime", by="slim")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: images})[0]
    graph = TorchGraph(model)
    with torch.no_grad():
        found = graph.forward(images).numpy()
    difference = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-30))
    if not difference <= _AGREES:
        raise SlimError(
            f"{path}: torch's answers differ from ONNX Runtime's by {difference:.2g} of the largest: slim cannot use it"
        )
    return graph


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
    return InputError(f"slim: {node.op_type} '{node.name}': {what} is not covered", hint="leave slimming out")


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
    shape = [int(size) for size in wanted]
    if shape and shape[0] == batch:
        shape[0] = x.shape[0]
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


def _squeeze(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    x, given = _first(inputs), _given(inputs, 1)
    axes = given.tolist() if given is not None else list(node.attributes.get_ints("axes", ()))
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.squeeze(axis)
    return x


def _clip(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    low, high, moves = _given(inputs, 1), _given(inputs, 2), node.attributes
    bottom = float(low) if low is not None else moves.get_float("min", -torch.inf)
    top = float(high) if high is not None else moves.get_float("max", torch.inf)
    return _first(inputs).clamp(bottom, top)


def _pad(node: ir.Node, inputs: Inputs) -> torch.Tensor:
    """Pad with a constant; the widths are those of all axes, begins before ends."""
    x, widths = _both(inputs)
    if node.attributes.get_string("mode", "constant") != "constant" or _given(inputs, 3) is not None:
        raise _unsupported(node, "a mode other than constant, or some axes alone,")
    fill, rank = _given(inputs, 2), x.dim()
    flat = [int(widths[axis + end * rank]) for axis in reversed(range(rank)) for end in (0, 1)]
    return F.pad(x, flat, value=0.0 if fill is None else float(fill))


def _over_pixels(x: torch.Tensor) -> list[int]:
    return list(range(2, x.dim()))


_OPERATORS: dict[str, Callable[[ir.Node, Inputs], torch.Tensor]] = {
    "Add": lambda node, inputs: torch.add(*_both(inputs)),
    "AveragePool": _pool,
    "BatchNormalization": _norm,
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
}
