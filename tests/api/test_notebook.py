"""How a notebook shows results."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from bench_records import measurement
from report_records import artifact, parity

from deploy_kit import Bench, NotRun, ParityReport
from deploy_kit.api import _notebook


class Formatter(dict[type, Any]):
    """Stands for IPython's formatter of one kind of text."""

    def for_type(self, cls: type, draw: Any) -> None:
        self[cls] = draw


@pytest.fixture
def formatters(monkeypatch: pytest.MonkeyPatch) -> dict[str, Formatter]:
    """Formatters of an IPython that runs."""
    found = {"text/markdown": Formatter(), "text/plain": Formatter()}
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters=found))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    _notebook.register()
    return found


@pytest.mark.parametrize("ipython", [None, SimpleNamespace(get_ipython=lambda: None)])
def test_nothing_happens_where_no_notebook_runs(ipython: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if ipython is None:
        monkeypatch.delitem(sys.modules, "IPython", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "IPython", ipython)

    _notebook.register()


def test_the_plain_text_is_the_table_as_well(formatters: dict[str, Formatter]) -> None:
    said = list[str]()

    formatters["text/plain"][ParityReport](parity("int8 · openvino"), SimpleNamespace(text=said.append), False)

    assert said == [formatters["text/markdown"][ParityReport](parity("int8 · openvino"))]


def test_a_check_says_its_verdict_first(formatters: dict[str, Formatter]) -> None:
    shown = formatters["text/markdown"][ParityReport](parity("int8 · openvino"))

    assert shown.startswith("**int8 · openvino: accuracy accepted**")
    assert "| what | value |" in shown


def test_a_bench_has_a_line_for_each_engine_and_a_reason_for_each_absent(formatters: dict[str, Formatter]) -> None:
    absent = NotRun(artifact=artifact("fp16", "tensorrt").sha256, label="fp16 · tensorrt", why="no GPU")

    shown = formatters["text/markdown"][Bench](
        Bench(measurements=(measurement("int8 · openvino", [2.0] * 20),), not_run=(absent,))
    )

    assert "| int8 · openvino | 1 | 20 | 2.000 ms | – | – |" in shown
    assert "- fp16 · tensorrt: not run: no GPU" in shown
