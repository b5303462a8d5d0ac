"""Recipes changed by what a user says beside them, on the command line or in Python."""

import re
from pathlib import Path
from typing import Any, get_args

from deploy_kit import recipe
from deploy_kit.recipe import BenchTable, Recipe, SourceTable
from deploy_kit.records.artifacts import Precision

DEFAULT, DEMO = "default", "demo"
# Endings of checkpoints, of which a file may have several: best.pth.tar.
_ENDINGS = frozenset(
    (
        ".pth", ".pt", ".pt2", ".tar", ".ckpt", ".bin", ".safetensors", ".onnx", ".h5", ".hdf5", ".keras", ".pdparams",
        ".npz", ".pkl", ".pickle", ".zip", ".gz",
    )
)  # fmt: skip
# How long is measured is one thing said in several ways: another scenario means them differently.
_LENGTHS = ("rounds", "runs", "min_iters", "duration_s")


def for_checkpoint(checkpoint: str) -> Recipe:
    """Return the bundled default recipe for a user's own checkpoint or ONNX file, called as the file is."""
    named = recipe.load_recipe(DEFAULT).model_copy(update={"name": name_of(checkpoint)})
    return with_inputs(named, checkpoint=checkpoint)


def name_of(checkpoint: str) -> str:
    """Return the name that a checkpoint gives to its recipe and its folders: ``runs/best.pth`` → ``best``."""
    name = Path(checkpoint.rpartition(":")[2]).name
    while Path(name).suffix.lower() in _ENDINGS:
        name = Path(name).stem
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).lstrip("._+-") or DEFAULT


def with_limits(
    base: Recipe,
    *,
    max_drop: float | None = None,
    min_top1: float | None = None,
    latency_budget_ms: float | None = None,
    max_size_mb: float | None = None,
    max_energy_mj: float | None = None,
    max_power_w: float | None = None,
) -> Recipe:
    """Return a recipe with other limits; what is None stays as it is.

    Args:
        base: The recipe to start from.
        max_drop: Percentage points that a variant may lose, in every precision but ``fp32``, the baseline's.
        min_top1: Least top-1 accuracy in 0..1, in every precision.
        latency_budget_ms: Limit of the largest percentile.
        max_size_mb: Largest file that is recommended.
        max_energy_mj: Largest energy per image that is recommended; the bench then measures energy.
        max_power_w: Largest power that is recommended; the bench then measures energy.

    Raises:
        RecipeError: A value does not fit.
    """
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
    if max_drop is not None:
        for precision in ("fp16", "bf16", "int8"):
            data["check"]["limits"].setdefault(precision, {})["max_drop"] = max_drop
    if min_top1 is not None:
        for precision in get_args(Precision):
            data["check"]["limits"].setdefault(precision, {})["min_top1"] = min_top1
    if latency_budget_ms is not None:
        data["bench"]["latency_budget_ms"] = latency_budget_ms
    costs = {"max_size_mb": max_size_mb, "max_energy_mj": max_energy_mj, "max_power_w": max_power_w}
    data["recommend"] |= {key: value for key, value in costs.items() if value is not None}
    if max_energy_mj is not None or max_power_w is not None:
        data["bench"]["energy"] = True
    return recipe.parse_recipe(data)


