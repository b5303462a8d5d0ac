"""What a sweep will probably cost, before anything is done: from an earlier run where there is one, else a guess."""

from collections.abc import Mapping
from pathlib import Path

from deploy_kit.base import bundled
from deploy_kit.base.errors import DeployKitError
from deploy_kit.measure import race
from deploy_kit.recipe.grid import SweepCheckpoint, SweepTable
from deploy_kit.records.sweeps import CellEstimate, CellName, SweepCell, SweepPlan, SweepResult
from deploy_kit.sweep.cells import FLOAT, Cell, base_recipe, unroll, verify_cells, why_impossible

GUESSED, EARLIER = "guessed from the file's size", "as long as in an earlier run, if the store has lost it"
# Seconds, (fixed, for each MB of a float32 checkpoint), of two x64 cores: a guess, by a factor of 3 either way.
_SHARED, _QUANTIZE, _BUILD_AND_CHECK = (8.0, 1.5), (4.0, 2.0), (2.0, 1.0)
_RUN_S, _UNKNOWN_MB = 0.001, 50.0  # of a run of one image and MB; size of what is not there yet


def plan(table: SweepTable, earlier: SweepResult | None = None) -> SweepPlan:
    """Estimate each cell; nothing is computed, written or connected to.

    Args:
        table: The sweep.
        earlier: Result of an earlier run, whose times are then taken.

    Raises:
        RequestError: The grid names what does not exist, or an option does not fit.
    """
    base = base_recipe(table)
    cells = unroll(table, {name: SweepCheckpoint(name=name, checkpoint=name) for name in table.architectures})
    verify_cells(cells, base)
    known = {cell.name: cell for cell in (earlier.cells if earlier else ())}
    timing = race.plan_race(base.bench)
    seen = set[object]()
    found = []
    for cell in cells:
        if why := why_impossible(cell, base):
            found.append(CellEstimate(name=cell.name, seconds=0.0, source="", left_out=why))
            continue
        megabytes = _megabytes(cell)
        turns = timing.rounds * max(timing.seconds, timing.runs * _RUN_S * megabytes * cell.name.batch)
        parts = [_BUILD_AND_CHECK, *_once(cell, base.export.dynamic, seen)]
        guess = turns + base.bench.warmup_s + sum(fixed + each * megabytes for fixed, each in parts)
        found.append(_estimate(cell.name, guess, known))
    by_device = {
        device: round(sum(one.seconds for one in found if one.name.device == device), 1) for device in table.devices
    }
    return SweepPlan(sweep=table.name, cells=tuple(found), by_device=tuple(by_device.items()))


def _estimate(name: CellName, guess: float, known: Mapping[CellName, SweepCell]) -> CellEstimate:
    before = known.get(name)
    if before is not None and before.made_s:
        return CellEstimate(name=name, seconds=before.made_s, source=EARLIER)
    return CellEstimate(name=name, seconds=round(guess, 1), source=GUESSED)


def _once(cell: Cell, dynamic: bool, seen: set[object]) -> list[tuple[float, float]]:
    """Return what this cell makes first of what it shares with others."""
    export = (cell.name.checkpoint, None if dynamic else cell.name.batch)
    graph = (*export, cell.name.variant)
    parts = [cost for key, cost in ((export, _SHARED), (graph, _QUANTIZE)) if key not in seen]
    seen |= {export, graph}
    return parts if cell.variant.name != FLOAT else [cost for cost in parts if cost is not _QUANTIZE]


def _megabytes(cell: Cell) -> float:
    try:
        path = bundled.resolve_bundled("models", cell.checkpoint.checkpoint)
    except DeployKitError:
        return _UNKNOWN_MB
    return path.stat().st_size / 1e6 if Path(path).is_file() else _UNKNOWN_MB
