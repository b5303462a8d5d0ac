"""What `deploy` and `run` share: a recipe is run, and ends with a table of 80 columns, a recommendation and files."""

import dataclasses
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

from deploy_kit import pipeline
from deploy_kit import recipe as recipes
from deploy_kit.base.whole_files import write_whole
from deploy_kit.cli import _output_files
from deploy_kit.cli._bench_outcome import steadied
from deploy_kit.cli._console import Console, table
from deploy_kit.cli._options import STORE
from deploy_kit.cli._verdict_codes import EXIT_CODES, report_code
from deploy_kit.devices import links
from deploy_kit.parallel import ray_workers
from deploy_kit.recipe import Recipe
from deploy_kit.records.artifacts import Device, Exported
from deploy_kit.records.engine_table import HEADINGS, NONE, cells, percentile, size, typed
from deploy_kit.records.measurements import Measurement, samples_for
from deploy_kit.records.recommendation import Recommendation
from deploy_kit.records.results import EngineRow, ParityReport, Report
from deploy_kit.stages import deliver, export, pack
from deploy_kit.stages import report as report_stage
from deploy_kit.store import Store

_HEADINGS = ("engine", "size", "drop in points", "p50", "speed-up", "verdict")
_MORE = ("engine", "top-1", "agreement", "SQNR", "p99")
_WIDTH = 80


def run(
    recipe: Recipe,
    console: Console,
    *,
    device: str,
    store: Path,
    reports: Path,
    deliveries: Path | None,
    save_recipe: Path | None,
    fresh: bool,
    allow_invalid: bool,
    bundle: Path | None = None,
    on: str = "",
) -> int:
    """Run a recipe, write its report, deliver what is accepted, and print all of it.

    Args:
        recipe: What to do.
        console: Draws progress and the result.
        device: Where to build, check and measure.
        store: Folder of results.
        reports: Folder of the report's files.
        deliveries: Folder to copy accepted engines to; None copies none.
        save_recipe: File to write the recipe to.
        fresh: Measure latency again, even if the store has it.
        allow_invalid: Whether invalid latencies alone leave nothing undecided.
        bundle: Where to pack the recommended engine; None packs none.
        on: Where to compute what needs no particular machine; see `parallel.ray_workers.open_workers`.

    Returns:
        The exit code.

    Raises:
        InputError: There is no checkpoint; or a file that is to be written is not deploykit's to replace; and nothing
            was done. Or deliveries of another checkpoint or preprocessing would be left among this run's, and the
            checkpoint was exported only.
        DeployKitError: As `pipeline.deploy`.
    """
    target = links.find_device(device)
    export.require_checkpoint(recipe.source)
    if save_recipe is not None:
        _output_files.verify_recipe_file(save_recipe, recipe)
    _output_files.verify_report_folder(reports, recipe.source.checkpoint)
    if deliveries is not None:
        deliver.require_room(recipe, deliveries)
    packing = None if bundle is None else pack.PackTable(out=bundle)
    if packing is not None:
        pack.verify_request(packing)

    def on_export(source: Exported) -> None:
        if deliveries is not None:
            deliver.require_unmixed(recipe, source, deliveries)

    kept = Store(store, recipe.model_dump(mode="json"))
    with ray_workers.open_workers(on, console.say) as workers:
        report = pipeline.deploy(
            recipe, target, kept, console.on_progress, fresh=fresh, workers=workers, on_export=on_export
        )
    if save_recipe is not None:
        write_whole(save_recipe, recipes.dump_recipe(recipe))
    made = deliver.run(report, deliveries, kept) if deliveries is not None else deliver.NOTHING
    report = dataclasses.replace(report, delivered=tuple((label, path.name) for label, path in made.files))
    written = report_stage.run(report, reports)
    chosen = _to_pack(report, allow_invalid=allow_invalid)
    packed = packing is not None and _pack(recipe, kept, target, chosen, packing)
    more = ""
    if bundle is not None:
        place = [*_place(store, device), "-o", str(bundle)]
        more = f"\nbundle  {_packed(report, chosen, bundle) if packed else _unpacked(report, place)}"
    again = "run the same command again: it repeats the measurement alone"
    console.result(report, text(report, written, made, again=again, store=store) + more)
    if packing is None or packed:
        return report_code(report, allow_invalid=allow_invalid)
    return report_code(report, allow_invalid=False) or EXIT_CODES["rejected"]  # what was asked for is not there


