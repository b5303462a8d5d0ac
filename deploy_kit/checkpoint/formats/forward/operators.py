"""torch's operators by their ATen name: which a stated graph may call, and how much they may compute."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.contents import Answer, OnRead
from deploy_kit.records.densenet import HeadActivation

# Operators without side effects beyond their first argument. What reads or writes files, draws random numbers, looks at
# raw memory (`as_strided`) or makes tensors of any size from nothing is not among them.
_ALLOWED = frozenset({
    "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d",
    "upsample_trilinear3d", "batch_norm", "instance_norm", "group_norm", "layer_norm",
    "linear", "addmm", "mm", "matmul", "bmm", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "silu", "gelu",
    "hardtanh", "hardswish", "hardsigmoid", "mish", "softplus", "tanh", "sigmoid", "softmax", "log_softmax",
    "prelu", "abs", "neg", "exp", "log", "sqrt", "rsqrt", "square", "reciprocal", "pow", "clamp", "clamp_min",
    "clamp_max", "minimum", "maximum", "add", "sub", "rsub", "mul", "div", "mean", "sum", "amax", "amin", "max",
    "logsumexp", "linalg_vector_norm", "norm", "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "cat", "concat", "stack", "t", "transpose",
    "permute", "movedim", "flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "expand", "expand_as",
    "repeat", "slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "flip", "roll", "pad",
    "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "contiguous", "clone", "detach", "alias",
})  # fmt: skip
_RENAMED = {"_unsafe_view": "view", "_softmax": "softmax", "_log_softmax": "log_softmax", "concatenate": "cat"}
_NORMS = frozenset({"batch_norm", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training"})
# Outside of training, and for numbers of one type, they give what they get.
_IDLE = frozenset(
    {
        "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "to", "_to_copy", "type_as",
        "lift_fresh_copy", "lift_fresh", "float",
    }
)  # fmt: skip
_SIZES: Mapping[str, Callable[..., Any]] = {
    "size": lambda x, dim=None: list(x.shape) if dim is None else x.shape[dim],
    "sym_size": lambda x, dim: x.shape[dim],
    "dim": lambda x: x.dim(),
    "len": lambda x: x.shape[0],
    "numel": lambda x: x.numel(),
    "sym_numel": lambda x: x.numel(),
    "is_floating_point": lambda x: x.is_floating_point(),
}
_ACTIVATIONS: Mapping[str, HeadActivation] = {
    "sigmoid": "sigmoid", "softmax": "softmax", "log_softmax": "log_softmax",
}  # fmt: skip
_TURNING = frozenset({"t", "transpose", "permute", "contiguous", "detach", "alias", "unsqueeze", "squeeze", "view"})
# One result of DenseNet-264 at 1024 px has 2^26 numbers, all of them together 2^33, in 2^38 multiplications.
_MAX_RESULT, _MAX_NUMBERS, _MAX_PRODUCTS, _MAX_CALLS = 1 << 28, 1 << 35, 1 << 40, 100_000
_MAX_LIST, _MAX_KEPT = 10_000, 8
BROKEN = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError, OverflowError)


class Operators:
    """Computes operators and notes which of the file's tensors each reads."""

    def __init__(self, weights: Mapping[str, Tensor], on_read: OnRead, where: str) -> None:
        """Start a forward pass.

        Args:
            weights: The file's tensors by name; floating-point ones are computed with as float32.
            on_read: Called with (name of a weight, what it is applied to) for each operator that has one.
            where: What states the graph, for messages.
        """
        self.where, self._on_read = where, on_read
        self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self.weights = {n: t.float() if t.is_floating_point() else t for n, t in self.weights.items()}
        # Weights by identity, and turned views of them; the tensors are kept so that no identity is used twice.
        self._names = {id(tensor): (name, tensor) for name, tensor in self.weights.items()}
        self._last: list[tuple[Tensor, Answer]] = []
        self._calls = self._numbers = self._products = 0

    def call(self, name: str, arguments: Sequence[Any], options: Mapping[str, Any] | None = None) -> Any:
        """Compute one operator.

        Args:
            name: Its name without namespace and overload; ``relu_`` changes its first argument.
            arguments: Its arguments by place: tensors, numbers, lists of either, None.
            options: Its arguments by name.

        Raises:
            CheckpointError: It is none that a witness may call, or it computes far more than a network does.
        """
        plain, values, keywords = name.removesuffix("_") if name[:1] != "_" else name, list(arguments), options or {}
        if plain in _SIZES:
            return _SIZES[plain](*values)
        if plain in _IDLE:
            return values[0]
        if plain in _NORMS or name in _NORMS:
            return self._norm(name, values, keywords)
        if name == "_convolution":
            name, values = "convolution", values[:9]
        name = _RENAMED.get(name, name)
        values = values[:2] if name in ("softmax", "log_softmax") else values
        if (name if name in _ALLOWED else name.removesuffix("_")) not in _ALLOWED:
            raise unknown(self.where, name)
        if name.endswith("_") and id(values[0]) in self._names:
            raise CheckpointError(
                f"{self.where} changes a weight by '{name}', as in training",
                hint="save it again after model.eval(), or export that to ONNX",
            )
        return self._noted(name, values, self._computed(name, values, keywords))

    def _norm(self, name: str, values: list[Any], keywords: Mapping[str, Any]) -> Any:
        """Compute a BN as in eval mode, by the one operator that compares its shapes."""
        if keywords:
            raise TypeError("a BN with keywords")
        momentum, eps = values[5:7] if name.endswith("no_training") else values[6:8]
        if values[3] is None or values[4] is None:
            raise CheckpointError(f"{self.where} has a BN without running statistics: its answer depends on the batch")
        row = [*values[:5], False, momentum, eps, False]
        result = self._noted("batch_norm", row, self._computed("batch_norm", row, {}))
        return result if name == "batch_norm" else (result, None, None)

    def _computed(self, name: str, values: list[Any], keywords: Mapping[str, Any]) -> Any:
        operator = getattr(torch.ops.aten, name)
        for value in values:
            if isinstance(value, (list, tuple)) and (
                len(value) > _MAX_LIST or any(isinstance(item, (list, tuple)) for item in value)
            ):
                raise CheckpointError(f"{self.where} calls '{name}' with a list that no network has")
        self._calls += 1
        # What it would compute, by shapes alone: nothing is reserved before it is known to fit.
        shaped = operator(*map(_shape_of, values), **{key: _shape_of(value) for key, value in keywords.items()})
        sizes = [one.numel() for one in tensors_of(shaped)]
        weight = next((one for one in values[1:] if isinstance(one, Tensor) and one.dim() > 1), None)
        self._numbers += sum(sizes)
        self._products += sum(sizes) * (1 if weight is None else math.prod(weight.shape[1:]))
        if (
            max(sizes, default=0) > _MAX_RESULT
            or self._numbers > _MAX_NUMBERS
            or self._products > _MAX_PRODUCTS
            or self._calls > _MAX_CALLS
        ):
            raise CheckpointError(f"refused: {self.where} computes far more than a network does, in '{name}'")
        return operator(*values, **keywords)

    def _noted(self, name: str, values: list[Any], result: Any) -> Any:
        """Note the weight that an operator reads, and an activation that may be the last."""
        known = [self._names[id(value)] for value in values if id(value) in self._names]
        data = [value for value in values if isinstance(value, Tensor) and id(value) not in self._names]
        if known and data:
            self._on_read(known[0][0], data[0])
        elif known and name in _TURNING and isinstance(result, Tensor):
            self._names[id(result)] = (known[0][0], result)
        if name in _ACTIVATIONS and data and isinstance(result, Tensor) and self._along_classes(name, values):
            answer = Answer(value=result, logits=data[0], activation=_ACTIVATIONS[name])
            self._last = [*self._last[1 - _MAX_KEPT :], (result, answer)]
        return result

    @staticmethod
    def _along_classes(name: str, values: list[Any]) -> bool:
        return name == "sigmoid" or values[1] in (1, -1)

    def answer(self, result: Any) -> tuple[Answer, ...]:
        """Return a forward pass's results, each with what came before its last activation.

        Raises:
            CheckpointError: It returns no tensor.
        """
        found = [
            next((answer for kept, answer in self._last if kept is one), Answer(one, one, "none"))
            for one in tensors_of(result)
        ]
        if not found:
            raise CheckpointError(f"{self.where} returns no tensor")
        return tuple(found)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a result: itself, or those in a list, a tuple or a dict."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, Tensor):
                yield item


def _shape_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return [_shape_of(item) for item in value] if isinstance(value, (list, tuple)) else value


def unknown(where: str, operator: str) -> CheckpointError:
    """Make the error of a graph with an operator that the witness does not know."""
    return CheckpointError(
        f"{where} calls '{operator[:80]}', which is not known here, so that nothing can be said of its answer",
        hint="export it to ONNX with the framework it comes from, and give that file",
    )
