"""How a notebook shows a check and a bench: as tables, where the plain text of a record would be all of its samples.

A report draws itself (`Report._repr_html_`).
"""

import sys
from collections.abc import Callable
from typing import Any

from deploy_kit.records.engine_table import NONE
from deploy_kit.records.measurements import Bench
from deploy_kit.records.results import ParityReport
from deploy_kit.stages.report import accuracy
from deploy_kit.stages.report.markdown import table


def register() -> None:
    """Register with IPython, where it runs, how checks and benches are shown; elsewhere do nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    formatters = shell.display_formatter.formatters
    for cls, draw in _DRAWN.items():
        formatters["text/markdown"].for_type(cls, draw)
        # A front end without Markdown shows the plain text, which notebooks store as well.
        formatters["text/plain"].for_type(cls, _plain(draw))


def parity_table(parity: ParityReport) -> str:
    """Lay out a check: a line a number, beside its limit where it has one."""
    title = f"**{parity.label}: accuracy {parity.verdict.word}**"
    return "\n".join([title, "", *table(("what", "value"), accuracy.lines(parity))])


def bench_table(bench: Bench) -> str:
    """Lay out a bench: a line an engine and batch."""
    headings = ("engine", "batch", "samples", "p50", "p90", "p99", "images/s", "verdict")
    rows = []
    for one in bench.measurements:
        times = [one.percentile_ms(percent) for percent in (50, 90, 99)]
        shown = [NONE if time is None else f"{time:.3f} ms" for time in times]
        verdict = "INVALID: " + "; ".join(one.invalid) if one.invalid else one.emulated or "valid"
        rows.append((one.label, str(one.batch), str(len(one.samples_ms)), *shown, f"{one.images_per_s:.1f}", verdict))
    absent = [f"- {one.label}: not run: {one.why}" for one in bench.not_run]
    return "\n".join([*table(headings, rows), *([""] if absent else []), *absent])


def _plain(draw: Callable[[Any], str]) -> Callable[[Any, Any, bool], None]:
    return lambda record, printer, cycle: printer.text(draw(record))


_DRAWN: dict[type[Any], Callable[[Any], str]] = {ParityReport: parity_table, Bench: bench_table}
