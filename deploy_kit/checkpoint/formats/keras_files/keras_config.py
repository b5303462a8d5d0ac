"""A Keras config (JSON) of Keras 2 or 3 → layers by name, and the facts of their graph. Nothing is built.

Source of the layouts: keras/src/models/functional.py and keras/src/legacy/saving, Keras 3.15.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from deploy_kit.checkpoint.facts import ArchitectureFacts, Source
from deploy_kit.checkpoint.formats import stated_graph
from deploy_kit.checkpoint.formats.stated_graph import Node, Sides, sides

_SOURCE = Source("file", "Keras config")
_MODELS = frozenset({"Functional", "Model", "Sequential"})
_MAX_LEVELS = 8
_CONVOLUTIONS = frozenset({"Conv1D", "Conv2D", "Conv3D", "Convolution2D"})
_ACTIVATIONS = {
    "relu": "relu", "leaky_relu": "leaky_relu", "elu": "elu", "silu": "silu", "swish": "silu", "gelu": "gelu",
    "sigmoid": "sigmoid", "softmax": "softmax", "log_softmax": "log_softmax", "linear": "identity",
}  # fmt: skip
_LAYERS = {
    "InputLayer": "input",
    "ReLU": "relu",
    "ELU": "elu",
    "Softmax": "softmax",
    "Concatenate": "cat",
    "Flatten": "flatten",
    "Dense": "linear",
    "BatchNormalization": "bn",
    "BatchNormalizationV1": "bn",
    "LeakyReLU": "leaky_relu",
    **{f"MaxPooling{n}D": "max_pool" for n in (1, 2, 3)},
    **{f"AveragePooling{n}D": "avg_pool" for n in (1, 2, 3)},
    **{f"GlobalMaxPooling{n}D": "max_pool" for n in (1, 2, 3)},
    **{f"GlobalAveragePooling{n}D": "avg_pool" for n in (1, 2, 3)},
    **{f"ZeroPadding{n}D": "identity" for n in (1, 2, 3)},
    **{f"SpatialDropout{n}D": "identity" for n in (1, 2, 3)},
    **dict.fromkeys(_CONVOLUTIONS, "conv"),
    # Idle outside of training.
    **dict.fromkeys(
        (
            "Dropout", "GaussianNoise", "GaussianDropout", "ActivityRegularization", "RandomFlip", "RandomRotation",
            "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
        ),
        "identity",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class KerasLayer:
    """One layer of a config.

    Attributes:
        path: Names of the models that it lies in and its own, with dots.
        kind: Its class, e.g. ``Conv2D``.
        config: Its options.
    """

    path: str
    kind: str
    config: Mapping[str, Any]

    @property
    def weighted(self) -> bool:
        """Whether it is of a kind that has weights in a DenseNet."""
        return _LAYERS.get(self.kind) in ("conv", "bn", "linear")


@dataclass
class KerasConfig:
    """What a config states.

    Attributes:
        layers: Layers by path, in the config's order.
        nodes: Its graph; empty where the config does not state one.
        model: The config itself; None where it does not state a graph.
    """

    layers: dict[str, KerasLayer] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    model: Mapping[str, Any] | None = None

    def facts(self) -> ArchitectureFacts:
        """Read the graph's facts.

        Raises:
            CheckpointError: It computes what no DenseNet does.
        """
        return stated_graph.facts(self.nodes, _SOURCE) if self.nodes else ArchitectureFacts()

    def places(self) -> dict[str, tuple[str, str]]:
        """Return each layer's place in the graph, which Keras's automatic names (``conv2d_21``) do not tell."""
        return stated_graph.places(self.nodes)


def read_config(model: Any) -> KerasConfig:
    """Read the JSON of a model.

    Raises:
        AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError: It is no config.
    """
    result = KerasConfig(model=model)
    builder = _Builder(result)
    try:
        builder.model(model, "", [builder.add("input", [])], 0)
    except _UnstatedError:
        result.nodes.clear()
    return result


class _UnstatedError(Exception):
    """A layer whose computation the config does not state."""


class _Builder:
    """Collects layers and nodes, model by model."""

    def __init__(self, result: KerasConfig) -> None:
        self.result = result
        self.padded: dict[int, Sides | Literal["uneven"]] = {}  # what a ZeroPadding layer adds, by its place
        self.channels_first = False

    def add(self, op: str, inputs: list[int], **facts: Any) -> int:
        self.result.nodes.append(Node(op=op, inputs=tuple(inputs), **facts))
        return len(self.result.nodes) - 1

    def model(self, model: Mapping[str, Any], path: str, inputs: list[int], level: int) -> int:
        """Add a model's layers and return the place of its output."""
        if level > _MAX_LEVELS:
            raise ValueError("models within models without end")
        config = model["config"]
        layers = config["layers"] if isinstance(config, dict) else config  # Keras 2.2 kept a Sequential as a list
        outputs: dict[str, int] = {}
        given = iter(inputs)
        place = inputs[0]
        for name, layer, read in _in_order(layers):
            reads = [outputs[one] for one in read if one in outputs]
            if layer["class_name"] == "InputLayer":
                place = next(given, inputs[0])
            else:
                place = self.layer(layer, f"{path}{name}", reads or [place], level)
            outputs[name] = place
        ends = list(_names([config["output_layers"]])) if isinstance(config, dict) and "output_layers" in config else []
        if len(ends) > 1:
            raise _UnstatedError
        return outputs[ends[0]] if ends else place

    def layer(self, layer: Mapping[str, Any], path: str, reads: list[int], level: int) -> int:
        """Add a layer and the activation that it names, and return the place of its output."""
        kind, config = layer["class_name"], layer["config"]
        if kind in _MODELS:
            return self.model(layer, f"{path}.", reads, level + 1)
        self.result.layers[path] = KerasLayer(path, kind, config)
        self.channels_first = self.channels_first or config.get("data_format") == "channels_first"
        if kind == "Activation":
            return self.add(_activation(config), reads, slope=_slope(config))
        # Linear layers are turned as if they read (H, W, C); a flattened (C, H, W) map would be turned wrongly.
        if kind not in _LAYERS or (kind == "Flatten" and self.channels_first):
            return self.add(kind, reads)  # `stated_graph` refuses it by its name
        weighted = self.result.layers[path].weighted
        options = self.options(kind, config, reads[0])
        place = self.add(_LAYERS[kind], reads, layer=path.replace("/", ".") * weighted, **options)
        if kind.startswith("ZeroPadding"):
            self.padded[place] = _padding(config["padding"])
        named = _activation(config) if kind in ("Dense", *_CONVOLUTIONS) else "identity"
        return place if named == "identity" else self.add(named, [place], slope=_slope(config))

    def options(self, kind: str, config: Mapping[str, Any], read: int) -> dict[str, Any]:
        """Return what decides the numbers of a layer beside its weights."""
        if kind in _CONVOLUTIONS or kind.startswith(("MaxPooling", "AveragePooling")):
            kernel = sides(config.get("kernel_size", config.get("pool_size")))
            stride = sides(config.get("strides"), default=1 if kind in _CONVOLUTIONS else kernel)
            padding = self.padded.get(read, 0)
            # A ZeroPadding layer and the convolution behind it are one padded convolution of torch.
            if config.get("padding", "valid") == "same":
                padding = _same(kernel, stride) if padding == 0 else "uneven"
            dilation = sides(config.get("dilation_rate"))
            return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
        return {"eps": config.get("epsilon"), "slope": _slope(config)}


