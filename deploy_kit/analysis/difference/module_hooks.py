"""What torch finds at the points of our own DenseNet module, by hooks. In eval mode; changes nothing."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy_kit.analysis.difference.points import FEATURES, LOGITS, STEM
from deploy_kit.base.lazy import need

if TYPE_CHECKING:
    from torch import Tensor

    from deploy_kit.checkpoint.network.densenet_module import DenseNet

Places = dict[str, tuple[Any, str]]
"""Point → the module to look at, and whether at its ``input`` or ``output``."""


def names(model: "DenseNet") -> tuple[str, ...]:
    """Name the points of a network in the order in which they are computed."""
    return (*_places(model), LOGITS)


def observe_module(model: "DenseNet", images: np.ndarray) -> dict[str, np.ndarray]:
    """Compute (n, C, …) once and give what is found at each point: (n, C, …) float32."""
    torch = need("torch", by="computing a checkpoint")
    found: dict[str, np.ndarray] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: object, read: tuple["Tensor", ...], *given: "Tensor") -> None:
            found[name] = (given or read)[0].numpy().copy()

        return hook

    hooks = [
        (module.register_forward_pre_hook if side == "input" else module.register_forward_hook)(note(name))
        for name, (module, side) in _places(model).items()
    ]
    try:
        with torch.inference_mode():
            found[LOGITS] = model(torch.from_numpy(images)).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _places(model: "DenseNet") -> Places:
    spec, found = model.spec, Places()
    for number, block in enumerate(spec.blocks, start=1):
        module = getattr(model.features, f"denseblock{number}")
        found[f"transition{number - 1}" if number > 1 else STEM] = module, "input"
        for layer_name, layer in module.named_children():
            name = f"denseblock{number}.{layer_name}"
            if block.bottleneck is None:
                found[name] = layer, "output"
            else:
                found |= {f"{name}.conv1": (layer.conv2, "input"), f"{name}.conv2": (layer, "output")}
    linear = _first_linear(model)
    if linear is not None and not spec.trunk:
        found[FEATURES] = linear, "input"
    return found


def _first_linear(model: "DenseNet") -> Any:
    """Return the linear layer that reads the pooled map; None where something else does."""
    if model.spec.decoder is not None or not model.spec.heads or model.spec.heads[0].layers[0].kind != "linear":
        return None
    return model.classifier if hasattr(model, "classifier") else model.head[0]
