"""The small DenseNet written as Keras 2 and Keras 3 write it: layouts and names as in files of keras 3.15."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from checkpoint_files import tiny_net, zip_bytes
from torch import Tensor, nn

LEAVES = {
    nn.Conv2d: {"weight": "kernel", "bias": "bias"},
    nn.Linear: {"weight": "kernel", "bias": "bias"},
    nn.BatchNorm2d: {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
}
CLASSES = {nn.Conv2d: "Conv2D", nn.Linear: "Dense", nn.BatchNorm2d: "BatchNormalization"}
AUTOMATIC = {"Conv2D": "conv2d", "Dense": "dense", "BatchNormalization": "batch_normalization"}


def layers(**options: Any) -> dict[str, nn.Module]:
    """Return the layers with weights, by the flat names that a Keras model would have; options are the net's."""
    named = tiny_net(**options).named_modules()
    return {path.replace(".", "_"): module for path, module in named if type(module) in LEAVES}


def automatic_names(start: int) -> dict[str, str]:
    """Return the names that Keras gives by itself: a class and a number, which say nothing of the structure."""
    counts = dict.fromkeys(AUTOMATIC, start)
    names = {}
    for name, module in layers().items():
        kind = CLASSES[type(module)]
        names[name], counts[kind] = f"{AUTOMATIC[kind]}_{counts[kind]}", counts[kind] + 1
    return names


def expected_tensors() -> dict[str, Tensor]:
    """Return the tensors that a reader is to find in the files."""
    return {
        f"{path}.{leaf}": getattr(module, leaf)
        for path, module in layers().items()
        for leaf in LEAVES[type(module)]
        if getattr(module, leaf) is not None
    }


def variables(module: nn.Module) -> dict[str, np.ndarray]:
    """Return a layer's variables by Keras's names, in Keras's order and layout."""
    values = {}
    for leaf, name in LEAVES[type(module)].items():
        tensor = getattr(module, leaf)
        if tensor is not None:
            values[name] = tensor.permute(*range(2, tensor.dim()), 1, 0).numpy() if tensor.dim() > 1 else tensor.numpy()
    return values


def write_keras_2(
    path: Path,
    config: dict[str, Any] | None = None,
    *,
    nested: str = "",
    names: Mapping[str, str] | None = None,
    built: str = "",
    **options: Any,
) -> Path:
    """Write an ``.h5``: ``layer_names``, ``weight_names``, a dataset per variable.

    Args:
        path: The file.
        config: The model's config.
        nested: What stands before each variable's scope.
        names: Names to put in place of those of layers.
        built: What stands behind each variable's scope, as of a model that was built again.
        options: Options of the net.
    """
    renamed = {(names or {}).get(name, name): module for name, module in layers(**options).items()}
    for old, new in (names or {}).items():
        config = json.loads(json.dumps(config).replace(f'"{old}"', f'"{new}"'))
    with h5py.File(path, "w") as file:
        home = file if config is None else file.create_group("model_weights")
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
        home.attrs["layer_names"] = np.array([name.encode() for name in ("input_1", *renamed)])
        home.create_group("input_1").attrs["weight_names"] = np.array([], dtype="S1")
        for name, module in renamed.items():
            group = home.create_group(name)
            kept = {f"{nested}{name}{built}/{leaf}:0": value for leaf, value in variables(module).items()}
            group.attrs["weight_names"] = np.array([key.encode() for key in kept])
            for key, value in kept.items():
                group.create_dataset(key, data=value)
    return path


def write_nested(path: Path, config: dict[str, Any], *, built: str) -> Path:
    """Write an ``.h5`` of a model within a model: all variables in one group, those that are trained first."""
    inner = {"class_name": "Model", "config": config["config"] | {"name": "net"}}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [inner]})
        home = file.create_group("model_weights")
        home.attrs["layer_names"] = np.array([b"net"])
        group = home.create_group("net")
        kept = {
            f"{name}{built}/{leaf}:0": one for name, part in layers().items() for leaf, one in variables(part).items()
        }
        order = sorted(kept, key=lambda name: "moving" in name)
        group.attrs["weight_names"] = np.array([name.encode() for name in order])
        for name in order:
            group.create_dataset(name, data=kept[name])
    return path


