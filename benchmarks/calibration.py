"""What calibration costs: seconds and peak memory of quantizers by the number of images, each in a process of its own.

Plain float32 inference over the same images stands beside them: no calibration can cost less.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import child, page, stock
from benchmarks.candidates import Ours, Stock
from benchmarks.page import NONE
from benchmarks.runners import open_session
from benchmarks.subjects import Subject
from benchmarks.workshop import Workshop
from deploy_kit import codec, images, schemes
from deploy_kit.errors import StageError
from deploy_kit.records import Preprocess

INFERENCE = "float32 inference"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One quantizer with one number of images.

    Attributes:
        name: Of the stock recipe, or of our scheme and its passes.
        ours: Whether it is deploykit's.
        n: Images.
        seconds: Wall time in its process, imports included.
        peak_mib: The most memory its process held.
        why: Why there are no numbers; empty where there are.
    """

    name: str
    ours: bool
    n: int
    seconds: float = 0.0
    peak_mib: int = 0
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The quantizers of the section."""

    subject: str
    rows: tuple[Cost, ...]


def measure(
    subject: Subject, files: Mapping[str, Ours], recipes: tuple[str, ...], sizes: tuple[int, ...], workshop: Workshop
) -> Costs:
    """Run every quantizer with every number of images that it can take; those that hoard stop early."""
    raw = workshop.file(Stock(recipe="raw"), subject, 0)
    common: dict[str, Any] = {"preprocess": codec.to_json(subject.preprocess)}
    rows = []
    for n in sizes:
        common["calibration"] = str(workshop.calibration(n))
        rows.append(_cost(Cost(name=INFERENCE, ours=False, n=n), "calibration:infer", source=str(raw), **common))
        for name, file in files.items():
            rows.append(_ours(name, file, n, subject, workshop, common))
        for recipe in recipes:
            if stock.RECIPES[recipe].most_images(n, subject.preprocess) < n:
                why = f"keeps every activation of every image: not run with more than {_most(recipe, subject)}"
                rows.append(Cost(name=recipe, ours=False, n=n, why=why))
                continue
            with tempfile.TemporaryDirectory() as folder:
                asked = {"recipe": recipe, "source": str(raw), "folder": folder, "n": n, "batch": 1}
                rows.append(_cost(Cost(name=recipe, ours=False, n=n), "stock:make", **asked, **common))
    return Costs(subject=subject.name, rows=tuple(rows))


def infer(source: str, calibration: str, preprocess: dict[str, Any]) -> int:
    """Run float32 inference on ONNX Runtime over a set: what a child process does."""
    what = codec.from_json(Preprocess, preprocess)
    session, n = open_session("onnxruntime", source, {}, 0), 0
    for batch in images.open_set(calibration, what).batches(what, 1):
        session.bind(batch)
        session.run()
        n += len(session.fetch())
    return n


def quantize(source: str, scheme: str, options: dict[str, Any], calibration: str, preprocess: dict[str, Any]) -> int:
    """Apply one of deploykit's schemes: what a child process does."""
    what = codec.from_json(Preprocess, preprocess)
    entry = schemes.CATALOGUE.get(scheme)
    stream = schemes.stream(Path(source), images.open_set(calibration, what), what)
    with tempfile.TemporaryDirectory() as folder:
        entry.apply(Path(source), Path(folder) / "model.onnx", codec.from_json(entry.options, options), stream)
    return stream.n_images


def render(found: Costs) -> str:
    """Show seconds and peak memory by quantizer and number of images, and what one more image costs."""
    names = dict.fromkeys((row.name, row.ours) for row in found.rows)
    sizes = sorted({row.n for row in found.rows})
    headings = ("quantizer", "by", *(f"{n} images" for n in sizes), "MiB an image", "note")
    rows = []
    for name, ours in names:
        mine = {row.n: row for row in found.rows if row.name == name}
        cells = [_cell(mine.get(n)) for n in sizes]
        why = next((row.why for row in mine.values() if row.why), "")
        by = NONE if name == INFERENCE else "deploykit" if ours else "stock"
        rows.append((f"**{name}**" if ours else name, by, *cells, slope(tuple(mine.values())), why))
    text = (
        f"{found.subject}. Seconds and peak resident memory of a process that does nothing else, imports included; "
        "seconds were not measured in turns. The slope is that between the fewest and the most images that ran."
    )
    return f"{text}\n\n{page.table(headings, rows)}"


def slope(rows: tuple[Cost, ...]) -> str:
    """Say how much memory one more image takes, between the fewest and the most images."""
    ran = sorted((row for row in rows if not row.why), key=lambda row: row.n)
    if len(ran) < 2:
        return NONE
    return f"{(ran[-1].peak_mib - ran[0].peak_mib) / (ran[-1].n - ran[0].n):.1f}"


def _most(recipe: str, subject: Subject) -> int:
    return stock.RECIPES[recipe].most_images(1 << 30, subject.preprocess)


def _ours(name: str, file: Ours, n: int, subject: Subject, workshop: Workshop, common: dict[str, Any]) -> Cost:
    try:
        lean = workshop.file(Ours(passes=file.passes), subject, 0)
    except StageError as error:
        return Cost(name=name, ours=True, n=n, why=child.plain(str(error)))
    asked = {"source": str(lean), "scheme": file.scheme, "options": dict(file.options)}
    return _cost(Cost(name=name, ours=True, n=n), "calibration:quantize", **asked, **common)


def _cost(row: Cost, function: str, **arguments: Any) -> Cost:
    sys.stderr.write(f"calibration: {row.name}, {row.n} images\n")
    ended = child.call(function, **arguments)
    return replace(row, seconds=round(ended.seconds, 1), peak_mib=ended.peak_mib, why=ended.why)


def _cell(row: Cost | None) -> str:
    return NONE if row is None or row.why else f"{row.seconds:.1f} s, {row.peak_mib} MiB"
