"""Keras files without TensorFlow or Keras: ``.keras``, ``.weights.h5`` and the ``.h5`` of Keras 2 → torch's convention.

Kernels are turned from (…, in, out) into (out, in, …), the BN's gamma, beta, moving_mean and moving_variance renamed.
What the file's config states of the graph is read by `keras_config`. Lambda layers hold code and are never unpacked.

Source of the layouts: keras/src/saving/saving_lib.py and keras/src/legacy/saving/legacy_h5_format.py, Keras 3.15.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deploy_kit.base.errors import CheckpointError
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.base.text_files import unique_keys
from deploy_kit.checkpoint.contents import Container, Contents
from deploy_kit.checkpoint.formats.forward.keras_graph import KerasForward
from deploy_kit.checkpoint.formats.keras_files import hdf5, keras_config
from deploy_kit.checkpoint.formats.keras_files.hdf5 import Hdf5Group
from deploy_kit.checkpoint.formats.keras_files.keras_config import KerasConfig, KerasLayer
from deploy_kit.checkpoint.formats.limits import damaged
from deploy_kit.checkpoint.formats.zip_archive import Archive

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MAX_JSON, _MAX_LEVELS = 64 << 20, 12
_RENAMED = {
    "kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias", "moving_mean": "running_mean",
    "moving_variance": "running_var",
}  # fmt: skip
_NORM = ("weight", "bias", "running_mean", "running_var")
# Groups that hold no weights of the network.
_ASIDE = frozenset(
    {"optimizer", "optimizer_weights", "seed_generator", "vars", "_metrics", "metrics", "compile_metrics"}
)
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])")  # Conv2D stays one word
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


def is_keras(names: tuple[str, ...]) -> bool:
    """Return whether an archive with these members is a ``.keras`` file."""
    return _CONFIG in names and _WEIGHTS in names


def read_archive(archive: Archive) -> Contents:
    """Read a ``.keras`` file."""
    config = _config(bytes(archive.read(_CONFIG)))
    with temporary_folder() as folder:
        file = folder / _WEIGHTS
        file.write_bytes(archive.read(_WEIGHTS))
        return _contents("Keras 3 (.keras)", dict(_new(hdf5.read_hdf5(file), config)), config)


def read_hdf5(file: Path) -> Contents:
    """Read a ``.weights.h5`` of Keras 3, or an ``.h5`` of either format before.

    Raises:
        CheckpointError: It is HDF5, and Keras did not write it.
    """
    root = hdf5.read_hdf5(file)
    stated = root.attribute("model_config")
    config = _config(stated.encode()) if isinstance(stated, str) else KerasConfig()
    home = root.group("model_weights") or root
    if home.attribute("layer_names") is not None:
        return _contents("Keras 2 HDF5", dict(_old(home, config)), config)
    if {"layers", "_layer_checkpoint_dependencies"} & set(root.names()) or _has_variables(root, 0):
        return _contents("Keras 3 HDF5", dict(_new(root, config)), config)
    shown = ", ".join(f"'{name[:40]}'" for name in root.names()[:4]) or "nothing"
    raise CheckpointError(f"an HDF5 file that Keras did not write: it holds {shown}", hint="give a Keras file")


def _contents(kind: Container, tensors: dict[str, Tensor], config: KerasConfig) -> Contents:
    if not tensors:
        raise CheckpointError("a Keras file without weights")
    forward = None
    if config.model is not None:
        try:
            forward = KerasForward(config.model, tensors)
        except _WRONG as error:
            raise damaged(f"its config makes no sense ({type(error).__name__})") from error
    remarks = (
        () if forward is not None else ("the file holds weights and no graph: its order of operations is not stated",)
    )
    facts = config.facts()
    return Contents(kind=kind, tensors=tensors, facts=facts, forward=forward, remarks=remarks, places=config.places())


def _config(text: bytes) -> KerasConfig:
    if len(text) > _MAX_JSON:
        raise CheckpointError(f"refused: its config has {len(text):,} bytes")
    try:
        model = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise damaged(f"its config is not JSON: {error}") from error
    try:
        return keras_config.read_config(model)
    except _WRONG:
        return KerasConfig()  # a subclassed model: its config does not say what it computes


def _old(home: Hdf5Group, config: KerasConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights as Keras 2 kept them: lists of names, and datasets under them."""
    for layer in home.attribute("layer_names") or ():
        group = home.group(layer)
        if group is None:
            raise damaged(f"layer '{layer}' is missing")
        names = list(group.attribute("weight_names") or ())
        owners = _owners(layer, names, config)
        for name in names:
            value = group.numbers(name)
            if value is None:
                raise damaged(f"'{name}' of layer '{layer}' is missing")
            scope, _, leaf = name.removesuffix(":0").rpartition("/")
            yield f"{owners[scope]}.{_RENAMED.get(leaf, leaf)}".replace("/", "."), _turned(leaf, value)