def _packed(report: Report, row: EngineRow | None, bundle: Path) -> str:
    """Name a bundle, and its engine where it is not the recommended one."""
    if row is None or (report.recommendation and report.recommendation.winner):
        return str(bundle)
    return f"{bundle}: {typed(row.label)}, the smallest whose accuracy is accepted, as latencies are not valid"


def _unpacked(report: Report, place: Sequence[str]) -> str:
    """Say why there is no bundle, and how to pack an engine whose accuracy is accepted all the same.

    Args:
        report: What was found.
        place: Options of `pack` that name store, device and bundle.
    """
    row = _smallest(report)
    if row is None or row.artifact is None:
        return "none: no engine is recommended, and the accuracy of none is accepted"
    able = row.artifact
    command = shlex.join(["deploykit", "pack", "--engine", able.engine or "", "--variant", able.name, *place])
    said = f"none: no engine is recommended; to pack one all the same:\n        {command}"
    if _to_pack(report, allow_invalid=True) is None:
        return said
    return f"{said}\n        or the same command again with --allow-invalid, as latencies are not valid"


def _smallest(report: Report) -> EngineRow | None:
    """Return the smallest engine whose accuracy is accepted and that misses no limit; None where there is none."""
    able = [(row.artifact.size_bytes, row.label, row) for row in report.rows if row.artifact and row.accurate]
    return min((one for one in able if not one[2].misses), default=(0, "", None))[2]


def _to_pack(report: Report, *, allow_invalid: bool) -> EngineRow | None:
    """Return the recommended engine; without one, the smallest that invalid latencies alone leave undecided."""
    winner = report.recommendation.winner if report.recommendation else ""
    row = next((row for row in report.rows if winner and row.label == winner.partition(",")[0]), None)
    unbounded = report.recommendation is None or not report.recommendation.budgets.words
    return _smallest(report) if row is None and allow_invalid and report.invalid and unbounded else row


def _pack(recipe: Recipe, store: Store, device: Device, row: EngineRow | None, packing: pack.PackTable) -> bool:
    """Pack an engine; return whether there is one."""
    if row is None or row.artifact is None or not isinstance(row.parity, ParityReport):
        return False
    with pipeline.open_run(recipe, store, device) as opened:
        pipeline.packed(opened, pipeline.exported(opened), row.artifact, row.parity, packing)
    return True


def text(
    report: Report, written: Path, made: deliver.Delivered = deliver.NOTHING, *, again: str = "", store: Path = STORE
) -> str:
    """Draw how a deployment ended.

    Args:
        report: What was found.
        written: The report's file.
        made: What was delivered.
        again: How latencies are measured again; empty where nothing is at hand to measure.
        store: Folder that holds what was made.
    """
    parts = [
        summary_table(report.rows),
        more_numbers(report.rows, longer=bench_line(report, store, made) if again else ""),
        "\n".join(_limits(report)),
        "\n".join(_reasons(report)),
        "\n".join(recommended(report.recommendation)) if report.recommendation else "",
        "\n".join(_cure(report, again)),
        "\n".join(f"{'files' if number == 0 else '':8}{path}" for number, (_, path) in enumerate(made.files)),
        "\n".join(f"earlier {path}: left by another run, not delivered by this one" for path in made.earlier),
        f"report  {written}, {written.with_suffix('.html').name}",
    ]
    return "\n\n".join(filter(None, parts))


def summary_table(rows: Sequence[EngineRow]) -> str:
    """Lay out the engines in 80 columns, a word for each verdict: reasons and limits stand below it.

    What was not run has no numbers, and is named below with its reason; it has a line only where nothing else has.
    """
    ran = [row for row in rows if row.verdict.partition(":")[0] not in ("not run", "left out")]
    return table(_HEADINGS, [_cells(row) for row in ran or rows], spare=("size",))


def bench_line(report: Report, store: Path, made: deliver.Delivered = deliver.NOTHING) -> str:
    """Write the command that measures a report's engines again: the files, as the store may hold others by now."""
    mains = [str(path) for _, path in made.files]
    what = [*mains, *_place(STORE, report.device)] if mains else ["--all", *_place(store, report.device)]
    return shlex.join(["deploykit", "bench", *what])


