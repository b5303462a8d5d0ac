"""What is said of a checkpoint by keyword, as tables of a recipe."""

from collections.abc import Mapping, Sequence
from typing import Any

from deploy_kit.base.errors import RequestError

_PLAIN = (
    "state_key", "head", "output", "stem_pool", "concat", "activation", "outer_activation", "stem_activation",
    "hidden_activation", "slope", "stem_slope", "outer_slope", "hidden_slope", "dense_order", "transition_order",
    "final_order", "hidden_order", "transition_relu", "transition_pool", "final_relu", "eps", "hidden_eps", "head_pool",
    "feature_norm", "head_activation", "skip_order", "up_crop", "upsampling", "map_scale",
)  # fmt: skip


def source(given: Mapping[str, Any]) -> dict[str, Any]:
    """Turn keywords into keys of a recipe's source table; what was not given is left out."""
    facts = {key: given[key] for key in _PLAIN if given[key] is not None}
    facts |= {key: str(given[key]) for key in ("probe",) if given[key] is not None}
    if given["strict"]:
        facts["strict"] = True
    if given["ignore"]:
        facts["ignore"] = [given["ignore"]] if isinstance(given["ignore"], str) else list(given["ignore"])
    if given["stem_stride"] is not None:
        stride = given["stem_stride"]
        facts["stem_stride"] = stride if isinstance(stride, int) else list(stride)
    return facts


def image(given: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what was given of the input into a recipe's ``preprocess`` table, or its ``input`` if that is all.

    Raises:
        RequestError: A part is missing.
    """
    sides = _sides(given["input"])
    rest = {key: given[key] for key in ("color", "resize", "interpolation") if given[key] is not None}
    means, stds = (_channels(given[key]) for key in ("mean", "std"))
    if means is None and stds is None and not rest:
        return {} if sides is None else {"input": sides, "preprocess": None}
    if sides is None or len(sides) != 2 or means is None or stds is None:
        raise RequestError(
            "input, mean and std belong together, and the input of images has two sides",
            hint="e.g. input=(28, 28), mean=0.286, std=0.353",
        )
    color = {"color": "gray" if len(means) == 1 else "rgb"}
    return {"preprocess": {"height": sides[0], "width": sides[1], "mean": means, "std": stds, **color, **rest}}


def _sides(size: int | str | Sequence[int] | None) -> list[int] | None:
    if size is None or isinstance(size, int):
        return None if size is None else [size]
    parts = size.lower().split("x") if isinstance(size, str) else list(size)
    try:
        return [int(part) for part in parts]
    except ValueError as error:
        raise RequestError(f"input: expected whole numbers, found '{size!s}'", hint="e.g. input=(224, 224)") from error


def _channels(values: float | Sequence[float] | None) -> list[float] | None:
    if values is None:
        return None
    if isinstance(values, (int, float)):
        return [float(values)]
    return [float(value) for value in values]
