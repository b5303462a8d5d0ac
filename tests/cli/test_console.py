"""Tables for the terminal: they fit, and what is spared goes first."""

import os

import pytest

from deploy_kit.cli import _console

HEADINGS = ("engine", "batch", "samples", "p50", "verdict")
ROW = ("int8 · onnxruntime", "1", "1200", "10.123 ms", "1.58× faster, CI 1.56–1.60, and nothing else to be said here")


def drawn(monkeypatch: pytest.MonkeyPatch, width: int) -> list[str]:
    monkeypatch.setattr(_console.shutil, "get_terminal_size", lambda fallback: os.terminal_size((width, 24)))
    return _console.table(HEADINGS, [ROW], spare=("samples", "batch")).splitlines()


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (160, ["engine", "batch", "samples", "p50", "verdict"]),
        (74, ["engine", "batch", "samples", "p50", "verdict"]),
        (70, ["engine", "batch", "p50", "verdict"]),
        (60, ["engine", "p50", "verdict"]),
        (20, ["engine", "p50", "verdict"]),
    ],
)
def test_columns_that_are_spared_go_in_their_order_where_the_terminal_is_narrow(
    monkeypatch: pytest.MonkeyPatch, width: int, headings: list[str]
) -> None:
    lines = drawn(monkeypatch, width)

    assert lines[0].split() == headings


@pytest.mark.parametrize("width", [60, 70, 74, 80, 100])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = drawn(monkeypatch, width)

    assert max(map(len, lines)) <= width
    assert [word for word in ROW[4].split() if word not in " ".join(lines)] == []


def test_on_a_terminal_a_value_wraps_beside_its_name_and_elsewhere_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [("operators", "120 Conv, 59 Relu, 58 Concat, 1 MaxPool, 1 GlobalAveragePool"), ("file", "a.onnx")]
    whole = _console.pairs(rows)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")

    wrapped = _console.pairs(rows)

    assert whole.splitlines() == [f"operators  {rows[0][1]}", "file       a.onnx"]
    assert wrapped.splitlines() == [
        "operators  120 Conv, 59 Relu, 58 Concat,",
        "           1 MaxPool, 1",
        "           GlobalAveragePool",
        "file       a.onnx",
    ]