def weights_3(*, named: bool) -> bytes:
    """Write a ``.weights.h5`` of Keras 3: layers under automatic names, their own in an attribute (or not)."""
    file, counts = io.BytesIO(), dict.fromkeys(AUTOMATIC, 0)
    with h5py.File(file, "w") as root:
        for name, module in layers().items():
            kind = CLASSES[type(module)]
            automatic = AUTOMATIC[kind] + (f"_{counts[kind]}" if counts[kind] else "")
            counts[kind] += 1
            group = root.create_group(f"layers/{automatic}/vars")
            if named:
                group.attrs["name"] = name
            for place, value in enumerate(variables(module).values()):
                group.create_dataset(str(place), data=value)
        root.create_group("layers/dropout/seed_generator/vars").create_dataset("0", data=np.zeros(2, np.uint32))
        root.create_group("optimizer/vars").create_dataset("0", data=np.zeros((3, 3, 4, 4)))
    return file.getvalue()


def write_keras_3(path: Path, config: dict[str, Any], *, named: bool = True) -> Path:
    """Write a ``.keras``."""
    members = {"metadata.json": b"{}", "config.json": json.dumps(config).encode()}
    path.write_bytes(zip_bytes(members | {"model.weights.h5": weights_3(named=named)}))
    return path


class Functional:
    """Builds the config of a functional model as Keras 2 or 3 writes it."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.layers: list[dict[str, Any]] = []

    def add(self, kind: str, name: str, reads: list[str], **config: Any) -> str:
        if self.version == 2:
            inbound: Any = [[[read, 0, 0, {}] for read in reads]] if reads else []
        else:
            tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [read, 0, 0]}} for read in reads]
            inbound = [{"args": [tensors] if len(reads) > 1 else tensors, "kwargs": {}}] if reads else []
        self.layers.append(
            {"class_name": kind, "name": name, "config": {"name": name} | config, "inbound_nodes": inbound}
        )
        return name

    def config(self, output: str) -> dict[str, Any]:
        ends = {"input_layers": [["input_1", 0, 0]], "output_layers": [[output, 0, 0]]}
        return {"class_name": "Functional", "config": {"name": "net", "layers": self.layers} | ends}


def densenet_config(version: int, **options: Any) -> dict[str, Any]:
    """Describe the small DenseNet; options are those that `test_keras_file` changes."""
    net = Functional(version)
    prepend, relu, final = (options.get(key) for key in ("prepend", "transition_linear", "final_linear"))

    def conv(name: str, read: str, side: int, stride: int = 1, padding: str = "same") -> str:
        sides = {"kernel_size": [side] * 2, "strides": [stride] * 2, "padding": padding, "dilation_rate": [1, 1]}
        return net.add("Conv2D", name, [read], activation="linear", use_bias=False, **sides)

    def norm(name: str, read: str, active: bool = True) -> str:
        place = net.add("BatchNormalization", name, [read], epsilon=options.get("eps", 1.001e-5))
        return net.add("Activation", f"{name}_relu", [place], activation="relu") if active else place

    def block(name: str, read: str) -> str:
        for layer in range(2):
            home = f"{name}_{layer}"
            new = conv(f"{home}_conv1", norm(f"{home}_bn1", read), 1)
            new = conv(f"{home}_conv2", norm(f"{home}_bn2", new), 3)
            read = net.add("Concatenate", f"{home}_cat", [new, read] if prepend else [read, new], axis=3)
        return read

    x = net.add("InputLayer", "input_1", [], batch_shape=[None, 64, 64, 3])
    for kind in options.get("before", ()):
        x = net.add(kind, kind.lower(), [x])
    if options.get("stem_padding") != "same":
        x = net.add("ZeroPadding2D", "pad1", [x], padding=options.get("pad", [[3, 3], [3, 3]]))
    x = norm("bn0", conv("stem", x, 7, 2, options.get("stem_padding", "valid")))
    x = net.add("ZeroPadding2D", "pad2", [x], padding=[[1, 1], [1, 1]])
    x = net.add("MaxPooling2D", "pool1", [x], pool_size=[3, 3], strides=[2, 2], padding="valid")
    x = conv("trans_conv", norm("trans_bn", block("dense1", x), not relu), 1)
    x = net.add(
        options.get("pool", "AveragePooling2D"), "pool2", [x], pool_size=[2, 2], strides=[2, 2], padding="valid"
    )
    x = net.add("GlobalAveragePooling2D", "avg_pool", [norm("bn", block("dense2", x), not final)])
    x = net.add("Dense", "fc", [x], activation=options.get("output", "linear"), units=5)
    return net.config(x)
