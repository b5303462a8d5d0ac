"""Paddle's ``.pdparams``, a pickled dict of NumPy arrays → torch's names and layouts.

Source: python/paddle/framework/io.py (``StructuredToParameterName@@``) and nn/layer/norm.py (``_mean``,
``_variance``) of Paddle; its linear layers keep (in, out).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from deploy_kit.checkpoint.contents import Container

KIND: Container = "Paddle .pdparams"
_NAMES = "StructuredToParameterName@@"
_RENAMED = {"_mean": "running_mean", "_variance": "running_var"}


def is_paddle(data: Any, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a pickle's content is Paddle's: by its table of names, or by its names of a BN's statistics."""
    leaves = {name.rpartition(".")[2] for name in tensors}
    return (isinstance(data, dict) and _NAMES in data) or leaves >= _RENAMED.keys()


def to_torch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename statistics and turn the weights of linear layers from (in, out) into (out, in)."""
    return {_name(name): tensor.T.contiguous() if tensor.dim() == 2 else tensor for name, tensor in tensors.items()}


def _name(name: str) -> str:
    owner, dot, leaf = name.rpartition(".")
    return f"{owner}{dot}{_RENAMED.get(leaf, leaf)}"
