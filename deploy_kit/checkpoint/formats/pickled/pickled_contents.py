"""Values of a pickle → `Contents`: weights, class names and preprocessing, where the file states them plainly."""

from collections.abc import Mapping
from typing import Any

from deploy_kit.base.errors import RecipeError
from deploy_kit.checkpoint.contents import Container, Contents
from deploy_kit.checkpoint.formats import paddle
from deploy_kit.checkpoint.formats.limits import ReadLimits
from deploy_kit.checkpoint.formats.pickled import weight_search
from deploy_kit.checkpoint.formats.pickled.inert_values import Record
from deploy_kit.records.artifacts import Preprocess

_MAX_CLASSES = 100_000
# Where trainers keep what they know of the data, beside the weights (mmengine, timm, Lightning and others).
_BESIDE = ("meta", "dataset_meta", "args", "config", "cfg", "hyper_parameters", "hparams", "data_config", "data_cfg")
_CLASSES = ("classes", "class_names", "CLASSES", "idx_to_class", "class_to_idx")


def contents_of(kind: Container, data: Any, budget: ReadLimits, state_key: str | None) -> Contents:
    """Search the values of a pickle for the weights and what is known of them.

    Args:
        kind: The container.
        data: Inert values.
        budget: Budget of the file.
        state_key: State dict to take where there are several.
    """
    weights = weight_search.find_weights(data, budget, state_key=state_key)
    tensors: Mapping[str, Any] = weights.tensors
    if kind == "pickle" and paddle.is_paddle(data, tensors):
        kind, tensors = paddle.KIND, paddle.to_torch(tensors)
    tables = list(_tables(data))
    return Contents(
        kind=kind,
        tensors=tensors,
        remarks=weights.remarks,
        state_key=weights.path,
        attributes=weights.attributes,
        classes=next((names for table in tables if (names := _classes(table))), None),
        preprocess=next((stated for table in tables if (stated := preprocess_of(table))), None),
    )


def _tables(data: Any) -> list[Mapping[Any, Any]]:
    """List the file's own table and the usual ones in it, breadth first."""
    tables: list[Mapping[Any, Any]] = []
    waiting = [_table(data)]
    while waiting and len(tables) < len(_BESIDE) ** 2:
        table = waiting.pop(0)
        tables.append(table)
        waiting += [_table(table[name]) for name in _BESIDE if isinstance(table.get(name), (dict, Record))]
    return tables


def _table(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Record):
        return {**value.attributes(), **value.items}
    return value if isinstance(value, dict) else {}


def _classes(table: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """Read a list of names, names with their numbers, or numbers with their names."""
    for key in _CLASSES:
        value = table.get(key)
        if isinstance(value, Record):
            value = value.items or value.elements
        if isinstance(value, dict):
            pairs = {place: name for name, place in value.items() if isinstance(name, str) and type(place) is int}
            pairs |= {place: name for place, name in value.items() if type(place) is int and isinstance(name, str)}
            value = [pairs.get(place) for place in range(len(value))]
        if isinstance(value, (list, tuple)) and 0 < len(value) <= _MAX_CLASSES:
            names = tuple(name for name in value if isinstance(name, str))
            if len(names) == len(value):
                return names
    return None


def preprocess_of(table: Mapping[Any, Any]) -> Preprocess | None:
    """Read timm's data config: ``input_size`` of three numbers, ``mean`` and ``std`` of RGB in 0..1.

    Source: timm/data/config.py, `resolve_data_config`; the shorter side is scaled to size / ``crop_pct``.
    """
    size, mean, std = (_numbers(table.get(key)) for key in ("input_size", "mean", "std"))
    if size is None or mean is None or std is None or size[0] != 3 or not all(0 < value <= 1 for value in mean + std):
        return None
    crop, filter_ = table.get("crop_pct"), table.get("interpolation", "bilinear")
    if filter_ not in ("bilinear", "bicubic") or not (crop is None or (isinstance(crop, float) and 0 < crop <= 1)):
        return None
    height, width = int(size[1]), int(size[2])
    try:
        return Preprocess(
            height=height,
            width=width,
            color="rgb",
            mean=mean,
            std=std,
            resize=None if crop is None else int(min(height, width) / crop),
            interpolation=filter_,
        )
    except RecipeError:
        return None


def _numbers(value: Any) -> tuple[float, ...] | None:
    if isinstance(value, Record):
        value = value.elements
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return None
    return tuple(value) if all(type(item) in (int, float) for item in value) else None
