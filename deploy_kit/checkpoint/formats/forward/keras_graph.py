"""A Keras config → its outputs, layer by layer, channels last as Keras computes.

Source of what each layer computes: keras/src/layers and keras/src/backend/torch, Keras 3.15; of the configs, also
keras/src/legacy/saving.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.contents import Answer, OnRead
from deploy_kit.checkpoint.formats.forward.operators import BROKEN, unknown
from deploy_kit.records.densenet import HeadActivation

_MODELS = frozenset({"Functional", "Model", "Sequential"})
_MAX_LAYERS, _MAX_LEVELS, _MAX_RESULT = 20_000, 8, 1 << 28
_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVG = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
Key = tuple[str, int]


class KerasForward:
    """The forward pass of a Keras config."""

    source = "its Keras config"
    batch: int | None = None

    def __init__(self, model: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Bind a config's JSON to the file's tensors, which have torch's layouts.

        Raises:
            AttributeError, IndexError, KeyError, TypeError, ValueError: It is written otherwise than expected.
        """
        self._model, self._tensors = model, tensors
        shapes = list(_input_shapes(model, 0))
        # A layer that has an option for it states the layout; where none has, the input is no image.
        self._first = any(config.get("data_format") == "channels_first" for _, config in _configs(model, 0))
        stated = [None if side is None else int(side) for side in (shapes[0] if shapes else [None])[1:]]
        self.shape: tuple[int | None, ...] = tuple(stated if self._first else [*stated[-1:], *stated[:-1]])
        self._n_inputs = len(shapes)

    @torch.no_grad()
    def answers(self, x: Tensor, on_read: OnRead | None = None) -> tuple[Answer, ...]:
        """Compute the model's outputs; see `StatedForward`."""
        if self._n_inputs > 1:
            raise CheckpointError(f"{self.source} has {self._n_inputs} inputs, expected one")
        run = _Run(self._tensors, on_read or (lambda name, read: None), self.source)
        given = x if self._first else x.movedim(1, -1)
        try:
            return tuple(run.answer(one) for one in run.model(self._model, "", [given], 0))
        except BROKEN as error:
            raise CheckpointError(
                f"{self.source} cannot be followed: {type(error).__name__}: {str(error)[:200]}",
                hint="export it to ONNX with tf2onnx or Keras' own model.export, and give that file",
            ) from error


