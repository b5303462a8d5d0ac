"""The whole line at once: `deploy`, and the recipes it follows and the reports it gives."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from deploy_kit import engines as engine_catalogue
from deploy_kit import pipeline
from deploy_kit import recipe as recipes
from deploy_kit.api import _facts, _step
from deploy_kit.api._step import PathLike, Progress, StoreLike
from deploy_kit.base import bundled
from deploy_kit.base.errors import RequestError
from deploy_kit.devices import links
from deploy_kit.machine import environment
from deploy_kit.parallel import ray_workers
from deploy_kit.quantization.variant_choice import VariantRequest, choose_variant
from deploy_kit.recipe import Recipe, Variant, overrides, targets
from deploy_kit.records.artifacts import Device, Exported, Precision
from deploy_kit.records.measurements import samples_for
from deploy_kit.records.results import Report
from deploy_kit.stages import report as report_stage
from deploy_kit.store import Store

_YAML = (".yaml", ".yml")
_USUAL_ENGINES = ("onnxruntime", "openvino")
_MEASURED_S = 3.0
# Accelerator → engines that compute there.
_USUAL_ON = {"cuda": ("tensorrt", "onnxruntime"), "dla": ("tensorrt",), "gpu": ("openvino",), "npu": ("openvino",)}


def deploy(
    recipe: Recipe | Exported | PathLike,
    device: Device | str = "local",
    store: StoreLike = None,
    on_progress: Progress = "auto",
    *,
    engines: str | Sequence[str] | None = None,
    precisions: Precision | Sequence[Precision] | None = None,
    input: int | str | Sequence[int] | None = None,  # noqa: A002  # called as the flag is
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    color: Literal["gray", "rgb", "bgr"] | None = None,
    resize: int | None = None,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
    output: str | None = None,
    calibration: PathLike | None = None,
    images: PathLike | None = None,
    task: str | None = None,
    masks: PathLike | None = None,
    ignore_index: int | None = None,
    skip_bad: bool = False,
    orientation: Literal["stored", "upright"] | None = None,
    fresh: bool = False,
    on: str = "",
    out: PathLike | None = None,
) -> Report:
    """Take a recipe or a checkpoint from export to report: every engine built, checked and measured.

    A target that fails does not take the others with it: its row says what went wrong. A limit that is not kept, and a
    latency that is not valid, are answers: ``report.passed`` and ``report.invalid``.

    Args:
        recipe: A `Recipe`, its file, the name of a bundled one (``"demo"``), a checkpoint or ONNX file, or, for a
            checkpoint of which more must be said than `input`, `mean` and `std`, what `export` returned.
        device: Where to build, check and measure: a name of `deploykit devices list`, ``ssh://user@host:port``, or a
            `Device`.
        store: Folder of results; by default the environment's ``DEPLOYKIT_STORE``, or ``.deploykit``.
        on_progress: See `export`.
        engines: Engines to build; by default the recipe's, for a checkpoint ``onnxruntime`` and ``openvino``.
        precisions: Precisions to build each of them in; by default the recipe's, for a checkpoint ``fp32``, and
            ``int8`` where there are images to calibrate with.
        input: Sides of a checkpoint's input in px; see `export` for this and the next five.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        color: Order of the channels.
        resize: Length in px that the shorter side is scaled to.
        interpolation: Filter of the resize.
        output: Output of an ONNX file to take, where it has several.
        calibration: Images to calibrate with; by default the recipe's.
        images: Images to check with; by default the recipe's.
        task: What the outputs mean; see `check` for this and the next two.
        masks: Folder of the check images' masks.
        ignore_index: Class number of masks that is not judged.
        skip_bad: Leave out images that cannot be read, and count them.
        orientation: Whether images with an EXIF orientation are read as they are ``stored`` or turned ``upright``.
        fresh: Measure latency again, even if the store has it.
        on: Where to compute what needs no particular machine: ``ray`` for Ray's workers on this machine,
            ``ray://HOST:PORT`` for a cluster; by default in this process.
        out: Folder of reports: ``report.json`` and ``report.md`` are written below it, in a folder named as the recipe.

    Returns:
        The report, a row for each engine.

    Raises:
        DeployKitError: The recipe is not possible here, or the checkpoint could not be exported and simplified.
    """
    given = dict(locals())
    opened_store = _step.open_store(store)
    base = overrides.with_inputs(
        _recipe_for(recipe, _facts.image(given) | ({} if output is None else {"output": output}), opened_store),
        calibration=_step.text_or_none(calibration),
        images=_step.text_or_none(images),
        skip_bad=skip_bad,
        orientation=orientation,
        task=task,
        masks=_step.text_or_none(masks),
        ignore_index=ignore_index,
    )
    base = with_engines(base, _names(engines), _names(precisions))
    opened_store.recipe = base.model_dump(mode="json")
    target = _step.find_device(device)
    with _step.followed(on_progress, "deploy") as (callback, say), ray_workers.open_workers(on, say) as workers:
        report = pipeline.deploy(base, target, opened_store, callback, fresh=fresh, workers=workers)
    if out is not None:
        written = report_stage.run(report, Path(out) / base.name)
        return report_stage.load_report(written.with_name("report.json"))  # it holds the command that repeats it
    return report


def load_recipe(source: PathLike) -> Recipe:
    """Load a recipe by its path or by the name of a bundled one.

    Args:
        source: A YAML file, or a name such as ``demo``.

    Raises:
        InputError: No such file.
        UnknownNameError: No such bundled recipe.
        RecipeError: Not YAML, or not a recipe; the message names the key.
    """
    return recipes.load_recipe(os.fspath(source))


def load_report(path: PathLike) -> Report:
    """Load a ``report.json``.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        InputError: Missing, or not a report.
    """
    file = Path(path)
    return report_stage.load_report(file / "report.json" if file.is_dir() else file)


def write_report(report: Report, folder: PathLike) -> Path:
    """Write ``report.json`` and ``report.md`` into a folder.

    Returns:
        The path of ``report.md``.
    """
    return report_stage.run(report, Path(folder))


def deployment_recipe(
    base: Recipe,
    *,
    engines: tuple[str, ...] = (),
    precisions: tuple[str, ...] = (),
    device: Device | str = "local",
    max_drop: float | None = None,
    min_top1: float | None = None,
    latency_budget_ms: float | None = None,
    max_size_mb: float | None = None,
    max_energy_mj: float | None = None,
    max_power_w: float | None = None,
) -> Recipe:
    """Return the recipe that `deploykit deploy` runs: engines that the device can run, in precisions that gain there.

    Args:
        base: The recipe of a checkpoint, with its images.
        engines: Engines to build, which must be there; if empty, the usual ones of the device's accelerator, of which
            those that are not installed are left out.
        precisions: Precisions of every engine; if empty, those that gain on each.
        device: Where it is built, checked and measured; its processor decides the form of INT8.
        max_drop: Percentage points that may be lost.
        min_top1: Least top-1 accuracy in 0..1.
        latency_budget_ms: Limit of the largest percentile.
        max_size_mb: Largest file that is recommended.
        max_energy_mj: Largest energy above idle per image that is recommended, of every power rail.
        max_power_w: Largest mean power while it runs that is recommended, of every power rail.

    Raises:
        DeviceError: The device cannot be reached.
        UnknownNameError: No engine or no precision has a name.
    """
    for engine in engines:
        engine_catalogue.CATALOGUE.get(engine)
    target = _step.find_device(device)
    with links.connect_device(target) as connection:
        isa = connection.environment.isa
    usual = _USUAL_ON.get(target.accelerator.partition(":")[0].lower(), _USUAL_ENGINES)
    made = with_engines(base, engines or usual, precisions, isa=isa, accelerator=target.accelerator)
    if not engines:
        entries = tuple(entry.model_copy(update={"optional": True}) for entry in made.build.engines)
        made = made.model_copy(update={"build": made.build.model_copy(update={"engines": entries})})
    limited = overrides.with_limits(
        made,
        max_drop=max_drop,
        min_top1=min_top1,
        latency_budget_ms=latency_budget_ms,
        max_size_mb=max_size_mb,
        max_energy_mj=max_energy_mj,
        max_power_w=max_power_w,
    )
    # By time, so that a slow network is not measured for minutes; a budget is on p99, which takes 1,000 runs.
    length = {"duration_s": _MEASURED_S, "min_iters": None if latency_budget_ms is None else samples_for(99)}
    return limited.model_copy(update={"bench": overrides.with_bench(limited, length)})


def with_engines(
    base: Recipe,
    engines: tuple[str, ...],
    precisions: tuple[str, ...],
    *,
    isa: tuple[str, ...] | None = None,
    accelerator: str = "cpu",
) -> Recipe:
    """Return a recipe that builds these engines in these precisions.

    What is empty stays as the recipe has it, or is chosen where it has none.

    Args:
        base: The recipe to start from.
        engines: Engines to build.
        precisions: Precisions of every engine; if empty, those that gain on each (`targets.yaml`).
        isa: Instruction sets of the processor that will run them; by default this machine's.
        accelerator: Where they will run.

    Raises:
        UnknownNameError: No precision has a name.
    """
    isa = environment.describe_machine().isa if isa is None else isa
    if not engines and not precisions and base.build.engines:
        return base
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
    own = {entry.engine: dict(entry.options) for entry in base.build.engines}
    calibrated = base.quantize.calibration is not None
    variants, entries = dict[str, Variant](), list[dict[str, Any]]()
    for engine in dict.fromkeys(engines or tuple(own) or _USUAL_ENGINES):
        gaining = targets.find_target(targets.target_of(engine)).precisions(isa, accelerator, calibrated=calibrated)
        chosen = [_variant(precision, engine, base, variants, isa) for precision in precisions or gaining]
        variants |= {variant.name: variant for variant in chosen if variant is not None}
        names = [variant.name if variant else "fp32" for variant in chosen]
        entries.append({"engine": engine, "variants": names, "options": own.get(engine, {})})
    data["quantize"]["variants"] = [variant.model_dump(mode="json") for variant in variants.values()]
    data["build"]["engines"] = entries
    if base.bench.baseline is None and "fp32" in entries[0]["variants"]:
        data["bench"]["baseline"] = f"fp32 · {entries[0]['engine']}"
    return recipes.parse_recipe(data)


def _variant(
    precision: str, engine: str, base: Recipe, taken: dict[str, Variant], isa: tuple[str, ...]
) -> Variant | None:
    """Choose the variant of a precision for an engine; None for the simplified graph itself.

    Engines share a variant where they like the same; where a name is taken by another one, it is told apart.
    """
    if precision == "fp32":
        return None
    request = VariantRequest(precisions=(precision,), target=targets.target_of(engine))
    variant, _ = choose_variant(request, base, isa, environment.library_version)
    if taken.get(variant.name, variant) == variant:
        return variant
    return variant.model_copy(update={"name": f"{variant.name}-{engine}"})


def _recipe_for(source: Recipe | Exported | PathLike, said: dict[str, Any], store: Store) -> Recipe:
    """Return the recipe that is meant; what is said of input and output belongs to a checkpoint."""
    checkpoint = isinstance(source, (str, os.PathLike)) and not _is_recipe(os.fspath(source))
    if said and not checkpoint:
        raise RequestError(
            "input, mean, std and output are said of a checkpoint, and a recipe or an export has its own",
            hint="write them into the recipe, or give them to export",
        )
    if isinstance(source, Recipe):
        return source
    if isinstance(source, Exported):
        return _step.recipe_of(source, store)
    if checkpoint:
        return overrides.with_export(overrides.for_checkpoint(os.fspath(source)), said, {})
    return load_recipe(source)


def _is_recipe(source: str) -> bool:
    """Return whether a text names a recipe: a YAML file, or a name without suffix that is no file."""
    if source.startswith(bundled.PREFIX):
        return source.removeprefix(bundled.PREFIX) in bundled.bundled_names("recipes")
    return Path(source).suffix in _YAML or (not Path(source).suffix and not Path(source).exists())


def _names(names: str | Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)