def _in_order(layers: Any) -> list[tuple[str, Mapping[str, Any], list[str]]]:
    """Return (name, layer, layers that it reads) in an order in which they can be computed; as listed, if that is one.

    Raises:
        _UnstatedError: A layer reads its own result, as one that is called twice may.
    """
    rows = [
        (
            str(layer["config"].get("name") or layer.get("name")),
            layer,
            list(dict.fromkeys(_names(layer.get("inbound_nodes")))),
        )
        for layer in layers
    ]
    at = {name: place for place, (name, _, _) in enumerate(rows)}
    if all(at.get(read, -1) < place for place, (_, _, reads) in enumerate(rows) for read in reads):
        return rows
    try:
        order = TopologicalSorter(
            {name: [read for read in reads if read in at] for name, _, reads in rows}
        ).static_order()
        return [rows[at[name]] for name in order]
    except CycleError:
        raise _UnstatedError from None


def _same(kernel: Sides | None, stride: Sides | None) -> Sides | Literal["uneven"]:
    """Return what ``same`` adds: half the kernel at stride 1; at a larger stride more on one side than on the other."""
    if kernel == stride:
        return 0  # exact where the map is divisible, and every map of a DenseNet is
    if stride != 1:
        return "uneven"
    return tuple(side // 2 for side in kernel) if isinstance(kernel, tuple) else (kernel or 0) // 2


def _padding(config: Any) -> Sides | Literal["uneven"]:
    """Read a ZeroPadding layer: one number, one for each axis, or a pair for each axis."""
    rows = config if isinstance(config, list) else [config]
    pairs = [tuple(row) if isinstance(row, list) else (row, row) for row in rows]
    if any(len(set(pair)) != 1 for pair in pairs):
        return "uneven"
    return sides([pair[0] for pair in pairs]) or 0


def _names(inbound: Any) -> Iterator[str]:
    """Yield the layers that are read: [["name", 0, 0, {}]] in Keras 2, tensors with a history in Keras 3."""
    if isinstance(inbound, dict):
        if inbound.get("class_name") == "__keras_tensor__":
            yield inbound["config"]["keras_history"][0]
        else:
            for value in inbound.values():
                yield from _names(value)
    elif isinstance(inbound, list):
        if len(inbound) >= 3 and isinstance(inbound[0], str) and isinstance(inbound[1], int):
            yield inbound[0]
        else:
            for value in inbound:
                yield from _names(value)


def _activation(config: Mapping[str, Any]) -> str:
    activation = config.get("activation") or "linear"
    if isinstance(activation, dict):  # Keras 3 keeps its own activation layers as objects
        name = str(activation.get("class_name", "an unknown activation"))
        return _LAYERS.get(name, name)
    return _ACTIVATIONS.get(activation, activation)


def _slope(config: Mapping[str, Any]) -> float | None:
    if config.get("activation") == "leaky_relu":
        return 0.2  # of Keras's function; its layer has 0.3 and states it
    if isinstance(named := config.get("activation"), dict):
        config = named.get("config") or {}
    for key in ("negative_slope", "alpha"):
        if isinstance(config.get(key), (int, float)):
            return float(config[key])
    return None
