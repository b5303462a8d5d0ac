"""Progress on standard error: a moving line where there is one to move, plain lines elsewhere."""

import io
import sys
from types import SimpleNamespace

import pytest

from deploy_kit.base import progress_display
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.base.progress_display import ProgressDisplay, can_move, in_notebook


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard error a terminal; called in the test, since pytest captures anew for each of its phases."""
    stream = Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_plain_lines_say_each_step_once(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(moving=False) as display:
        display.on_progress(ProgressEvent(stage="check", text="int8", done=1, total=9))
        display.on_progress(ProgressEvent(stage="check", text="int8", done=2, total=9))
        display.on_progress(ProgressEvent(stage="bench", text="round 1"))
        display.write("a remark")

    assert capsys.readouterr().err == "check: int8 1/9\nbench: round 1\na remark\n"


def test_a_long_step_says_how_long_it_will_take(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress_display.time, "monotonic", lambda: clock.now)
    with ProgressDisplay(moving=False) as display:
        display.on_progress(ProgressEvent(stage="check", text="int8", done=0, total=100))
        for seconds, done in ((2, 5), (10, 25), (70, 40)):
            clock.now = 100.0 + seconds
            display.on_progress(ProgressEvent(stage="check", text="int8", done=done, total=100))

    assert capsys.readouterr().err == (
        "check: int8\ncheck: int8 25/100, about 30 s left\ncheck: int8 40/100, about 2 min left\n"
    )


def test_a_moving_line_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)

    with ProgressDisplay(moving=True) as display:
        display.on_progress(ProgressEvent(stage="check", text="int8", done=3, total=9))

    assert "3/9" in terminal.getvalue()


def test_a_moving_line_is_gone_at_the_end_and_a_remark_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)

    with ProgressDisplay(moving=True) as display:
        display.on_progress(ProgressEvent(stage="check", text="int8 [0]", done=1, total=9))
        display.write("a remark [1]")

    assert "a remark [1]\n" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line it stood on is cleared


@pytest.mark.parametrize("moving", [True, False])
def test_a_finding_stays_where_it_was_said(monkeypatch: pytest.MonkeyPatch, moving: bool) -> None:
    terminal = on_terminal(monkeypatch)

    with ProgressDisplay(moving=moving) as display:
        display.on_progress(ProgressEvent(stage="export", text="right on only 26.8 %", stays=True))
        display.on_progress(ProgressEvent(stage="simplify", text="12 passes"))

    assert "export: right on only 26.8 %\n" in terminal.getvalue()


def test_a_terminal_takes_a_moving_line(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)

    assert can_move()


def test_a_user_can_say_that_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")

    assert not can_move()


def test_a_file_takes_none() -> None:
    assert not can_move()


def test_a_notebook_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.console

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setattr(rich.console, "Console", lambda: SimpleNamespace(is_jupyter=True))

    assert in_notebook() and can_move()
