"""``deploykit sweep``: a grid of checkpoints, variants, engines, batches and devices, and what to deploy where."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._options import REPORTS, STORE, AllowInvalid, Fresh, On, OutputOptions, ReportFolder, StorePath

if TYPE_CHECKING:
    from deploy_kit.records.sweeps import SweepPlan, SweepResult


def sweep(
    file: Annotated[str, typer.Argument(help="File of the sweep, or name of a bundled one, e.g. family.")],
    *,
    store: StorePath = STORE,
    out: ReportFolder = REPORTS,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no cell that would not end within so many minutes.")
    ] = None,
    fresh: Fresh = False,
    allow_invalid: AllowInvalid = False,
    on: On = "",
    table: Annotated[
        Path | None,
        typer.Option(
            help="Also write the table of all cells into this Markdown file, between its <!-- cells --> marks."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells with estimated times, and exit.")] = False,
    output: OutputOptions,
) -> None:
    """Build, check and measure every cell of a grid, and recommend one for each device and budget."""
    from deploy_kit import sweep as sweeps
    from deploy_kit.parallel import ray_workers
    from deploy_kit.recipe.grid import load_grid
    from deploy_kit.store import Store
    from deploy_kit.sweep import estimate, page

    grid = load_grid(file)
    folder = out / grid.name
    earlier = page.earlier_result(folder, grid.name)
    if table is not None:
        page.verify_table_file(table)
    with output.console() as console:
        if dry_run:
            plan = estimate.plan(grid, earlier)
            console.result(plan, plan_text(plan))
            return
        with ray_workers.open_workers(on, console.say) as workers:
            result = sweeps.run(
                grid,
                Store(store),
                console.on_progress,
                minutes=minutes,
                fresh=fresh,
                earlier=earlier,
                workers=workers,
            )
        written = page.write(result, folder)
        if table is not None:
            page.write_table(result, table)
        console.result(result, text(result, written))
    if code := exit_code(result, allow_invalid=allow_invalid):
        raise typer.Exit(code)


def plan_text(plan: "SweepPlan") -> str:
    """Draw a plan: a line for each cell, then the time of each device."""
    from deploy_kit.cli._console import table

    headings = ("checkpoint", "variant", "engine", "batch", "device", "estimate", "from")
    rows = [
        (
            *map(str, vars(one.name).values()),
            "–" if one.left_out else f"~{_time(one.seconds)}",
            one.left_out or one.source,
        )
        for one in plan.cells
    ]
    totals = "; ".join(f"{device} ~{_time(seconds)}" for device, seconds in plan.by_device)
    return (
        f"{table(headings, rows)}\n\n{len(plan.cells)} cells; estimated: {totals}. Devices work side by side, and what "
        "the store has costs nothing; a guess can be wrong by a factor of 3 either way."
    )


def text(result: "SweepResult", written: Path) -> str:
    """Draw a result: a line for each cell, what is recommended, and the files."""
    from deploy_kit.cli._console import table
    from deploy_kit.sweep import page

    rows, reasons = list[tuple[str, ...]](), dict[str, list[str]]()
    for cell in result.cells:
        word, _, why = page.verdict(cell).partition(":")
        rows.append((*page.row(cell)[:-1], word.partition(" (")[0]))
        if why:
            reasons.setdefault(f"{word}:{why}", []).append(f"{cell.name.title}")
    told = [f"{', '.join(names)}: {why}" for why, names in reasons.items()]
    drawn = table(page.COLUMNS, rows, spare=("peak memory", "p90", "agreement", "front", "top-1"))
    chosen = [
        f"{choice.device}, batch {choice.batch}, {choice.wanted}: {choice.winner or 'none'}: {choice.why}"
        for choice in result.choices
    ]
    return "\n\n".join((drawn, *told, "\n".join(chosen), page.summary(result), f"report  {written}, {page.HTML}"))


def exit_code(result: "SweepResult", *, allow_invalid: bool) -> int:
    """Return the exit code: a cell that failed (5) before nothing to recommend (1) before what is undecided (6)."""
    if any(cell.state == "failed" for cell in result.cells):
        return 5
    if any(not choice.winner and not choice.open for choice in result.choices):
        return 1
    not_run = any(cell.state == "not run" for cell in result.cells)
    return 6 if not_run or (not allow_invalid and any(not choice.winner for choice in result.choices)) else 0


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


COMMAND = Command(
    call=sweep,
    order=5,
    example="deploykit sweep boards.yaml --minutes 60",
)
