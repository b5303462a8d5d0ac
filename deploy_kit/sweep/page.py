"""The result of a sweep as files: ``sweep.json``, and its views ``sweep.md`` and ``sweep.html``."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from deploy_kit.base.errors import InputError, no_such_file
from deploy_kit.base.markup import Markup, element
from deploy_kit.base.text_files import read_json
from deploy_kit.base.whole_files import write_together, write_whole
from deploy_kit.measure import latency
from deploy_kit.records import codec, first_page
from deploy_kit.records.engine_table import HEADINGS, NONE, cells, percentile
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.sweeps import SweepCell, SweepChoice, SweepResult
from deploy_kit.stages.report import page, plausible
from deploy_kit.stages.report.document import Section, Table
from deploy_kit.stages.report.markdown import section
from deploy_kit.stages.report.page import plot, tables
from deploy_kit.sweep import choice

JSON, MARKDOWN, HTML = "sweep.json", "sweep.md", "sweep.html"
COLUMNS = (
    "checkpoint", "variant", "engine", "batch", "device", "size", "top-1", "drop", "agreement", "p50", "p90",
    "peak memory", "front", "verdict",
)  # fmt: skip
_HEIGHT = 300
_BEGIN, _END = "<!-- cells -->", "<!-- /cells -->"


def write(result: SweepResult, folder: Path) -> Path:
    """Write a result and its views into a folder.

    Returns:
        The path of ``sweep.md``.
    """
    lines = [f"# {title(result)}", "", summary(result), ""]
    lines += [line for part in sections(result) for line in section(part)]
    write_together(
        {
            folder / JSON: json.dumps(codec.to_json(result), ensure_ascii=False, indent=1) + "\n",
            folder / HTML: html(result),
            folder / MARKDOWN: "\n".join(lines),
        }
    )
    return folder / MARKDOWN


def verify_table_file(path: Path) -> None:
    """Refuse a Markdown file that has no place for a table, before any work.

    Raises:
        InputError: It does not exist, or lacks the marks.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if text.count(_BEGIN) != 1 or text.count(_END) != 1 or text.index(_BEGIN) > text.index(_END):
        raise InputError(
            f"{path}: expected a Markdown file with a line '{_BEGIN}' and below it a line '{_END}'",
            hint="write these two lines where the table is to be: what is between them is replaced",
        )


def write_table(result: SweepResult, path: Path) -> None:
    """Put the table of all cells between the marks of a Markdown file; the rest of the file stays.

    Raises:
        InputError: As `verify_table_file`.
    """
    verify_table_file(path)
    before, _, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    rows = [row(cell) for cell in result.cells]
    told = [at for at in range(len(COLUMNS)) if any(one[at] != NONE for one in rows)]
    table = Table(headings=tuple(COLUMNS[at] for at in told), rows=[tuple(one[at] for at in told) for one in rows])
    blocks = (summary(result), _devices(result), table, _legend(result), _notes(result))
    drawn = section(Section(title="", blocks=blocks))[2:]
    write_whole(path, f"{before}{_BEGIN}\n{chr(10).join(drawn).strip()}\n{_END}{rest.partition(_END)[2]}")


def load_result(path: Path) -> SweepResult:
    """Load a result from its ``sweep.json``.

    Raises:
        InputError: The file is missing, not a sweep's, or holds numbers that cannot be.
    """
    try:
        data = read_json(path)
    except FileNotFoundError as error:
        raise no_such_file(path, "result of a sweep", hint="deploykit sweep FILE") from error
    result = codec.from_json(SweepResult, data, str(path))
    for cell in result.cells:
        if (measured := choice.measured_of(cell)) is not None:
            plausible.verify_measurement(measured, f"{path}: {cell.name.title}")
    return result


