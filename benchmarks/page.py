"""The parts that every page section shares: padded Markdown tables, ratios with intervals, the stamp of a section."""

from collections.abc import Sequence

from benchmarks.records import Stamp

NONE = "–"


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Write a Markdown table whose columns are padded, so that it reads well in a terminal too."""
    lines = [[" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in (headings, *rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(headings))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    rule = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def ratio(found: tuple[float, float, float]) -> str:
    """Write a ratio with its interval, e.g. ``2.45× [2.33, 2.49]``."""
    return "{:.2f}× [{:.2f}, {:.2f}]".format(*found)


def stamp(found: Stamp) -> str:
    """Describe when, where and how a section was measured."""
    here = found.environment
    versions = ", ".join(f"{name} {version}" for name, version in here.versions)
    machine = f"{here.cores} cores of {here.cpu}{' (virtual machine)' if here.virtual else ''}"
    return (
        f"Measured {found.when} in {found.seconds:.0f} s by `{found.command}` on {machine}, {', '.join(here.isa)}, "
        f"{here.memory_gib} GiB, load {here.load} before and {found.load_after} after; {here.host}; {versions}."
    )
