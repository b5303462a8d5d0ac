"""The file of a sweep: a grid of checkpoints, variants, engines, batches and devices over one recipe; strict.

name: boards
recipe: default                  # tables that all cells share: a bundled recipe, or a file
checkpoints: [small.pth, large.pth]
variants: [fp32, int8]
engines: [onnxruntime, openvino]
devices: [local, board]
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from deploy_kit import recipe as recipes
from deploy_kit.base import bundled
from deploy_kit.base.errors import RecipeError, nearest, no_such_file
from deploy_kit.base.text_files import read_yaml
from deploy_kit.recipe import MOST_BATCH, FolderName, RecipeTable, SourceTable, overrides

_MOST_CELLS = 10_000
# What a text alone stands for in a list: a table with this key.
_SHORT = {"checkpoints": "checkpoint", "variants": "name", "engines": "engine"}


class SweepCheckpoint(SourceTable):
    """A checkpoint of the grid: the keys of a recipe's source, a name, and images of its own.

    Attributes:
        name: Name in tables; by default that of the file.
        images: Check images, in place of those of `check`.
        calibration: Calibration images, in place of those of `quantize`.
    """

    name: FolderName | None = None
    images: str | None = None
    calibration: str | None = None

    @property
    def title(self) -> str:
        """The name, or what the file's name gives."""
        return self.name or overrides.name_of(self.checkpoint)


class SweepVariant(RecipeTable):
    """A variant of the grid.

    Attributes:
        name: A variant of the recipe, or with `scheme` a new one, or a precision: its scheme is then chosen for the
            engine and the device, as `deploykit deploy` does. ``fp32`` is the simplified graph.
        scheme: A scheme of the catalogue.
        options: Options of the scheme.
    """

    name: FolderName
    scheme: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class SweepEngine(RecipeTable):
    """An engine of the grid.

    Attributes:
        engine: An engine of the catalogue.
        name: Name in tables, where an engine occurs with several options.
        options: Options of the engine.
        optional: Whether its cells are left out, and not failed, where its package is not installed.
    """

    engine: str
    name: FolderName | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    optional: bool = False

    @property
    def title(self) -> str:
        """The name in tables."""
        return self.name or self.engine


class SweepExclude(RecipeTable):
    """Cells that are no part of the grid: those that every key given fits; a key takes one name or several."""

    checkpoint: tuple[str, ...] = ()
    variant: tuple[str, ...] = ()
    engine: tuple[str, ...] = ()
    batch: tuple[int, ...] = ()
    device: tuple[str, ...] = ()


class SweepBudget(RecipeTable):
    """What a recommended cell may cost; accuracy limits of the recipe hold besides.

    Attributes:
        prefer: Which of those within the budget is recommended: the ``fastest``, the most ``accurate`` or the
            ``smallest``.
        latency_ms: Largest latency of a run in ms, at the largest percentile of the recipe's bench table.
        max_drop: Largest drop of accuracy in percentage points.
        max_size_mb: Largest size in MB (10⁶ bytes).
        min_top1: Least top-1 accuracy in 0..1.
    """

    prefer: Literal["fastest", "accurate", "smallest"] = "fastest"
    latency_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_drop: float | None = Field(default=None, allow_inf_nan=False)
    max_size_mb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    min_top1: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)


