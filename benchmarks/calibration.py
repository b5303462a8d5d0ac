"""What calibration costs: seconds and peak memory by method, each in a process of its own.

ONNX Runtime's own calibrators stand beside ours, stopped where they hold 12 GiB, and plain float32 inference over the
same images: no calibration can cost less.
"""

import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import child, page
from benchmarks.candidates import Ours, Stock
from benchmarks.page import NONE
from benchmarks.runners import open_session
from benchmarks.subjects import Subject
from benchmarks.workshop import Workshop
from deploy_kit import images
from deploy_kit.base.errors import StageError
from deploy_kit.machine import environment
from deploy_kit.quantization import schemes
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Preprocess

INFERENCE = "float32 inference"
METHODS: dict[str, dict[str, str]] = {
    "ranges alone (minmax, rounding nearest)": {"method": "minmax", "rounding": "nearest"},
    **{method: {"method": method} for method in ("minmax", "percentile", "entropy", "mse")},
}
STOCK = ("MinMax", "Percentile", "Entropy")
LIMIT_GIB = 12


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One method.

    Attributes:
        name: The method's, or `INFERENCE`.
        ours: Whether it is deploykit's.
        n: Images.
        seconds: Wall time in its process, imports included.
        plain_s: Seconds of plain inference right before it; 0 where it was not run again.
        peak_mib: The most memory its process held.
        why: Why there are no numbers; empty where there are.
    """

    name: str
    ours: bool
    n: int
    seconds: float = 0.0
    plain_s: float = 0.0
    peak_mib: int = 0
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The methods of the section."""

    subject: str
    rows: tuple[Cost, ...]


def measure(subject: Subject, file: Ours, n: int, workshop: Workshop) -> Costs:
    """Run plain inference, every method of ours on `file`, and every calibrator of ONNX Runtime over `n` images."""
    raw = str(workshop.file(Stock(recipe="raw"), subject, 0))
    common: dict[str, Any] = {
        "calibration": str(workshop.calibration(n)), "preprocess": codec.to_json(subject.preprocess)
    }  # fmt: skip
    plain = _cost(Cost(name=INFERENCE, ours=False, n=n), "calibration:infer", source=raw, **common)
    rows = [plain]
    for name, options in METHODS.items():
        row = Cost(name=name, ours=True, n=n)
        try:
            lean = str(workshop.file(Ours(passes=file.passes), subject, 0))
        except StageError as error:
            rows.append(replace(row, why=child.plain(str(error))))
            continue
        asked = {"source": lean, "scheme": file.scheme, "options": {**file.options, **options}}
        again = _cost(plain, "calibration:infer", source=raw, **common)
        rows.append(_cost(replace(row, plain_s=again.seconds), "calibration:quantize", **asked, **common))
    for method in STOCK:
        rows.append(_cost(Cost(name=method, ours=False, n=n), "calibration:stock", source=raw, method=method, **common))
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


def stock(source: str, method: str, calibration: str, preprocess: dict[str, Any], limit_gib: float = LIMIT_GIB) -> int:
    """Run one of ONNX Runtime's calibrators with its defaults: what a child process does. It ends where it holds more.

    Returns:
        The images it has looked at.
    """
    from onnxruntime import quantization as ort
    from onnxruntime.quantization import calibrate

    what = codec.from_json(Preprocess, preprocess)
    batches, given = images.open_set(calibration, what).batches(what, 1), [0]

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(batches, None)
            given[0] += batch is not None
            return None if batch is None else {"input": batch}

    threading.Thread(target=_stop_at, args=(limit_gib, given), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        augmented = str(Path(folder) / "augmented.onnx")
        chosen = ort.CalibrationMethod[method]
        found = calibrate.create_calibrator(Path(source), None, augmented, calibrate_method=chosen)
        found.collect_data(Reader())
        found.compute_data()
    return given[0]


def _stop_at(limit_gib: float, given: list[int]) -> None:
    """End this process where it holds more than the limit, and say how far it came."""
    while environment.resident_memory_mib() < 1024 * limit_gib:
        time.sleep(0.02)
    sys.stderr.write(f"\nstopped at {limit_gib:g} GiB after {given[0]} images\n")
    sys.stderr.flush()
    os._exit(1)


def render(found: Costs) -> str:
    """Show seconds and peak memory by method, and the ratio to plain inference."""
    plain = next((row.seconds for row in found.rows if row.name == INFERENCE), 0.0)
    headings = ("method", "by", "images", "seconds", "× inference", "peak MiB", "note")
    rows = []
    for row in found.rows:
        by = "deploykit" if row.ours else NONE if row.name == INFERENCE else "onnxruntime"
        beside = row.plain_s or plain
        numbers = (f"{row.seconds:.1f}", f"{row.seconds / beside:.2f}" if beside else NONE, str(row.peak_mib))
        rows.append((f"**{row.name}**" if row.ours else row.name, by, str(row.n), *_shown(row, numbers), row.why))
    text = (
        f"{found.subject}. Wall time and peak resident memory of a process that does nothing else, imports and writing "
        f"the file included. Each of deploykit's ratios is to plain inference run again right before it, those of ONNX "
        f"Runtime's calibrators, with their defaults, to the first; a process that holds {LIMIT_GIB} GiB is stopped."
    )
    return f"{text}\n\n{page.table(headings, rows)}"


def _shown(row: Cost, numbers: tuple[str, str, str]) -> tuple[str, str, str]:
    return (NONE, NONE, NONE) if row.why else numbers


def _cost(row: Cost, function: str, **arguments: Any) -> Cost:
    sys.stderr.write(f"calibration: {row.name}, {row.n} images\n")
    ended = child.call(function, **arguments)
    why = ended.why.removeprefix("failed: ") if "stopped at" in ended.why else ended.why
    return replace(row, seconds=round(ended.seconds, 1), peak_mib=ended.peak_mib, why=why)