def _place(store: Path, device: str) -> list[str]:
    """Write the options that name a store and a device, where they are not the default."""
    kept_in = [] if store == STORE else ["--store", str(store)]
    return [*kept_in, *([] if device == links.LOCAL.name else ["--device", device])]


def more_numbers(rows: Sequence[EngineRow], *, longer: str = "") -> str:
    """Lay out, for the engines that were checked, what a reviewer needs and the summary has no room for.

    Args:
        rows: Engines.
        longer: Command that takes more samples; empty where it cannot be run.
    """
    lines = []
    for row in rows:
        if isinstance(row.parity, ParityReport):
            texts = dict(zip(HEADINGS, cells(row), strict=True))
            sqnr = f"{row.parity.sqnr_db:.1f} dB"
            lines.append((typed(row.label), texts["top-1"], texts["agreement"], sqnr, texts["p99"]))
    timed = [row.measurement for row in rows if isinstance(row.measurement, Measurement)]
    few = any(measured.percentile_ms(99) is None for measured in timed)
    needed = samples_for(99)
    command = f":\n  {longer} --min-iters {needed}" if longer else ""
    note = f"\np99 is known from {needed:,} samples on{command}"
    return table(_MORE, lines) + note * few if lines else ""


def recommended(found: Recommendation) -> list[str]:
    """Draw the recommendation, and why the others lost: engines of one reason stand together."""
    budgets = f" within {', '.join(found.budgets.words)}" if found.budgets.words else ""
    first = f"nothing is recommended{budgets}: {found.why}"
    if found.winner:
        first = f"recommended{budgets}: {typed(found.winner)}: {found.why}"
    alike = dict[str, list[str]]()
    for loser in found.losers:
        alike.setdefault(loser.why, []).append(typed(loser.label))
    return [
        *_wrapped(first),
        *(line for why, names in alike.items() for line in _wrapped(f"{', '.join(names)}: {why}", 2)),
    ]


def _cells(row: EngineRow) -> tuple[str, ...]:
    measured = row.measurement if isinstance(row.measurement, Measurement) else None
    drop = row.parity.drop if isinstance(row.parity, ParityReport) else None
    word = row.judged.word if row.judged else row.verdict.partition(":")[0]
    return (
        typed(row.label),
        size(row.artifact.size_bytes) if row.artifact else NONE,
        f"{drop.points:+.2f} [{drop.low:.2f}, {drop.high:.2f}]" if drop else NONE,
        percentile(measured, 50),
        "INVALID" if measured and measured.invalid else f"{row.speed_up.ratio:.2f}×" if row.speed_up else NONE,
        word,
    )


def _limits(report: Report) -> list[str]:
    """Draw the checkpoint's own score, the limits in force, once for each precision, and the budgets of all."""
    found = dict[str, str]()
    answers = report.answers
    if answers is not None and answers.top1 is not None:
        found["checkpoint"] = f"{100 * answers.top1:.2f} % top-1 on {answers.n:,} images of {answers.images}"
    for row in report.rows:
        if row.judged and row.artifact:
            found.setdefault(f"limits of {row.artifact.precision}", ", ".join(row.judged.limits) or "none set")
    if report.recommendation and report.recommendation.budgets.words:
        found["budgets"] = ", ".join(report.recommendation.budgets.words)
    return [line for what, limits in found.items() for line in _wrapped(f"{what}: {limits}")]


def _reasons(report: Report) -> list[str]:
    """Draw why an engine is not accepted, and the remarks."""
    rows = [row for row in report.rows if row.judged is None or row.judged.word != "accepted"]
    losers = report.recommendation.losers if report.recommendation else ()
    told = {(loser.label, loser.why) for loser in losers}
    reasons = [f"{typed(row.label)}: {row.verdict}" for row in rows if (row.label, row.verdict) not in told]
    invalid = {f"no valid measurement: {why}" for why in report.invalid}
    reasons += [f"note: {remark}" for remark in report.remarks if remark not in invalid]
    return [line for reason in reasons for line in _wrapped(reason)]


def _cure(report: Report, again: str) -> list[str]:
    """Say what to do where a latency is not valid."""
    invalid = [row.measurement for row in report.rows if isinstance(row.measurement, Measurement)]
    invalid = [measured for measured in invalid if measured.invalid]
    return _wrapped(f"fix: {steadied(invalid)} {again}") if invalid and again else []


def _wrapped(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))
