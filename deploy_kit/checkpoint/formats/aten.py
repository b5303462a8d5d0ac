"""torch's operators by their ATen name → nodes of a stated graph. TorchScript and torch.export name the same ones."""

from typing import Any

from deploy_kit.checkpoint.formats.stated_graph import ACTIVATIONS, Node, sides

_CONVOLUTIONS = frozenset({"_convolution", "convolution", "conv1d", "conv2d", "conv3d"})
_NORMS = frozenset({
    "batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm",
})  # fmt: skip
_KINDS = {
    **{name: name for name in ACTIVATIONS},
    **{f"max_pool{n}d": "max_pool" for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": "max_pool" for n in (1, 2, 3)},
    **{f"avg_pool{n}d": "avg_pool" for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": "avg_pool" for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": "max_pool" for n in (1, 2, 3)},
    "_adaptive_avg_pool2d": "avg_pool",
    "mean": "avg_pool",
    "amax": "max_pool",
    "cat": "cat",
    "concat": "cat",
    "linear": "linear",
    "addmm": "linear",
    "flatten": "flatten",
    "view": "flatten",
    "reshape": "flatten",
    "squeeze": "flatten",
    "sigmoid": "sigmoid",
    "softmax": "softmax",
    "_softmax": "softmax",
    "log_softmax": "log_softmax",
    "_log_softmax": "log_softmax",
} | dict.fromkeys(
    (
        "dropout", "feature_dropout", "alpha_dropout", "clone", "contiguous", "detach", "to", "_to_copy", "alias",
        "lift_fresh_copy", "getitem", "pad", "constant_pad_nd", "reflection_pad2d", "type_as", "permute", "t",
    ),
    "identity",
)  # fmt: skip
# They read a shape and compute nothing.
SIZES = frozenset({"size", "sym_size", "NumToTensor", "Int", "dim", "len", "numel"})
# With a buffer of the model as their other operand they normalize the input, which the buffer shows by itself.
ARITHMETIC = frozenset({"sub", "sub_", "div", "div_", "mul", "mul_", "add", "add_"})
# Place of eps among the arguments, where it is not the eighth.
_EPS_PLACE = {"_native_batch_norm_legit_no_training": 6}


def node(name: str, arguments: list[Any], reads: tuple[int, ...]) -> Node:
    """Make the node of one operator.

    Args:
        name: Name without namespace and overload, e.g. ``relu_``.
        arguments: Arguments in the operator's order: numbers and lists of numbers as they are, a weight as its shape (a
            tuple), anything else as None.
        reads: Places of the activations that it reads, in order.
    """
    plain = name if name in _KINDS or name in _CONVOLUTIONS else name.removesuffix("_")
    if plain in _CONVOLUTIONS:
        return _convolution(arguments, reads)
    if plain in _NORMS:
        eps = _argument(arguments, _EPS_PLACE.get(plain, 7))
        return Node(op="bn", inputs=reads[:1], eps=eps if isinstance(eps, float) else None)
    if name in ARITHMETIC and any(isinstance(argument, tuple) for argument in arguments):
        return Node(op="identity", inputs=reads[:1])
    kind = _KINDS.get(plain, plain)
    if kind == "leaky_relu":
        slope = _argument(arguments, 1)
        return Node(op=kind, inputs=reads[:1], slope=slope if isinstance(slope, float) else 0.01)
    if "_pool" in plain and not plain.startswith(("adaptive", "_adaptive")):
        return _pool(kind, arguments, reads)
    if plain == "addmm":  # (bias, input, weight): a bias that is computed comes first
        reads = reads[-1:]
    return Node(op=kind, inputs=reads if kind == "cat" else reads[:1])


def _convolution(arguments: list[Any], reads: tuple[int, ...]) -> Node:
    """Make a convolution of (input, weight, bias, stride, padding, dilation, …)."""
    shape = _argument(arguments, 1)
    return Node(
        op="conv",
        inputs=reads[:1],
        kernel=sides(shape[2:]) if isinstance(shape, tuple) else None,
        stride=sides(_argument(arguments, 3), default=1),
        padding=sides(_argument(arguments, 4), default=0),
        dilation=sides(_argument(arguments, 5), default=1),
    )


def _pool(kind: str, arguments: list[Any], reads: tuple[int, ...]) -> Node:
    """Make a pool of (input, kernel, stride (the kernel if empty), padding, …)."""
    kernel = sides(_argument(arguments, 1))
    return Node(
        op=kind,
        inputs=reads[:1],
        kernel=kernel,
        stride=sides(_argument(arguments, 2), default=kernel),
        padding=sides(_argument(arguments, 3), default=0),
    )


def _argument(arguments: list[Any], place: int) -> Any:
    return arguments[place] if place < len(arguments) else None
