"""YAML → frozen recipe, strict: an unknown key names the nearest, and no limit has a default.

A recipe mirrors the stages table for table. Names of engines, schemes and passes, and their options, are looked up
by `doctor` before any work.
"""

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from deploy_kit.base import bundled
from deploy_kit.base.errors import RecipeError, nearest, no_such_file
from deploy_kit.base.plain_text import one_line, shell_word, shown
from deploy_kit.base.text_files import read_yaml
from deploy_kit.records.artifacts import MOST_RESIZE, Precision, Preprocess
from deploy_kit.records.densenet import (
    Activation,
    FeatureNorm,
    HeadActivation,
    HeadPool,
    Order,
    SkipOrder,
    StemPool,
    TransitionPool,
    UpCrop,
    Upsampling,
)
from deploy_kit.records.measurements import LatencySpan
from deploy_kit.records.results import Limits

MOST_PX = 65_536
"""Longest side of an input: four times the longest that WEBP has."""
Side = Annotated[int, Field(gt=0, le=1 << 24)]  # of a sound, in samples
_LARGEST = 2**31 - 1
_NOT_UTF8 = re.compile('"[^"]*[\ud800-\udfff][^"]*"')  # how Python keeps the bytes of such a name
MOST_BATCH = 65_536
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=100)]
T = TypeVar("T", bound="RecipeTable")


