"""Files beside weights that say how images become the input, or of what the network is made.

Source of the layouts: timm/models/_hub.py (``config.json`` with ``pretrained_cfg``), transformers'
``preprocessor_config.json`` and ``id2label``, docs/source/mb_specification.rst of MONAI (``configs/metadata.json``),
and base/hub_mixin.py of segmentation_models_pytorch (``config.json`` with the arguments of a network).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import CheckpointError, RecipeError
from deploy_kit.checkpoint.contents import Sidecar
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source
from deploy_kit.checkpoint.formats.folders import BUNDLE, CONFIG, PROCESSOR, files_beside
from deploy_kit.checkpoint.formats.pickled.pickled_contents import preprocess_of
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.records.densenet import HeadActivation

_MAX_BYTES, _MAX_CLASSES, _MAX_SCALE = 8 << 20, 100_000, 32
_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_LAST: Mapping[str, HeadActivation] = {"sigmoid": "sigmoid", "softmax2d": "softmax", "logsoftmax": "log_softmax"}
_WRONG = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecipeError)


def read_sidecar(checkpoint: Path) -> Sidecar | None:
    """Read what lies beside a checkpoint; None where nothing there speaks of images.

    Files that are no JSON, or that say something else, are of other programs and are passed over.
    """
    tables = {file.name: table for file in files_beside(checkpoint) if (table := _table(file))}
    config, processor = tables.get(CONFIG, {}), tables.get(PROCESSOR, {})
    bundle = tables.get("metadata.json", {})
    try:
        preprocess = _timm(config) or _hugging_face(processor)
        classes = _classes(config) or _bundle_classes(bundle)
        channels, sides = _bundle_input(bundle)
    except _WRONG:
        return None
    facts = _smp(config)
    if preprocess is None and classes is None and sides is None and facts is None:
        return None
    source = next(
        name
        for name, found in (
            (CONFIG, _timm(config) or _classes(config) or facts),
            (PROCESSOR, preprocess),
            (BUNDLE, True),
        )
        if found
    )
    facts = facts or ArchitectureFacts()
    return Sidecar(source=source, preprocess=preprocess, classes=classes, channels=channels, sides=sides, facts=facts)


def _table(file: Path) -> Mapping[str, Any]:
    try:
        if file.stat().st_size > _MAX_BYTES:
            return {}
        table = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def _timm(config: Mapping[str, Any]) -> Preprocess | None:
    stated = config.get("pretrained_cfg")
    return preprocess_of(stated) if isinstance(stated, dict) else None


def _smp(config: Mapping[str, Any]) -> ArchitectureFacts | None:
    """Read what `save_pretrained` of segmentation_models_pytorch writes: the arguments that a network was made with.

    Raises:
        CheckpointError: Its decoder resizes in a way that is not rebuilt.
    """
    if not isinstance(config.get("encoder_name"), str) or "encoder_depth" not in config:
        return None
    mode, last = config.get("decoder_interpolation", "nearest"), config.get("activation")
    scale = config.get("upsampling")
    if mode not in ("nearest", "bilinear"):
        raise CheckpointError(
            f"'{CONFIG}' beside it says decoder_interpolation = {str(mode)[:40]!r}: nearest and bilinear are rebuilt",
            hint="export it to ONNX with its own package, and give that file",
        )
    return ArchitectureFacts(
        upsampling=mode,
        map_scale=scale if type(scale) is int and 1 <= scale <= _MAX_SCALE else None,
        head_activation=_LAST.get(last) if isinstance(last, str) else None,
        source=Source("file", f"'{CONFIG}' beside it"),
    )


def _hugging_face(processor: Mapping[str, Any]) -> Preprocess | None:
    """Read an image processor: sizes as numbers or by ``height`` and ``width``, the resize by ``shortest_edge``."""
    if not processor.get("do_normalize") or processor.get("rescale_factor", 1 / 255) != 1 / 255:
        return None
    size = processor["size"]
    edge = size if isinstance(size, int) else size.get("shortest_edge")
    crop = processor.get("crop_size", size)
    height, width = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
    return Preprocess(
        height=height,
        width=width,
        color="rgb",
        mean=tuple(float(value) for value in processor["image_mean"]),
        std=tuple(float(value) for value in processor["image_std"]),
        resize=edge if processor.get("do_center_crop") else None,
        interpolation=_FILTERS[processor.get("resample", 2)],  # type: ignore[arg-type]  # a name of the literal
    )


def _classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Read ``label_names`` (timm) or ``id2label``."""
    stated = config.get("pretrained_cfg")
    rows: Any = config.get("label_names") or (stated.get("label_names") if isinstance(stated, dict) else None)
    table = config.get("id2label")
    if rows is None and isinstance(table, dict) and len(table) <= _MAX_CLASSES:
        rows = [table.get(str(place)) for place in range(len(table))]
    return _names(rows)


def _bundle_classes(bundle: Mapping[str, Any]) -> tuple[str, ...] | None:
    outputs = bundle.get("network_data_format", {}).get("outputs", {})
    for output in outputs.values():
        table = output.get("channel_def") or {}
        if len(table) > 1:
            return _names([table.get(str(place)) for place in range(len(table))])
    return None


def _bundle_input(bundle: Mapping[str, Any]) -> tuple[int | None, tuple[int, ...] | None]:
    """Return (channels, sides) of a bundle's image; open sides are written as text such as ``16*n``."""
    for image in bundle.get("network_data_format", {}).get("inputs", {}).values():
        sides = tuple(image.get("spatial_shape", ()))
        fixed = sides and all(type(side) is int and side > 0 for side in sides)
        return image.get("num_channels"), sides if fixed else None
    return None, None


def _names(rows: Any) -> tuple[str, ...] | None:
    if not isinstance(rows, list) or not 0 < len(rows) <= _MAX_CLASSES or not all(isinstance(row, str) for row in rows):
        return None
    return tuple(rows)