def _layers(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    config = model["config"]
    layers: list[Mapping[str, Any]] = config["layers"] if isinstance(config, dict) else config
    if len(layers) > _MAX_LAYERS:
        raise ValueError("more layers than any network has")
    return layers


def _configs(model: Mapping[str, Any], level: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (class, options) of every layer, also of models within models."""
    if level > _MAX_LEVELS:
        raise ValueError("models within models without end")
    for layer in _layers(model):
        if layer["class_name"] in _MODELS:
            yield from _configs(layer, level + 1)
        else:
            yield layer["class_name"], layer["config"]


def _input_shapes(model: Mapping[str, Any], level: int) -> Iterator[Sequence[int | None]]:
    """Yield (batch, side, …, channels) of each input."""
    rows = [layer for layer in _layers(model) if layer["class_name"] == "InputLayer"]
    for layer in rows or _layers(model)[:1]:
        config = layer["config"]
        shape = config.get("batch_shape") or config.get("batch_input_shape") if isinstance(config, dict) else None
        if shape is not None:
            yield shape
        elif layer["class_name"] in _MODELS and level < _MAX_LEVELS:
            yield from _input_shapes(layer, level + 1)


class _Run:
    """One forward pass."""

    def __init__(self, tensors: Mapping[str, Tensor], on_read: OnRead, where: str) -> None:
        self.tensors, self.on_read, self.where = tensors, on_read, where
        self.last: list[tuple[Tensor, Answer]] = []

    def answer(self, result: Tensor) -> Answer:
        return next((answer for kept, answer in self.last if kept is result), Answer(result, result, "none"))

    def model(self, model: Mapping[str, Any], path: str, given: list[Tensor], level: int) -> list[Tensor]:
        """Compute a model's outputs from its inputs."""
        if level > _MAX_LEVELS:
            raise ValueError("models within models without end")
        layers, config = _layers(model), model["config"]
        if model["class_name"] == "Sequential":
            for layer in layers:
                if layer["class_name"] != "InputLayer":
                    given = self.layer(layer, path, given, level)
            return given
        names = [name for name, _, _ in _tensors(config["input_layers"])]
        return self.graph(
            layers, path, dict(zip(names, given, strict=True)), list(_tensors(config["output_layers"])), level
        )

    def graph(
        self,
        layers: Sequence[Mapping[str, Any]],
        path: str,
        given: Mapping[str, Tensor],
        ends: Sequence[tuple[str, int, int]],
        level: int,
    ) -> list[Tensor]:
        """Compute layers as soon as their inputs are there; a map is let go after its last reader."""
        calls: dict[Key, tuple[Mapping[str, Any], list[tuple[str, int, int]]]] = {}
        n_calls: dict[str, int] = {}
        for layer in layers:
            name = _name(layer)
            rows = [list(_tensors(node)) for node in _nodes(layer)]
            n_calls[name] = len(rows)
            if layer["class_name"] != "InputLayer":
                calls |= {(name, at): (layer, row) for at, row in enumerate(rows)}

        def key(read: tuple[str, int, int]) -> Key:
            # Of a model within a model, a file may count its own making as the first call.
            return read[0], min(read[1], max(n_calls.get(read[0], 1) - 1, 0))

        readers: dict[Key, int] = {}
        for read in [read for _, row in calls.values() for read in row] + list(ends):
            readers[key(read)] = readers.get(key(read), 0) + 1
        values: dict[Key, list[Tensor]] = {(name, 0): [tensor] for name, tensor in given.items()}
        waiting = list(calls)
        while waiting:
            left = []
            for call in waiting:
                layer, row = calls[call]
                if not all(key(read) in values for read in row):
                    left.append(call)
                    continue
                values[call] = self.layer(layer, path, [values[key(read)][read[2]] for read in row], level)
                for read in row:
                    readers[key(read)] -= 1
                    if not readers[key(read)]:
                        del values[key(read)]
            if len(left) == len(waiting):
                break  # layers that nothing feeds: an output among them is missed below
            waiting = left
        return [values[key(read)][read[2]] for read in ends]

    def layer(self, layer: Mapping[str, Any], path: str, reads: list[Tensor], level: int) -> list[Tensor]:
        """Compute one layer."""
        kind, config = layer["class_name"], layer["config"]
        below = f"{path}{_name(layer)}".replace("/", ".")
        if kind in _MODELS:
            return self.model(layer, f"{below}.", reads, level + 1)
        if kind not in _LAYERS:
            raise unknown(self.where, f"{kind}' in layer '{below}")
        result = _LAYERS[kind](self, below, config, reads)
        if result.numel() > _MAX_RESULT:
            raise CheckpointError(f"refused: {self.where} computes far more than a network does, in '{below}'")
        return [result]

    def weight(self, path: str, part: str, read: Tensor | None = None) -> Tensor:
        name = f"{path}.{part}"
        if name not in self.tensors:
            raise KeyError(f"the weight '{name}'")
        if read is not None:
            self.on_read(name, read)
        return self.tensors[name].float()

    def activated(self, x: Tensor, config: Mapping[str, Any]) -> Tensor:
        """Apply the activation that a layer names; Keras 3 may keep it as a layer of its own."""
        activation = config.get("activation") or "linear"
        if isinstance(activation, dict):
            kind = str(activation.get("class_name"))
            if kind in ("ReLU", "LeakyReLU", "ELU", "Softmax"):
                return _LAYERS[kind](self, "", activation["config"], [x])
            activation = str(activation.get("config")) if kind == "function" else kind
        if activation not in _ACTIVATIONS:
            raise unknown(self.where, str(activation))
        result = _ACTIVATIONS[activation](x)
        if activation in _LAST:
            self.last = [*self.last[-7:], (result, Answer(value=result, logits=x, activation=_LAST[activation]))]
        return result


def _name(layer: Mapping[str, Any]) -> str:
    config = layer["config"]
    return str((config.get("name") if isinstance(config, dict) else None) or layer.get("name"))


def _nodes(layer: Mapping[str, Any]) -> list[Any]:
    """List a layer's calls; Keras 2 wrote [[tensor, …], …], Keras 3 [{"args": …}, …]."""
    inbound = layer.get("inbound_nodes") or []
    return inbound if isinstance(inbound, list) else [inbound]


def _tensors(value: Any) -> Iterator[tuple[str, int, int]]:
    """Yield (layer, call, output) of each tensor that a call reads, repeated as often as it is read."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            name, node, place = value["config"]["keras_history"]
            yield str(name), int(node), int(place)
        else:
            for item in value.values():
                yield from _tensors(item)
    elif isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int) and isinstance(value[2], int):
            yield value[0], value[1], value[2]
        else:
            for item in value:
                yield from _tensors(item)


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x, "relu": torch.relu, "relu6": functional.relu6, "elu": functional.elu,
    "selu": functional.selu, "gelu": functional.gelu, "silu": functional.silu, "swish": functional.silu,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": functional.softplus, "mish": functional.mish,
    "exponential": torch.exp, "softsign": functional.softsign,
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
}  # fmt: skip
_LAST: Mapping[str, HeadActivation] = {"sigmoid": "sigmoid", "softmax": "softmax", "log_softmax": "log_softmax"}


def _per_axis(value: Any, n: int) -> tuple[int, ...]:
    return tuple(int(one) for one in value) if isinstance(value, (list, tuple)) else (int(value),) * n


def _turned(config: Mapping[str, Any], x: Tensor) -> Tensor:
    """Return a map with its channels first, as torch computes."""
    return x if config.get("data_format") == "channels_first" else x.movedim(-1, 1)


def _turned_back(config: Mapping[str, Any], x: Tensor) -> Tensor:
    return x if config.get("data_format") == "channels_first" else x.movedim(1, -1)


def _borders(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Return what ``same`` adds at both ends of each axis, in the order of `functional.pad`.

    The output has ⌈side / stride⌉ pixels; of an odd number of added ones, the odd one comes last.
    """
    pairs = []
    for side, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        total = max((-(-side // s) - 1) * s + (k - 1) * d + 1 - side, 0)
        pairs.append((total // 2, total - total // 2))
    return [end for pair in reversed(pairs) for end in pair]


def _convolution(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
    x = _turned(config, reads[0])
    weight = run.weight(path, "weight", x)
    n = weight.dim() - 2
    kernel, stride = tuple(weight.shape[2:]), _per_axis(config.get("strides", 1), n)
    dilation = _per_axis(config.get("dilation_rate", 1), n)
    padding = config.get("padding", "valid")
    if padding == "same":
        x = functional.pad(x, _borders(x, kernel, stride, dilation))
    elif padding == "causal":
        x = functional.pad(x, [(kernel[0] - 1) * dilation[0], 0])
    bias = run.weight(path, "bias") if config.get("use_bias", True) else None
    convolve: Callable[..., Tensor] = _CONVOLVE[n]
    y = convolve(x, weight, bias, stride, 0, dilation, x.shape[1] // weight.shape[1])
    return run.activated(_turned_back(config, y), config)


def _dense(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
    y = reads[0] @ run.weight(path, "weight", reads[0]).T
    return run.activated(y + run.weight(path, "bias") if config.get("use_bias", True) else y, config)


def _norm(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
    x, axis = reads[0], config.get("axis", -1)
    axis = axis[0] if isinstance(axis, (list, tuple)) else axis
    shape = [1] * x.dim()
    shape[axis] = x.shape[axis]
    mean, variance = (run.weight(path, part).reshape(shape) for part in ("running_mean", "running_var"))
    run.on_read(f"{path}.running_mean", x.movedim(axis, 1))
    y = (x - mean) / torch.sqrt(variance + float(config.get("epsilon", 1e-3)))
    y = y * run.weight(path, "weight").reshape(shape) if config.get("scale", True) else y
    return y + run.weight(path, "bias").reshape(shape) if config.get("center", True) else y


def _pool(kind: str) -> Callable[[_Run, str, Mapping[str, Any], list[Tensor]], Tensor]:
    def pooled(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
        x = _turned(config, reads[0])
        n = x.dim() - 2
        kernel = _per_axis(config.get("pool_size", 2), n)
        stride = _per_axis(config.get("strides") or kernel, n)
        same = config.get("padding", "valid") == "same"
        borders = _borders(x, kernel, stride, [1] * n) if same else [0] * 2 * n
        pool: Callable[..., Tensor] = (_MAX if kind == "max" else _AVG)[n]
        if kind == "max":
            return _turned_back(config, pool(functional.pad(x, borders, value=float("-inf")), kernel, stride))
        # What `same` adds counts neither in the sum nor in the number of pixels.
        y = pool(functional.pad(x, borders), kernel, stride)
        return _turned_back(config, y / pool(functional.pad(torch.ones_like(x[:1, :1]), borders), kernel, stride))

    return pooled


def _global(kind: str) -> Callable[[_Run, str, Mapping[str, Any], list[Tensor]], Tensor]:
    def pooled(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
        x = reads[0]
        axes = [
            axis
            for axis in range(1, x.dim())
            if axis != (1 if config.get("data_format") == "channels_first" else x.dim() - 1)
        ]
        keep = bool(config.get("keepdims", False))
        return x.amax(axes, keep) if kind == "max" else x.mean(axes, keep)

    return pooled


def _zeros(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
    x, rows = _turned(config, reads[0]), config["padding"]
    rows = rows if isinstance(rows, (list, tuple)) else [rows] * (x.dim() - 2)
    if x.dim() == 3 and len(rows) == 2:  # of one axis, a pair is its two ends
        rows = [rows]
    pairs = [tuple(row) if isinstance(row, (list, tuple)) else (row, row) for row in rows]
    return _turned_back(config, functional.pad(x, [int(end) for pair in reversed(pairs) for end in pair]))


def _flatten(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
    x = reads[0]
    # With channels first Keras turns the map before it flattens it, so that both layouts give one vector.
    return (x.movedim(1, -1) if config.get("data_format") == "channels_first" and x.dim() > 2 else x).flatten(1)


def _leaky(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
    slope = config.get("negative_slope", config.get("alpha", 0.3))
    return functional.leaky_relu(reads[0], float(slope))


def _relu(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
    slope, threshold, top = (config.get(key) or 0.0 for key in ("negative_slope", "threshold", "max_value"))
    x = torch.where(reads[0] >= threshold, reads[0], slope * (reads[0] - threshold))
    return x.clamp(max=float(top)) if config.get("max_value") is not None else x


def _softmax(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
    axis = config.get("axis", -1)
    if axis in (-1, 1) and reads[0].dim() == 2:
        return run.activated(reads[0], {"activation": "softmax"})
    return torch.softmax(reads[0], int(axis))


def _rescaled(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
    scale, offset = (torch.as_tensor(config.get(key, usual)) for key, usual in (("scale", 1.0), ("offset", 0.0)))
    return reads[0] * scale + offset


def _idle(run: _Run, path: str, config: Mapping[str, Any], reads: list[Tensor]) -> Tensor:
    return reads[0]


def _reduced(reduce: Callable[[Tensor], Tensor]) -> Callable[[_Run, str, Mapping[str, Any], list[Tensor]], Tensor]:
    return lambda run, path, config, reads: reduce(torch.stack(reads))


_LAYERS: Mapping[str, Callable[[_Run, str, Mapping[str, Any], list[Tensor]], Tensor]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D", "Convolution2D"), _convolution),
    **dict.fromkeys(("BatchNormalization", "BatchNormalizationV1"), _norm),
    **{f"MaxPooling{n}D": _pool("max") for n in (1, 2, 3)},
    **{f"AveragePooling{n}D": _pool("avg") for n in (1, 2, 3)},
    **{f"GlobalMaxPooling{n}D": _global("max") for n in (1, 2, 3)},
    **{f"GlobalAveragePooling{n}D": _global("avg") for n in (1, 2, 3)},
    **{f"ZeroPadding{n}D": _zeros for n in (1, 2, 3)},
    **dict.fromkeys(
        (
            "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise", "GaussianDropout",
            "AlphaDropout", "ActivityRegularization", "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation",
            "RandomContrast", "RandomBrightness", "Identity",
        ),
        _idle,
    ),
    "Dense": _dense,
    "Activation": lambda run, path, config, reads: run.activated(reads[0], config),
    "ReLU": _relu,
    "LeakyReLU": _leaky,
    "ELU": lambda run, path, config, reads: functional.elu(reads[0], float(config.get("alpha", 1.0))),
    "Softmax": _softmax,
    "Concatenate": lambda run, path, config, reads: torch.cat(reads, int(config.get("axis", -1))),
    "Add": _reduced(lambda rows: rows.sum(0)),
    "Average": _reduced(lambda rows: rows.mean(0)),
    "Maximum": _reduced(lambda rows: rows.amax(0)),
    "Multiply": _reduced(lambda rows: rows.prod(0)),
    "Flatten": _flatten,
    "Reshape": lambda run, path, config, reads: reads[0].reshape(len(reads[0]), *config["target_shape"]),
    "Permute": lambda run, path, config, reads: reads[0].permute(0, *config["dims"]),
    "Rescaling": _rescaled,
}  # fmt: skip
