"""What a reviewer asks of a report first, as texts: which files, of which checkpoint, on which data, by which limits.

Markdown, the page and notebooks draw the same ones. What a report does not hold is said to be unknown, never left out.
"""

import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from deploy_kit.base.plain_text import shell_word
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.engine_table import NONE, size
from deploy_kit.records.measurements import Environment
from deploy_kit.records.results import ParityReport, Report
from deploy_kit.records.verdict import NO_LIMIT

Facts = tuple[tuple[str, str], ...]
FILE_HEADINGS = ("artifact", "file", "size", "sha256", "made from")
UNKNOWN = "not recorded"


def facts(report: Report) -> Facts:
    """Return (what, value) for each fact that holds for the whole report."""
    source, answers = report.checkpoint, report.answers
    own = NONE if answers.top1 is None else f"{100 * answers.top1:.2f} % top-1"
    return (
        ("checkpoint", f"{source.name}, {source.title}, {source.parameters:,} parameters, {size(source.size_bytes)}"),
        ("checkpoint sha256", source.sha256),
        ("preprocessing", _preprocessing(report)),
        *_calibration(report),
        ("checked on", f"{answers.images}, {answers.n:,} images, {'with' if answers.labelled else 'without'} labels"),
        ("check data sha256", answers.images_sha256 or UNKNOWN),
        ("checkpoint's own score", own),
        *_limits(report),
        ("machine", describe_machine(report.environment)),
        ("made", f"{report.when} by deploykit {report.version}"),
        ("repeat with", report.command or UNKNOWN),
        *_repeat_in(report.command),
    )


def files(report: Report) -> list[tuple[str, ...]]:
    """Return one line for each file of each engine that was built: a text for each of `FILE_HEADINGS`."""
    names, delivered = {graph.sha256: graph.name for graph in report.lineage}, dict(report.delivered)
    rows = list[tuple[str, ...]]()
    for label, engine in dict.fromkeys((row.label, row.artifact) for row in report.rows):
        if engine is not None:
            parent = f"{names.get(engine.parent, '')} {engine.parent[:12]}".strip()
            main = PurePosixPath(delivered.get(label, engine.path))
            rows += [
                (label, str(main.with_suffix(ending) if number else main), size(n_bytes), digest, parent)
                for number, (ending, n_bytes, digest) in enumerate(parts(report, engine))
            ]
    return rows


def parts(report: Report, engine: Artifact) -> list[tuple[str, int, str]]:
    """Return (ending, bytes, sha256) of each file of an engine, the main one first; older reports hash all as one."""
    whole = (PurePosixPath(engine.path).suffix, engine.size_bytes, engine.sha256)
    return [part[1:] for part in report.parts if part[0] == engine.sha256] or [whole]


def describe_machine(here: Environment) -> str:
    """Write which machine numbers are from."""
    limit = f", limited to {here.cpu_limit:g} processors" if here.cpu_limit else ""
    isa = f" ({', '.join(here.isa)})" if here.isa else ""  # processors of one name differ in it, and INT8 by it
    parts = (
        here.board,
        f"{here.cpu}{isa}, {here.cores} cores{limit}{' (virtual)' if here.virtual else ''}",
        f"{here.memory_gib:g} GiB",
        here.gpu,
        here.host,
        f"EMULATED by {here.emulated}" if here.emulated else "",
    )
    return ", ".join(filter(None, parts))


def repeat_command(recipe_file: str, device: str) -> str:
    """Write the command that makes a report again from the recipe beside it."""
    words = ["deploykit run", shell_word(recipe_file), *(["--device", shell_word(device)] if device != "local" else [])]
    return " ".join(words)


def _repeat_in(command: str) -> Iterator[tuple[str, str]]:
    """Say in which folder a command with a relative path is to be run."""
    try:
        (first,) = PurePosixPath(shlex.split(command)[2]).parts[:1]
    except (ValueError, IndexError):  # the command is not recorded, or not as this package writes it
        return
    if first not in ("/", ".."):
        yield "repeat in", f"the folder that holds {first}: relative paths of the recipe begin there"


def _preprocessing(report: Report) -> str:
    return report.lineage[0].preprocess.words if report.lineage else UNKNOWN


def _calibration(report: Report) -> Iterator[tuple[str, str]]:
    """Name each calibration set with the variants that it calibrated."""
    sets: dict[tuple[str, str, str], list[str]] = {}
    for graph in report.lineage:
        made_by = graph.made_by
        if made_by.calibration:
            key = (made_by.calibration, made_by.n_images, made_by.calibration_sha256)
            sets.setdefault(key, []).append(graph.name)
    if not sets:
        yield "calibrated on", "nothing"
    for (name, n, digest), variants in sets.items():
        yield "calibrated on", f"{name}, {int(n):,} images ({', '.join(variants)})" if n.isdecimal() else name
        yield "calibration data sha256", digest or UNKNOWN


def _limits(report: Report) -> Iterator[tuple[str, str]]:
    """Name the limits in force, with the precisions that they are for where these differ, and the budgets of all."""
    found: dict[str, dict[str, None]] = {}
    for row in report.rows:
        if row.artifact is not None and isinstance(row.parity, ParityReport):
            found.setdefault(", ".join(row.parity.limit_words) or NO_LIMIT, {})[row.artifact.precision] = None
    for words, precisions in found.items():
        yield "limits in force" if len(found) == 1 else f"limits, {', '.join(precisions)}", words
    recommended = report.recommendation
    yield "budgets", UNKNOWN if recommended is None else ", ".join(recommended.budgets.words) or "none set"
