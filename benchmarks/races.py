"""Races as tables: each candidate against the stock INT8 file, the float32 file and the fastest stock file."""

from benchmarks import page, ratios, stock
from benchmarks.page import NONE
from benchmarks.records import Entry, Race

EVERYWHERE = ("fp32", "int8")
"""Files that the race of engines holds against each other."""

HEADINGS = ("file@engine", "by", "MB", "ms (min, this run)", "vs stock INT8", "vs float32", "vs fastest stock", "note")


def render(race: Race) -> str:
    """Write a race: its table, and how it was run."""
    rows = [row(race, entry) for entry in race.entries]
    return "\n\n".join(filter(None, [f"### {race.title}", how(race), page.table(HEADINGS, rows), _legend(race)]))


def how(race: Race) -> str:
    """State the net, and how its race was run."""
    unit = " Milliseconds are per image." if race.streams > 1 else ""
    streams = (
        f"{race.streams} streams, {race.threads} threads in all" if race.streams > 1 else f"{race.threads} threads"
    )
    return (
        f"{race.subject}; batch {race.batch}; {streams}; {race.recompiles} processes × {race.rounds} rounds × "
        f"{race.runs} runs; calibrated with {race.calibration_images} images at most.{unit}"
    )


def render_engines(race: Race) -> str:
    """Write a race of deploykit's files on every engine, each against ONNX Runtime's file of either precision."""
    others = [next((one for one in race.entries if one.name == f"{name}@ort"), None) for name in EVERYWHERE]
    rows = [
        (
            entry.name,
            f"{entry.size_bytes / 1e6:.1f}" if entry.size_bytes else NONE,
            f"{ratios.least_ms(entry.samples_ms):.2f}" if entry.samples_ms else NONE,
            *(
                page.ratio(_against(one, entry)) if one and one.samples_ms and entry.samples_ms else NONE
                for one in others
            ),
            entry.why,
        )
        for entry in race.entries
    ]
    headings = ("file@engine", "MB", "ms (min, this run)", *(f"vs {name}@ort" for name in EVERYWHERE), "note")
    best = fastest(race, ours=True)
    said = f"The fastest is {best.name}." if best else ""
    return "\n\n".join(filter(None, [how(race), page.table(headings, rows), said]))


def fastest(race: Race, *, ours: bool, engine: str | None = None) -> Entry | None:
    """Return the fastest entry of one side, on one engine or on all; None where nothing of it ran."""
    timed = {entry.name: entry for entry in race.entries if entry.samples_ms}
    asked = tuple(name for name, entry in timed.items() if entry.ours == ours and engine in (None, entry.engine))
    if not asked:
        return None
    return timed[ratios.fastest({name: entry.samples_ms for name, entry in timed.items()}, asked)]


def baseline(race: Race, engine: str, index: int) -> Entry | None:
    """Return the entry that candidates of `engine` are held against: 0 for stock INT8, 1 for float32."""
    names = stock.BASELINES.get(engine, ())
    found = [entry for entry in race.entries if names[index : index + 1] == (entry.name,) and entry.samples_ms]
    return found[0] if found else None


def row(race: Race, entry: Entry) -> tuple[str, ...]:
    """Give the cells of a candidate, in the order of `HEADINGS`."""
    name = f"**{entry.name}**" if entry.ours else entry.name
    by, size = "deploykit" if entry.ours else "stock", f"{entry.size_bytes / 1e6:.1f}" if entry.size_bytes else NONE
    if not entry.samples_ms:
        return (name, by, size, NONE, NONE, NONE, NONE, entry.why)
    others = (
        baseline(race, entry.engine, 0),
        baseline(race, entry.engine, 1),
        fastest(race, ours=False, engine=entry.engine),
    )
    return (
        name, by, size, f"{ratios.least_ms(entry.samples_ms):.2f}",
        *(NONE if other in (None, entry) else page.ratio(_against(other, entry)) for other in others), "",
    )  # fmt: skip


def _against(base: Entry, entry: Entry) -> tuple[float, float, float]:
    return ratios.interval(base.samples_ms, entry.samples_ms)


def _legend(race: Race) -> str:
    """State what the columns are against, and how the fastest of both sides compare."""
    lines = []
    for engine in dict.fromkeys(entry.engine for entry in race.entries):
        found = [baseline(race, engine, 0), baseline(race, engine, 1), fastest(race, ours=False, engine=engine)]
        names = [f"{entry.name}" if entry else NONE for entry in found]
        lines.append(f"{engine}: stock INT8 is {names[0]}, float32 {names[1]}, fastest stock {names[2]}.")
    ours, theirs = fastest(race, ours=True), fastest(race, ours=False)
    if ours and theirs:
        lines.append(
            f"Over all engines the fastest file of deploykit is {ours.name}, the fastest stock file {theirs.name}: "
            f"{page.ratio(_against(theirs, ours))}."
        )
    return " ".join(lines)