class SweepTable(RecipeTable):
    """A whole sweep.

    Attributes:
        name: Names the folder of its result.
        recipe: Bundled recipe, or a file, whose tables all cells share.
        checkpoints: Checkpoints of the grid; a text is a file, or ``bundled:NAME``.
        architectures: Networks of the paper with random weights, by name; their accuracy means nothing.
        variants: Variants of the grid.
        engines: Engines of the grid.
        batches: Batches of the grid. A static graph is exported for each of them.
        devices: Devices of the grid, by name or address.
        exclude: Cells that are left out.
        budgets: What is recommended, for each device and batch.
        export: Keys that go over the recipe's table, as do the next five.
        simplify: See `export`.
        slim: See `export`.
        quantize: See `export`.
        check: See `export`.
        bench: See `export`.
    """

    name: FolderName
    recipe: str = "default"
    checkpoints: tuple[SweepCheckpoint, ...] = ()
    architectures: tuple[str, ...] = ()
    variants: tuple[SweepVariant, ...] = Field(min_length=1)
    engines: tuple[SweepEngine, ...] = Field(min_length=1)
    batches: tuple[Annotated[int, Field(gt=0, le=MOST_BATCH)], ...] = Field(default=(1,), min_length=1)
    devices: tuple[str, ...] = Field(default=("local",), min_length=1)
    exclude: tuple[SweepExclude, ...] = ()
    budgets: tuple[SweepBudget, ...] = Field(default=(SweepBudget(),), min_length=1)
    export: dict[str, Any] = Field(default_factory=dict)
    simplify: dict[str, Any] = Field(default_factory=dict)
    slim: dict[str, Any] = Field(default_factory=dict)
    quantize: dict[str, Any] = Field(default_factory=dict)
    check: dict[str, Any] = Field(default_factory=dict)
    bench: dict[str, Any] = Field(default_factory=dict)

    @property
    def names(self) -> dict[str, tuple[object, ...]]:
        """The names along each side of the grid."""
        return {
            "checkpoint": (*(one.title for one in self.checkpoints), *self.architectures),
            "variant": tuple(one.name for one in self.variants),
            "engine": tuple(one.title for one in self.engines),
            "batch": self.batches,
            "device": self.devices,
        }


def load_grid(source: str) -> SweepTable:
    """Load a sweep by its path or by the name of a bundled one.

    Raises:
        InputError: No such file.
        UnknownNameError: No such bundled file.
        RecipeError: Not YAML, or not a sweep; the message names the key.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = bundled.find_bundled("recipes", source.removeprefix(bundled.PREFIX))
    try:
        data = read_yaml(path)
    except FileNotFoundError as error:
        raise no_such_file(path, "sweep", hint=nearest(path.stem, bundled.bundled_names("recipes"))) from error
    table = recipes.parse_table(SweepTable, _in_full(data), "sweep")
    _verify_sides(table)
    return table


def _in_full(data: Any) -> Any:
    """Write out what a file may say in short: texts in place of tables, and single names in `exclude`."""
    if not isinstance(data, dict):
        return data
    data = dict(data)
    for side, key in _SHORT.items():
        if isinstance(data.get(side), list):
            data[side] = [{key: entry} if isinstance(entry, str) else entry for entry in data[side]]
    if isinstance(data.get("exclude"), list):
        data["exclude"] = [
            {side: names if isinstance(names, list) else [names] for side, names in entry.items()}
            if isinstance(entry, dict)
            else entry
            for entry in data["exclude"]
        ]
    return data


def _verify_sides(table: SweepTable) -> None:
    if not table.checkpoints and not table.architectures:
        raise RecipeError("sweep: 'checkpoints' is missing", hint="checkpoints: [best.pth]")
    cells = 1
    for side, names in table.names.items():
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            named = side in ("checkpoint", "variant", "engine") and doubled not in table.architectures
            raise RecipeError(
                f"sweep: the {side} '{doubled}' occurs twice",
                hint="give one of them another 'name'" if named else "leave one of them out",
            )
        cells *= len(names)
    if cells > _MOST_CELLS:
        raise RecipeError(f"sweep: expected at most {_MOST_CELLS:,} cells, found {cells:,}")
    for key in ("export", "bench"):
        if "batch" in getattr(table, key):
            raise RecipeError(
                f"sweep.{key}: 'batch' would change nothing: each cell has its own",
                hint="list them under the sweep's 'batches'",
            )
    for index, entry in enumerate(table.exclude):
        where = f"sweep.exclude[{index}]"
        if entry == SweepExclude():
            raise RecipeError(f"{where}: expected at least one key", hint="e.g. {engine: openvino, device: board}")
        for side, names in table.names.items():
            strange = next((name for name in getattr(entry, side) if name not in names), None)
            if strange is not None:
                raise RecipeError(
                    f"{where}.{side}: the grid has no {side} '{strange}'", hint=nearest(str(strange), map(str, names))
                )


def excluded(table: SweepTable, name: dict[str, object]) -> bool:
    """Return whether the cell of this name, by side, is no part of the grid."""
    return any(
        all(not getattr(entry, side) or value in getattr(entry, side) for side, value in name.items())
        for entry in table.exclude
    )