def earlier_result(folder: Path, name: str) -> SweepResult | None:
    """Return the result that a folder has of an earlier run; None where it has none.

    Raises:
        InputError: The folder is a file, or holds the result of another sweep, or a file of its name that is none.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder for the result, found a file", hint="choose another --out")
    if not (folder / JSON).exists():
        return None
    found = load_result(folder / JSON)
    if found.sweep != name:
        raise InputError(f"{folder / JSON}: is the result of another sweep: {found.sweep}", hint="choose another --out")
    return found


def title(result: SweepResult) -> str:
    """Return the heading."""
    return f"Sweep {result.sweep}"


def summary(result: SweepResult) -> str:
    """Return how the cells ended, with the time and the version."""
    counts = {
        state: sum(cell.state == state for cell in result.cells) for state in ("done", "failed", "left out", "not run")
    }
    ended = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    limit = f" of at most {result.minutes:g} min" if result.minutes is not None else ""
    return (
        f"{len(result.cells)} cells: {ended}. {result.seconds:.0f} s{limit}. "
        f"Made {result.when} by deploykit {result.version}."
    )


def sections(result: SweepResult) -> list[Section]:
    """Return every section that has something to show."""
    found = (
        Section(title="Recommendations", blocks=(_choices(result.choices), *_losers(result.choices))),
        Section(
            title="Cells",
            blocks=(Table(headings=COLUMNS, rows=[row(cell) for cell in result.cells]), _legend(result)),
        ),
        Section(title="What to know", blocks=(_notes(result),)),
        Section(title="Devices", blocks=(_devices(result),)),
    )
    return [part for part in found if not part.empty]


def _notes(result: SweepResult) -> tuple[str, ...]:
    """List every remark once, with the cells that it is on."""
    cells_of: dict[str, list[str]] = {}
    for cell in result.cells:
        for remark in cell.remarks:
            cells_of.setdefault(remark, []).append(cell.name.title)
    return tuple(
        f"{names[0] if len(names) == 1 else f'{len(names)} cells'}: {remark}" for remark, names in cells_of.items()
    )


def row(cell: SweepCell) -> tuple[str, ...]:
    """Return the line of a cell: a text for each of `COLUMNS`."""
    name, measured = cell.name, choice.measured_of(cell)
    shown = dict(zip(HEADINGS, cells(cell.row), strict=True)) if cell.row is not None else {}
    cost = measured.cost if measured is not None else None
    return (
        name.checkpoint + " (random weights)" * cell.random_weights, name.variant, name.engine, str(name.batch),
        name.device, *(shown.get(heading, NONE) for heading in ("size", "top-1", "drop", "agreement")),
        shown.get("p50", NONE) + _interval(measured),
        percentile(measured, 90), f"{cost.peak_memory_mib} MiB" if cost else NONE, ", ".join(cell.fronts) or NONE,
        verdict(cell),
    )  # fmt: skip


def _interval(measured: Measurement | None) -> str:
    """Write the 95 % interval of the median of the rounds; empty where there are too few of them."""
    rounds = measured.by_round if measured is not None else ()
    low, high = latency.median_interval([statistics.median(one) for one in rounds if one])
    return "" if math.isinf(high) else f" [{low:.3f}, {high:.3f}]"


def verdict(cell: SweepCell) -> str:
    """Return the verdict on a cell in one line, or its state with the reason."""
    return cell.row.verdict if cell.row is not None and cell.state == "done" else f"{cell.state}: {cell.why}"


def html(result: SweepResult) -> str:
    """Return the page of a result; it loads nothing."""
    top = element(
        "header",
        element("p", "deploykit sweep", class_="kicker"),
        element("h1", element("bdi", title(result))),
        element("p", summary(result), class_="verdict"),
    )
    parts = [element("section", element("h2", part.title), *tables.blocks(part)) for part in sections(result)]
    drawn = [
        picture
        for key, group in choice.groups(result.cells).items()
        for front in (choice.ACCURACY, choice.SIZE)
        if (picture := _draw(key, group, front, result.accuracy)) is not None
    ]
    shown = element("section", element("h2", "Pictures"), element("div", *drawn, class_="grid")) if drawn else None
    return page.document(title(result), top, parts[0], shown, *parts[1:])


def _legend(result: SweepResult) -> str:
    random = any(cell.random_weights for cell in result.cells)
    compared = f"{result.accuracy} against latency" if result.accuracy else "no accuracy that these cells share"
    return (
        "p50 and p90 are of one run, of the whole batch; behind p50 the 95 % interval of the median of the rounds. "
        f"Fronts are by device and batch, of accepted cells with valid latencies: accuracy ({compared}), and size "
        "against latency. Cells are measured one after the other, not in turns: what the machine did differently in "
        f"between is in their ratios. {NONE} means that there is no number."
        + " Random weights have the cost of trained ones, and their accuracy means nothing."
        * random
    )


def _choices(found: Sequence[SweepChoice]) -> Table:
    rows = [(c.device, str(c.batch), c.wanted, c.winner or "none", c.why) for c in found]
    return Table(headings=("device", "batch", "wanted", "recommended", "why"), rows=rows)


def _losers(found: Sequence[SweepChoice]) -> list[str | Table]:
    rows = [(c.device, str(c.batch), c.wanted, loser.label, loser.why) for c in found for loser in c.losers]
    return [Table(headings=("device", "batch", "wanted", "not recommended", "why not"), rows=rows)] if rows else []


def _devices(result: SweepResult) -> Table | str:
    rows = [
        (name, first_page.describe_machine(there), ", ".join(f"{library} {text}" for library, text in there.versions))
        for name, there in result.environments
    ]
    return Table(headings=("device", "machine", "versions"), rows=rows) if rows else ""


def _draw(key: tuple[str, int], group: Sequence[SweepCell], front: str, measure: str) -> Markup | None:
    """Draw the cells of one device and batch: latency to the right, accuracy or size upwards."""
    by_accuracy = front == choice.ACCURACY
    points = [
        (cell, choice.median_ms(cell), value)
        for cell in group
        if choice.measured_of(cell) is not None
        and (value := choice.accuracy_of(cell, measure) if by_accuracy else choice.size_of(cell) / 1e6) is not None
    ]
    if not points:
        return None
    what, unit = (f"{measure}, %", "%") if by_accuracy else ("size, MB", "MB")
    looks = plot.looks(_look(cell) for cell, _, _ in points)
    ms = [one for _, one, _ in points]
    x = plot.axis(ms, start=plot.LEFT, end=plot.WIDTH - plot.RIGHT, log=max(ms) > 8 * min(ms))
    y = plot.axis([one for _, _, one in points], start=_HEIGHT - plot.BOTTOM, end=plot.TOP + 12)
    best = sorted((one for one in points if front in one[0].fronts), key=lambda one: one[1])
    parts = [plot.frame(x, y, "median latency of a run, ms", what)]
    if len(best) > 1:
        parts.append(element("path", d=plot.path([(x.at(a), y.at(b)) for _, a, b in best]), class_="front"))
    for cell, left, up in points:
        word = "; on the Pareto front" * (front in cell.fronts)
        tip = f"{cell.name.title}: {left:.4g} ms, {up:.4g} {unit}{word}"
        data = {"label": cell.name.title, "ms": left, "value": up}
        parts.append(plot.mark(looks[_look(cell)], x.at(left), y.at(up), tip, hollow=not choice.usable(cell), **data))
    heading = f"{key[0]}, batch {key[1]}: {'accuracy' if by_accuracy else 'size'} against latency"
    note = "Left is faster. The line is the Pareto front; outlines mark cells not accepted or not validly measured."
    numbers = tables.table(
        ("cell", "median, ms", what, "front"),
        [(cell.name.title, f"{a:.4g}", f"{b:.4g}", "yes" if front in cell.fronts else "no") for cell, a, b in points],
    )
    legend = plot.legend([(name, look) for name, look in looks.items()])
    return plot.figure(front, heading, note, plot.picture(heading, _HEIGHT, parts), numbers, legend)


def _look(cell: SweepCell) -> str:
    return f"{cell.name.checkpoint} {cell.name.variant} · {cell.name.engine}"