def _owners(layer: str, names: Sequence[str], config: KerasConfig) -> dict[str, str]:
    """Return the layer that each scope of variables belongs to.

    A model that was built again has variables of other scopes than its layers (``conv3d_10_2`` for ``conv3d_10``),
    in the order of the layers, which is how Keras itself finds them.
    """
    scopes = list(dict.fromkeys(name.removesuffix(":0").rpartition("/")[0] for name in names))
    stated = [path for path, one in config.layers.items() if one.weighted and f"{path}.".startswith(f"{layer}.")]
    pairs = list(zip(scopes, stated, strict=False))
    ends = [(scope.rpartition("/")[2], re.split(r"[./]", path)[-1]) for scope, path in pairs]
    if len(scopes) == len(stated) and all(re.fullmatch(rf"{re.escape(own)}(_\d+)?", end) for end, own in ends):
        return dict(pairs)
    return {scope: scope if f"{scope}/".startswith(f"{layer}/") else f"{layer}/{scope}".rstrip("/") for scope in scopes}


def _new(root: Hdf5Group, config: KerasConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights as Keras 3 keeps them: ``<layer>/vars/<number>``, the layer's own name in an attribute."""
    given = _given_names(config)
    for path, group, kind in _layers(root, "", "", 0):
        layer = config.layers.get(path) or given.get(path)
        values = list(_numbered(group))
        if values:
            yield from _named(layer.path if layer else path, layer, kind, values)


def _layers(group: Hdf5Group, path: str, kind: str, level: int) -> Iterator[tuple[str, Hdf5Group, str]]:
    """Yield each group that has variables, with the names of layers in place of their automatic ones."""
    if level > _MAX_LEVELS:
        raise CheckpointError("refused: its groups are nested without end")
    variables = group.group("vars")
    if variables is not None:
        yield path, variables, kind
    for name in group.names():
        child = group.group(name)
        if name in _ASIDE or child is None:
            continue
        if name in ("layers", "_layer_checkpoint_dependencies"):
            for automatic in child.names():
                layer = child.group(automatic)
                if layer is not None:
                    yield from _layers(layer, _joined(path, _own_name(layer) or automatic), automatic, level + 1)
        else:
            yield from _layers(child, _joined(path, name), name, level + 1)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _own_name(layer: Hdf5Group) -> str | None:
    variables = layer.group("vars")
    name = variables.attribute("name") if variables is not None else None
    return name if isinstance(name, str) else None


def _has_variables(group: Hdf5Group, level: int) -> bool:
    if level > _MAX_LEVELS:
        return False
    children = (child for name in group.names() if (child := group.group(name)) is not None)
    return group.group("vars") is not None or any(_has_variables(child, level + 1) for child in children)


def _given_names(config: KerasConfig) -> dict[str, KerasLayer]:
    """Return each layer by its automatic name: its class in snake case, numbered in the config's order."""
    counts: Counter[str] = Counter()
    layers = {}
    for layer in config.layers.values():
        kind = _WORDS.sub("_", layer.kind).lower()
        layers[f"{kind}_{counts[kind]}" if counts[kind] else kind] = layer
        counts[kind] += 1
    return layers


def _numbered(variables: Hdf5Group) -> Iterator[np.ndarray]:
    place = 0
    while (value := variables.numbers(str(place))) is not None:
        yield value
        place += 1


def _named(path: str, layer: KerasLayer | None, kind: str, values: list[np.ndarray]) -> Iterator[tuple[str, Tensor]]:
    """Yield the variables of one layer by name; a file keeps them in the order in which the layer made them."""
    if values[0].ndim > 1:
        for name, value in zip(("kernel", "bias"), values, strict=False):
            yield f"{path}.{_RENAMED[name]}", _turned(name, value)
        names = [f"{path}.vars.{place}" for place in range(2, len(values))]
        yield from zip(names, map(_tensor, values[2:]), strict=True)
        return
    names = list(_NORM)
    if layer is not None:
        absent = {"weight": not layer.config.get("scale", True), "bias": not layer.config.get("center", True)}
        names = [name for name in _NORM if not absent.get(name, False)]
    if len(names) != len(values):
        raise CheckpointError(
            f"'{path}' ({kind}) has {len(values)} variables, a BN has {len(names)}: its scale or center may be off",
            hint="give the .keras file, whose config says which",
        )
    yield from ((f"{path}.{name}", _tensor(value)) for name, value in zip(names, values, strict=True))


def _turned(name: str, value: np.ndarray) -> Tensor:
    """Turn a kernel (…, in, out) into torch's (out, in, …)."""
    tensor = _tensor(value)
    if name != "kernel" or tensor.dim() < 2:
        return tensor
    return tensor.permute(tensor.dim() - 1, tensor.dim() - 2, *range(tensor.dim() - 2)).contiguous()


def _tensor(value: np.ndarray) -> Tensor:
    return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C", copy=True))