def with_inputs(
    base: Recipe,
    *,
    checkpoint: str | None = None,
    calibration: str | None = None,
    images: str | None = None,
    skip_bad: bool = False,
    orientation: str | None = None,
    crops: int | None = None,
    task: str | None = None,
    masks: str | None = None,
    ignore_index: int | None = None,
    every_image: bool = False,
) -> Recipe:
    """Return a recipe that reads other files; what is None stays as it is.

    Args:
        base: The recipe to start from.
        checkpoint: Checkpoint or ONNX file; ``demo``, where nothing of this name is in the working folder, is the
            bundled demo's, with its images of both sets where no others are given.
        calibration: Image set to calibrate with.
        images: Image set to check with.
        skip_bad: Leave out images of both sets that cannot be read.
        orientation: Whether images of both sets with an EXIF orientation are read ``stored`` or ``upright``.
        crops: Crops of each check image.
        task: What the outputs mean.
        masks: Folder of the check images' masks.
        ignore_index: Class number of masks that is not judged.
        every_image: Whether float32 engines compute every check image, however many there are.

    Raises:
        RecipeError: A value does not fit.
    """
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
    if checkpoint == DEMO and not Path(checkpoint).exists():
        demo = recipe.load_recipe(DEMO)
        checkpoint, images = demo.source.checkpoint, images or demo.check.images
        calibration = calibration or demo.quantize.calibration
    if calibration is not None:
        data["quantize"]["calibration"] = calibration
    if images is not None:
        data["check"]["images"] = images
    if skip_bad:
        data["quantize"]["skip_bad"] = data["check"]["skip_bad"] = True
    if orientation is not None:
        data["quantize"]["orientation"] = data["check"]["orientation"] = orientation
    given = {"crops": crops, "task": task, "masks": masks, "ignore_index": ignore_index}
    data["check"] |= {key: value for key, value in given.items() if value is not None}
    if every_image:
        data["check"]["every_image"] = True
    if checkpoint is not None:
        data["source"]["checkpoint"] = checkpoint
    return recipe.parse_recipe(data)


def with_export(base: Recipe, source: dict[str, Any], table: dict[str, Any]) -> Recipe:
    """Return a recipe that exports otherwise: `source` and `table` go over its source and its export table.

    Raises:
        RecipeError: A key is unknown, or a value does not fit.
    """
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
    data["source"] |= source
    data["export"] |= table
    return recipe.parse_recipe(data)


def source_table(facts: dict[str, Any]) -> SourceTable:
    """Return the source table of these keys, ``checkpoint`` among them.

    Raises:
        RecipeError: A key is unknown, or a value does not fit.
    """
    return with_export(recipe.load_recipe(DEFAULT), facts, {}).source


def with_passes(base: Recipe, passes: tuple[str, ...]) -> Recipe:
    """Return a recipe that simplifies by other passes, in their order."""
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
    data["simplify"]["passes"] = list(passes)
    return recipe.parse_recipe(data)


def with_slim(base: Recipe, table: dict[str, Any] | None) -> Recipe:
    """Return a recipe that slims by another table, or not at all.

    Raises:
        RecipeError: A key is unknown, or a value does not fit.
    """
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
    data.pop("slim", None)
    return recipe.parse_recipe(data if table is None else data | {"slim": table})


def with_slim_within(base: Recipe, macs: float, max_drop: float, more: dict[str, Any] | None = None) -> Recipe:
    """Return a recipe that slims, and judges every precision by the drop alone.

    The other limits of a recipe are on rounding, of which another network's outputs differ by more.

    Args:
        base: The recipe to start from.
        macs: Share of the multiply-accumulates that may be left, in 0..1.
        max_drop: Percentage points that slimming and precision together may lose.
        more: Further rows of the table.

    Raises:
        RecipeError: A value does not fit.
    """
    data: dict[str, Any] = with_slim(base, {"macs": macs, **(more or {})}).model_dump(mode="json", exclude_none=True)
    limits = data["check"]["limits"]
    kept = {
        precision: {key: table[key] for key in ("min_top1",) if key in table} for precision, table in limits.items()
    }
    data["check"]["limits"] = {
        precision: kept.get(precision, {}) | {"max_drop": max_drop} for precision in get_args(Precision)
    }
    return recipe.parse_recipe(data)


def with_bench(base: Recipe, changes: dict[str, Any]) -> BenchTable:
    """Return a recipe's bench table with changes; a change to None is none.

    Raises:
        RecipeError: A key is unknown, or a value does not fit.
    """
    data = base.model_dump(mode="json", exclude_none=True)
    given = {key: value for key, value in changes.items() if value is not None}
    if given.get("scenario", data["bench"]["scenario"]) != data["bench"]["scenario"]:
        for key in _LENGTHS:
            data["bench"].pop(key, None)
    if "duration_s" in given:
        data["bench"].pop("runs", None)
    data["bench"] |= given
    return recipe.parse_recipe(data).bench