class RecipeTable(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PreprocessTable(RecipeTable):
    """How an image becomes the input; the fields of `records.artifacts.Preprocess`.

    Without height and width the input has the size that the file is known for.
    """

    height: int | None = Field(default=None, gt=0, le=MOST_PX)
    width: int | None = Field(default=None, gt=0, le=MOST_PX)
    color: Literal["gray", "rgb", "bgr"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width, where they are stated."""
        return None if self.height is None or self.width is None else (self.height, self.width)

    def record(self, sides: tuple[int, ...] | None = None) -> Preprocess:
        """Return the record that travels with artifacts.

        Args:
            sides: Height and width, where the table does not state them.

        Raises:
            RecipeError: There is one side without the other, or no size, or a number for a channel is missing; or mean
                and std are for other pixels than those in 0..1.
        """
        height, width = self.sides or sides or (0, 0)
        if (self.height is None) != (self.width is None) or not height:
            raise RecipeError("preprocess: expected height and width", hint="e.g. height: 224, width: 224")
        if self.sides and (self.resize or 0) > MOST_RESIZE * max(height, width):
            raise RecipeError(f"preprocess.resize: expected a side that fits the input, found {self.resize:,} px")
        made = Preprocess(**self.model_dump() | {"height": height, "width": width})
        if made.units_fault:
            mean, std = (",".join(f"{value / 255:.6g}" for value in values) for values in (made.mean, made.std))
            raise RecipeError(f"preprocess: {made.units_fault}", hint=f"divide both by 255: --mean {mean} --std {std}")
        return made


class SourceTable(RecipeTable):
    """The checkpoint to deploy.

    The keys behind `input` are needed only where a checkpoint does not state the fact; `inspect` shows what it states.

    Attributes:
        checkpoint: A file, or ``bundled:NAME``.
        preprocess: Preprocessing of images, where the checkpoint does not carry its own.
        input: Sides of the input in px, where no preprocessing states them.
        state_key: Key of the state dict to use, where the file holds several.
        head: Module of the head to use, where there are several; ``none`` for the pooled features.
        output: Output of an ONNX file to use, where it has several, or a value within it.
        ignore: Modules or tensors of the file to ignore.
        probe: npz file with one ``input`` and its ``logits``, to try open facts on.
        strict: Refuse to guess a fact that changes the numbers.
        stem_stride: Stride of the first convolution: one number, or one for each axis.
        stem_pool: Pool at the end of the stem.
        concat: Whether new channels are appended to the old ones or prepended.
        activation: Activation of the dense layers.
        outer_activation: Activation of stem, transitions and end.
        stem_activation: Activation of the stem, where it is another one.
        hidden_activation: Activation between linear layers.
        slope: Slope of leaky activations below zero.
        stem_slope: The same in the stem, where it is another one.
        outer_slope: The same outside of dense layers, likewise.
        hidden_slope: The same between linear layers, likewise.
        dense_order: Whether a dense layer's BNs come before their activations or behind them.
        transition_order: The same of a transition's BN.
        final_order: The same of the last BN.
        hidden_order: The same of BNs between linear layers.
        transition_relu: Whether an activation precedes each transition's convolution.
        transition_pool: Pool that halves the map in a transition.
        final_relu: Whether an activation follows the last BN.
        eps: Epsilon of every BN.
        hidden_eps: Epsilon of BNs between linear layers, where it is another one.
        head_pool: How the last map becomes a vector.
        feature_norm: Whether that vector is divided by its Euclidean norm.
        head_activation: Activation to add behind the last linear layer.
        skip_order: Whether a decoder's enlarged maps come before the encoder's or behind them.
        up_crop: Which pixels stay of a transposed convolution's odd number: from the start, or to the end.
        upsampling: Interpolation of a decoder that resizes.
        map_scale: How many times larger the output of a feature pyramid is than its own maps.
    """

    checkpoint: str
    preprocess: PreprocessTable | None = None
    input: tuple[Side, ...] | None = Field(default=None, min_length=1, max_length=3)
    state_key: str | None = None
    head: str | None = None
    output: str | None = None
    ignore: tuple[str, ...] = ()
    probe: str | None = None
    strict: bool = False
    stem_stride: Side | tuple[Side, ...] | None = None
    stem_pool: StemPool | None = None
    concat: Literal["append", "prepend"] | None = None
    activation: Activation | None = None
    outer_activation: Activation | None = None
    stem_activation: Activation | None = None
    hidden_activation: Activation | None = None
    slope: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    stem_slope: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    outer_slope: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    hidden_slope: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    dense_order: Order | None = None
    transition_order: Order | None = None
    final_order: Order | None = None
    hidden_order: Order | None = None
    transition_relu: bool | None = None
    transition_pool: TransitionPool | None = None
    final_relu: bool | None = None
    eps: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    hidden_eps: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    head_pool: HeadPool | None = None
    feature_norm: FeatureNorm | None = None
    head_activation: HeadActivation | None = None
    skip_order: SkipOrder | None = None
    up_crop: UpCrop | None = None
    upsampling: Upsampling | None = None
    map_scale: int | None = Field(default=None, ge=1, le=32)


class ExportTable(RecipeTable):
    """Checkpoint → ONNX.

    Attributes:
        tolerance: Largest accepted |difference| between the checkpoint's and the ONNX file's logits, relative to the
            largest |logit|.
        exporter: Exporter of torch; it is never switched silently.
        opset: ONNX operator set.
        batch: Images per run of a static graph.
        dynamic: Whether the batch is left open instead.
        input_pixels: Whether the graph takes pixels, uint8 (N, H, W, C) in RGB order, and normalizes them itself.
    """

    tolerance: float = Field(gt=0, allow_inf_nan=False)
    exporter: Literal["dynamo", "torchscript"] = "dynamo"
    opset: int = Field(default=18, ge=13)
    batch: int = Field(default=1, gt=0, le=MOST_BATCH)
    dynamic: bool = False
    input_pixels: bool = False


def _listed(value: Any) -> Any:
    """Turn a single name into a list of one; a strict field takes the list as a tuple alone behind a validator."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class SimplifyTable(RecipeTable):
    """ONNX → ONNX, the same function in fewer steps.

    Attributes:
        passes: Names of graph passes, which run in this order; ``default`` stands for the default passes
            (`deploy_kit.graph.passes`), also as an entry of a longer list. A single name needs no list.
    """

    passes: Annotated[tuple[str, ...], BeforeValidator(_listed)]


class SlimTable(RecipeTable):
    """ONNX → ONNX with fewer multiply-accumulates: another network, refitted to the checkpoint's answers.

    Attributes:
        macs: Share of the multiply-accumulates that may be left, in 0..1.
        images: Image set that the weights are refitted to; the calibration images if None. Labels are not read.
        step: Numbers of channels are multiples of it: the width of the target's kernels.
        target: Engine whose milliseconds, measured in INT8 on this machine, are what a layer costs; None, or where it
            cannot be measured, for multiply-accumulates.
        distill: Image set that the slimmed network is trained on to the checkpoint's answers; None for no training.
            Labels are not read.
        distill_minutes: Most minutes of that training; None for ten.
    """

    macs: float = Field(gt=0, le=1, allow_inf_nan=False)
    images: str | None = None
    step: int = Field(default=16, gt=0)
    target: str | None = None
    distill: str | None = None
    distill_minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class Variant(RecipeTable):
    """One quantized form of the graph.

    Attributes:
        name: Name in tables and build entries; ``fp32`` is the name of the simplified graph.
        scheme: A scheme of the catalogue.
        options: Options of the scheme.
        optional: Whether it is left out, with a remark, where its package is not installed.
    """

    name: FolderName
    scheme: str
    options: dict[str, Any] = Field(default_factory=dict)
    optional: bool = False


class QuantizeTable(RecipeTable):
    """ONNX → ONNX that carries its precision.

    Attributes:
        calibration: Image set for schemes that need one.
        skip_bad: Leave out images that cannot be read, and lines of a manifest that cannot be used.
        orientation: Whether images with an EXIF orientation are read as they are ``stored`` or turned ``upright``;
            where it is not said, such images are refused.
        variants: Graphs to make.
    """

    calibration: str | None = None
    skip_bad: bool = False
    orientation: Literal["stored", "upright"] | None = None
    variants: tuple[Variant, ...] = ()


class BuildEntry(RecipeTable):
    """One engine and the variants to build for it.

    Attributes:
        engine: An engine of the catalogue.
        variants: Names of variants; ``fp32`` is the simplified graph.
        options: Options of the engine.
        optional: Whether it is left out, with a remark, where its package is not installed.
    """

    engine: str
    variants: tuple[str, ...]
    options: dict[str, Any] = Field(default_factory=dict)
    optional: bool = False


class BuildTable(RecipeTable):
    """Quantized ONNX → engines."""

    engines: tuple[BuildEntry, ...]


class LimitsTable(RecipeTable):
    """Limits of an engine's accuracy; the fields of `results.Limits`. A limit that is left out judges nothing."""

    min_sqnr_db: float | None = Field(default=None, allow_inf_nan=False)
    min_cosine: float | None = Field(default=None, allow_inf_nan=False)
    max_error: float | None = Field(default=None, allow_inf_nan=False)
    min_agreement: float | None = Field(default=None, allow_inf_nan=False)
    max_drop: float | None = Field(default=None, allow_inf_nan=False)
    min_top1: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    max_ece_shift: float | None = Field(default=None, allow_inf_nan=False)

    def record(self) -> Limits:
        """Return the record that judges."""
        return Limits(**self.model_dump())


class CheckTable(RecipeTable):
    """Engine against the checkpoint's own logits.

    Attributes:
        images: The check set; ``synthetic`` is seeded noise, for parity of tensors only.
        skip_bad: Leave out images that cannot be read, and lines of a manifest that cannot be used.
        orientation: Whether images with an EXIF orientation are read as they are ``stored`` or turned ``upright``;
            where it is not said, such images are refused.
        crops: Number of crops of each image, whose logits are averaged: 1, or 10 as in the paper's table 3
            (`images.ten_crops`).
        task: What the outputs mean (`accuracy.tasks`): classify, multilabel, segment, sequence, embed or regress; by
            default what the output's shape and the labels suggest, which reports say.
        masks: Folder of masks, files of the same relative path as the images; an npz has them in its array ``masks``.
        ignore_index: Class number of masks that is not judged, e.g. 255.
        every_image: Float32 engines compute every image of a set of 500 or more, and not only a part (`Sample`).
        limits: Limits by precision.
    """

    images: str
    skip_bad: bool = False
    orientation: Literal["stored", "upright"] | None = None
    crops: Literal[1, 10] = 1
    task: str | None = None
    masks: str | None = None
    ignore_index: int | None = None
    every_image: bool = False
    limits: dict[Precision, LimitsTable]

    def with_limits(
        self, precision: Precision, *, max_drop: float | None = None, min_top1: float | None = None
    ) -> "CheckTable":
        """Return the table with other limits of one precision; what is None stays as it is."""
        given = {"max_drop": max_drop, "min_top1": min_top1}
        changes = {name: value for name, value in given.items() if value is not None}
        if not changes:
            return self
        table = self.limits.get(precision, LimitsTable()).model_copy(update=changes)
        return self.model_copy(update={"limits": {**self.limits, precision: table}})


class BenchTable(RecipeTable):
    """Latency.

    Attributes:
        scenario: How runs are issued: ``closed-loop``, or one of LoadGen's.
        batch: Images per run; if empty, each engine takes the batch it was built for (1 where it takes any).
        streams: Sessions that run at the same time, each with a share of the cores.
        rounds: Turns of every engine, in an order drawn anew each round; by default 12 (LoadGen: one test).
        runs: Minimum number of timed runs (LoadGen: queries) in one turn; by default 100, unless a duration is set.
        min_iters: Minimum number of timed runs of all turns together.
        duration_s: Minimum duration of all turns of one engine together; LoadGen's own default is 10.
        warmup_s: Limit of the warm-up, per engine.
        span: ``compute``, ``whole`` with copying in and out, or ``frame``, from pixels in memory to the class.
        target_qps: Queries per second that arrive, for scenario ``server``.
        seed: Seed of the order.
        energy: Also run each engine for its energy, where the machine can measure it.
        profile: Also time each layer, in runs of their own after the latency was measured.
        baseline: Label of the engine that speed-ups refer to, e.g. ``fp32 · onnxruntime``.
        percentiles: Percentiles in tables, where there are enough samples.
        latency_budget_ms: Limit of the largest of `percentiles`.
        fail_on_regression: Percent that an engine may be slower than the baseline.
    """

    scenario: str = "closed-loop"
    batch: tuple[Annotated[int, Field(gt=0)], ...] = ()
    streams: int = Field(default=1, gt=0, le=1024)
    rounds: int | None = Field(default=None, gt=0)
    runs: int | None = Field(default=None, gt=0)
    min_iters: int | None = Field(default=None, gt=0)
    duration_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    warmup_s: float = Field(default=3.0, gt=0, allow_inf_nan=False)
    span: LatencySpan = "compute"
    target_qps: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    seed: int = 0
    energy: bool = False
    profile: bool = False
    baseline: str | None = None
    percentiles: tuple[Annotated[float, Field(gt=0, lt=100)], ...] = Field(default=(50, 90, 99), min_length=1)
    latency_budget_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    fail_on_regression: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class RecommendTable(RecipeTable):
    """Which engine is recommended: the fastest that is accepted and keeps the budgets.

    Attributes:
        max_size_mb: Largest size of the files that a target needs, in MB (10⁶ bytes). The budget of the latency is
            ``bench.latency_budget_ms``, that of the accuracy stands in ``check.limits``.
        max_energy_mj: Largest energy above idle per image in mJ, of every power rail; ``bench.energy`` measures it.
        max_power_w: Largest mean power in W while an engine runs without a pause, likewise.
    """

    max_size_mb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_energy_mj: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_power_w: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class Recipe(RecipeTable):
    """One deployment, table by table in the order of the stages."""

    name: FolderName
    source: SourceTable
    export: ExportTable
    simplify: SimplifyTable
    slim: SlimTable | None = None
    quantize: QuantizeTable
    build: BuildTable
    check: CheckTable
    bench: BenchTable
    recommend: RecommendTable = RecommendTable()


def load_recipe(source: str) -> Recipe:
    """Load a recipe by its path or by the name of a bundled one.

    Raises:
        InputError: No such file.
        UnknownNameError: No such bundled recipe.
        RecipeError: Not YAML, or not a recipe; the message names the key.
    """
    path = Path(source)
    if not path.suffix and len(path.parts) == 1:
        path = bundled.find_bundled("recipes", source.removeprefix(bundled.PREFIX))
    try:
        data = read_yaml(path)
        if isinstance(data, dict) and "source" not in data and {"engines", "variants"} <= data.keys():
            raise RecipeError(f"{path}: expected a recipe, found a sweep", hint=f"deploykit sweep {shell_word(source)}")
        return parse_recipe(data)
    except FileNotFoundError as error:
        raise no_such_file(path, "recipe", hint=nearest(path.stem, bundled.bundled_names("recipes"))) from error


def parse_recipe(data: Any) -> Recipe:
    """Check a recipe's data and freeze it; relative paths stay as they are.

    Raises:
        RecipeError: A key is unknown or missing, or a value does not fit.
    """
    recipe = parse_table(Recipe, data, "recipe")
    _verify_names(recipe)
    return recipe


def parse_table(model: type[T], data: Any, where: str) -> T:
    """Check the data of a table of the outermost level and freeze it.

    Args:
        model: Class of the table.
        data: What YAML gave.
        where: What the table is called in messages.

    Raises:
        RecipeError: A key is unknown or missing, or a value does not fit.
    """
    if not isinstance(data, dict):
        raise RecipeError(f"{where}: expected a table, found {shown(data)}")
    try:
        _verify_numbers(data, where)
        text = json.dumps(data, ensure_ascii=False)
        if (other := _NOT_UTF8.search(text)) is not None:
            raise RecipeError(
                f"{where}: expected names in UTF-8, found {one_line(other[0])}", hint="rename the file or folder: mv"
            )
        return model.model_validate_json(text)
    except ValidationError as error:
        # A misspelt key is reported as missing first and as unknown second; the second has a hint.
        entries = sorted(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
        raise _translated(entries[0], model, where) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(f"{where}: a value is not plain YAML: {error}") from error


def _verify_numbers(data: Any, where: str) -> None:
    """Refuse numbers that native code does not take: it would cut them off, or end the process."""
    if isinstance(data, (dict, list, tuple)):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            _verify_numbers(value, _path(where, (key,)))
    elif isinstance(data, float) and not math.isfinite(data):  # within options JSON would make a null of it
        raise RecipeError(f"{one_line(where)}: input should be a finite number, found {data}")
    elif isinstance(data, (int, float)) and abs(data) > _LARGEST:
        raise RecipeError(f"{one_line(where)}: expected a number of at most {_LARGEST:,}, found {shown(data)}")


def dump_recipe(recipe: RecipeTable) -> str:
    """Write a recipe, or another table of the outermost level, as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def _verify_names(recipe: Recipe) -> None:
    if recipe.source.preprocess is not None:
        recipe.source.preprocess.record(recipe.source.preprocess.sides or (1, 1))
    names = ["fp32", *(variant.name for variant in recipe.quantize.variants)]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise RecipeError(f"recipe.quantize.variants: the name '{doubled}' is taken twice")
    for index, entry in enumerate(recipe.build.engines):
        for name in entry.variants:
            if name not in names:
                where = f"recipe.build.engines[{index}].variants"
                raise RecipeError(f"{where}: no variant is called '{name}'", hint=nearest(name, names))


def _translated(error: Any, root: type[RecipeTable], where: str) -> RecipeError:
    """Translate an error of pydantic."""
    location = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        return RecipeError(
            f"{_path(where, location[:-1])}: unknown key '{one_line(str(location[-1]))}'",
            hint=nearest(str(location[-1]), _keys_at(root, location[:-1])),
        )
    if error["type"] == "missing":
        return RecipeError(f"{_path(where, location[:-1])}: '{location[-1]}' is missing")
    if location and location[-1] == "[key]":
        choices = [choice for choice in get_args(Precision) if isinstance(choice, str)]
        return RecipeError(
            f"{_path(where, location[:-2])}: no precision is called '{location[-2]}'",
            hint=nearest(str(location[-2]), choices),
        )
    expected = str(error.get("ctx", {}).get("expected", ""))
    hint = nearest(str(error["input"]), re.findall(r"'([^']+)'", expected)) if expected else ""
    return RecipeError(
        f"{_path(where, location)}: {error['msg'][0].lower()}{error['msg'][1:]}, found {shown(error['input'])}",
        hint=hint,
    )


def _path(where: str, location: tuple[Any, ...]) -> str:
    return where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _keys_at(model: type[RecipeTable], location: tuple[Any, ...]) -> tuple[str, ...]:
    """List the keys that the table at `location` may have."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _table_in(model.model_fields[part].annotation) or model
    return tuple(model.model_fields)


def _table_in(annotation: Any) -> type[RecipeTable] | None:
    """Find the table class inside ``tuple[Variant, ...]``, ``dict[str, LimitsTable]`` or ``X | None``."""
    if isinstance(annotation, type) and issubclass(annotation, RecipeTable):
        return annotation
    tables = (_table_in(part) for part in get_args(annotation))
    return next((table for table in tables if table is not None), None)
