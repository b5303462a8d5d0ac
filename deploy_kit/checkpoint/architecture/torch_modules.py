"""The record of one module of a pickled network → what it computes: its kind, with the settings that change numbers."""

from collections.abc import Mapping
from typing import Any

ACTIVATIONS = "torch.nn.modules.activation."
POOLS = "torch.nn.modules.pooling."
# By the last word of a class: modules of one's own are named as torch's are.
_ACTIVATIONS = {
    "ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu", "SiLU": "silu", "Swish": "silu", "GELU": "gelu",
}  # fmt: skip
_UNSUPPORTED = frozenset({"ReLU6", "PReLU", "Hardswish", "Mish", "Tanh", "Sigmoid", "SELU", "CELU"})
# A setting of an activation, and the value that a rebuilt network has.
_SETTINGS = {"ELU": ("alpha", 1.0), "GELU": ("approximate", "none")}


def kind(entry: Mapping[str, Any]) -> str:
    """Return the last word of a module's class."""
    return str(entry.get("class", "")).rpartition(".")[2]


def activation(entry: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the name of an activation, and whether this version rebuilds it; an empty name of any other module."""
    last = kind(entry)
    known = _ACTIVATIONS.get(last)
    if known is None:
        foreign = last in _UNSUPPORTED or str(entry.get("class", "")).startswith(ACTIVATIONS)
        return (last if foreign else ""), False
    setting, usual = _SETTINGS.get(last, ("", None))
    found = entry.get(setting, usual)
    return (known, True) if found == usual else (f"{last} of {setting} {found}", False)


def active(name: str, slope: float) -> str:
    """Return an activation with its slope, where it is a leaky one."""
    return f"{name} {slope:g}" if name == "leaky_relu" else name


def pool(entry: Mapping[str, Any]) -> str:
    """Return a pool with the settings that it has, as `pooled` says it; its class alone where it has none of them."""
    last = kind(entry)
    name = "max" if last.startswith("MaxPool") else "avg" if last.startswith("AvgPool") else ""
    if not name or "kernel_size" not in entry:
        return name or last
    sides = [_side(entry.get(option, usual)) for option, usual in (("kernel_size", 2), ("stride", 2), ("padding", 0))]
    rest = [f"dilation {entry.get('dilation')}"] * (_side(entry.get("dilation", 1)) != 1)
    rest += ["ceil mode"] * bool(entry.get("ceil_mode")) + ["a divisor of its own"] * bool(
        entry.get("divisor_override")
    )
    # What lies in the border counts nothing in a maximum; the stem's average counts it.
    inside = name == "avg" and sides[2] != 0 and entry.get("count_include_pad") is False
    return ", ".join([pooled(name, *sides), *rest, *["its border not counted"] * inside])


def pooled(name: str, kernel: Any, stride: Any, padding: Any) -> str:
    """Return a pool of these sides."""
    return f"{name}, kernel {kernel}, stride {stride}, padding {padding}"


def _side(value: Any) -> Any:
    """Return the one side of a kernel or stride that is the same along all axes."""
    return value[0] if isinstance(value, (tuple, list)) and len(set(value)) == 1 else value
