"""A mean and a std of the input that the file carries in buffers: part of the network, and never dropped."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

_MAX_CHANNELS = 16


def find_normalization(others: Sequence[str], tensors: Mapping[str, Tensor]) -> tuple[dict[str, str], list[str]]:
    """Find a mean and a std of the input among the tensors that belong to no layer.

    Args:
        others: Names of tensors that belong to no layer.
        tensors: The file's tensors by name.

    Returns:
        ``mean`` and ``std`` with their names in the file (empty where there are none), and the other tensors.
    """
    for name in others:
        module, _, last = name.rpartition(".")
        match = re.fullmatch(r"(\w*?)(mean|mu)", last)
        if match is None or not _is_per_channel(tensors[name]):
            continue
        for word in ("std", "sigma"):
            other = (f"{module}." if module else "") + match[1] + word
            if other in others and _is_per_channel(tensors[other]) and tensors[other].numel() == tensors[name].numel():
                pair = {"mean": name, "std": other}
                return pair, [rest for rest in others if rest not in pair.values()]
    return {}, list(others)


def _is_per_channel(tensor: Tensor) -> bool:
    """Return whether a buffer has one number a channel: (C,), (C, 1, 1) or (1, C, 1, 1)."""
    return 0 < tensor.numel() <= _MAX_CHANNELS and sum(side > 1 for side in tensor.shape) <= 1 and tensor.dim() > 0


def remarks(pair: Mapping[str, str], tensors: Mapping[str, Tensor]) -> list[str]:
    """Remark that the network normalizes its input itself, and which pixels it reads."""
    if not pair:
        return []
    mean, std = ([round(float(value), 4) for value in tensors[pair[part]].flatten()] for part in ("mean", "std"))
    pixels = "0..255" if max(mean) > 2 else "0..1"
    return [f"it normalizes its input itself (mean {mean}, std {std}): feed it plain pixels, {pixels}"]
