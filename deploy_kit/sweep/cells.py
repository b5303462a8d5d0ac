"""The grid as cells, each a recipe of one variant and one engine: stages and store know nothing of sweeps."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from deploy_kit import recipe as recipes
from deploy_kit.analysis import doctor
from deploy_kit.base.errors import RecipeError, nearest
from deploy_kit.machine.environment import library_version
from deploy_kit.quantization.variant_choice import VariantRequest, choose_variant, fit_recipe
from deploy_kit.recipe import Recipe, Variant, targets
from deploy_kit.recipe.grid import SweepCheckpoint, SweepEngine, SweepTable, SweepVariant, excluded
from deploy_kit.records.sweeps import CellName

FLOAT = "fp32"
_PRECISIONS = ("fp16", "bf16", "int8")
_TABLES = ("export", "simplify", "slim", "quantize", "check", "bench")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the grid.

    Attributes:
        name: Its place.
        checkpoint: What is deployed.
        variant: In which form.
        engine: On which engine.
        random_weights: Whether the checkpoint's weights are random.
    """

    name: CellName
    checkpoint: SweepCheckpoint
    variant: SweepVariant
    engine: SweepEngine
    random_weights: bool = False


def unroll(table: SweepTable, random: Mapping[str, SweepCheckpoint]) -> tuple[Cell, ...]:
    """List the cells of a grid, those of one checkpoint and batch after each other: they share what comes first.

    Args:
        table: The sweep.
        random: Checkpoint of each architecture with random weights.

    Raises:
        RecipeError: Every cell is excluded.
    """
    checkpoints = {**{one.title: one for one in table.checkpoints}, **random}
    found = []
    for title, batch, variant, engine, device in itertools.product(
        checkpoints, table.batches, table.variants, table.engines, table.devices
    ):
        name = CellName(checkpoint=title, variant=variant.name, engine=engine.title, batch=batch, device=device)
        if not excluded(table, vars(name)):
            found.append(
                Cell(
                    name=name,
                    checkpoint=checkpoints[title],
                    variant=variant,
                    engine=engine,
                    random_weights=title in random,
                )
            )
    if not found:
        raise RecipeError("sweep.exclude: leaves no cell of the grid", hint="deploykit sweep FILE --dry-run")
    return tuple(found)


def base_recipe(table: SweepTable) -> Recipe:
    """Return the recipe that all cells share: its engines and the place of its checkpoint are the grid's.

    Raises:
        DeployKitError: As `recipe.load_recipe`; a table of the sweep does not fit.
    """
    data = recipes.load_recipe(table.recipe).model_dump(mode="json", exclude_none=True)
    for key in _TABLES:
        if given := getattr(table, key):
            data[key] = data.get(key, {}) | given
    data["build"] = {"engines": []}
    data["bench"].pop("baseline", None)  # a cell is measured by itself
    return recipes.parse_recipe(data)


def recipe_of(cell: Cell, base: Recipe, isa: tuple[str, ...]) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe of a cell, and in words what was fitted to the processor (`fit_recipe`).

    Args:
        cell: The cell.
        base: See `base_recipe`.
        isa: Instruction sets of the device's processor, which decide the form of INT8.

    Raises:
        RecipeError: The variant is neither the recipe's nor a precision, or an option does not fit.
        UnknownNameError: An engine, a scheme or a pass does not exist.
    """
    variant = _variant(cell, base, isa)
    data = base.model_dump(mode="json", exclude_none=True)
    data["name"] = cell.name.checkpoint
    own = cell.checkpoint
    data["source"] = own.model_dump(mode="json", exclude_none=True, exclude={"name", "images", "calibration"})
    data["check"] |= {"images": own.images} if own.images else {}
    data["quantize"] |= {"calibration": own.calibration} if own.calibration else {}
    data["quantize"]["variants"] = [] if variant is None else [variant.model_dump(mode="json")]
    data["build"]["engines"] = [
        {
            "engine": cell.engine.engine,
            "variants": [FLOAT if variant is None else variant.name],
            "options": cell.engine.options,
            "optional": cell.engine.optional,
        }
    ]
    if not base.export.dynamic:
        data["export"]["batch"] = cell.name.batch
    data["bench"]["batch"] = [cell.name.batch]
    return fit_recipe(recipes.parse_recipe(data), isa)


def why_impossible(cell: Cell, base: Recipe) -> str:
    """Explain why a cell cannot be on any machine: an engine that takes no INT8 graph; empty if it can."""
    precision = _precision(cell.variant, base)
    engine = cell.engine.engine
    if precision == "int8" and not targets.find_target(targets.target_of(engine)).int8:
        return f"engine '{engine}' takes no INT8 graph"
    return ""


def verify_cells(cells: tuple[Cell, ...], base: Recipe) -> None:
    """Refuse names and options that no machine could work with, before any work.

    Raises:
        RequestError: See `recipe_of` and `analysis.doctor.verify_names`.
    """
    seen = set[tuple[str, str]]()
    for cell in cells:
        if (pair := (cell.name.variant, cell.name.engine)) not in seen:
            seen.add(pair)
            doctor.verify_names(
                recipe_of(cell, base, ())[0] if not why_impossible(cell, base) else _without_variant(cell, base)
            )


def _without_variant(cell: Cell, base: Recipe) -> Recipe:
    plain = Cell(name=cell.name, checkpoint=cell.checkpoint, variant=SweepVariant(name=FLOAT), engine=cell.engine)
    return recipe_of(plain, base, ())[0]


def _precision(variant: SweepVariant, base: Recipe) -> str:
    """Return the precision that a variant's name asks for; empty where it is a scheme of its own, or the recipe's."""
    own = any(variant.name == one.name for one in base.quantize.variants)
    return variant.name if variant.scheme is None and not own else ""


def _variant(cell: Cell, base: Recipe, isa: tuple[str, ...]) -> Variant | None:
    asked, precision = cell.variant, _precision(cell.variant, base)
    if precision == FLOAT:
        return None
    if asked.scheme is not None:
        return Variant(name=asked.name, scheme=asked.scheme, options=asked.options)
    own = {one.name: one for one in base.quantize.variants}
    if not precision:
        chosen = own[asked.name]
    elif precision in _PRECISIONS:
        target = targets.target_of(cell.engine.engine)
        chosen, _ = choose_variant(VariantRequest(precisions=(precision,), target=target), base, isa, library_version)
    else:
        raise RecipeError(
            f"sweep.variants: '{asked.name}' is neither a precision nor a variant of the recipe '{base.name}'",
            hint=nearest(asked.name, (FLOAT, *_PRECISIONS, *own)) + "; a variant of your own takes a 'scheme'",
        )
    return chosen.model_copy(update={"options": {**chosen.options, **asked.options}, "name": asked.name})
