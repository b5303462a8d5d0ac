"""What the command line says back: unknown names, the line that repeats a run, messages without folders."""

import argparse
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import child
from benchmarks.modes import MODES
from deploy_kit.base.errors import RequestError


def said(*arguments: str) -> argparse.Namespace:
    return program._parser().parse_args(arguments)


def test_an_unknown_mode_names_the_nearest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = program.main(["--modes", "latencies", "--out", str(tmp_path)])

    assert code == 2
    assert capsys.readouterr().err == "error: no mode is called 'latencies'\n  fix: did you mean 'latency'?\n"


def test_an_unknown_candidate_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="no candidate is called 'int8@or'") as caught:
        program._asked(said("--only", "int8@or"))

    assert caught.value.hint == "did you mean 'int8@ort'?"


def test_no_modes_named_means_all() -> None:
    assert program._chosen("", MODES, "mode") == tuple(MODES)


def test_quick_yields_to_what_is_said() -> None:
    plan = program._asked(said("--quick", "--rounds", "9")).plan

    assert (plan.recompiles, plan.rounds) == (1, 9)


def test_the_command_of_a_section_repeats_it_without_folders() -> None:
    line = program._command(
        "latency",
        said("--out", "docs", "--work", "/x", "--rounds", "7", "--checkpoint", "/home/me/net.pth", "--size", "64"),
    )

    assert line == "python -m benchmarks --modes latency --rounds 7 --checkpoint net.pth --size 64"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("slim failed: /tmp/a-b/c.npz: expected one image", "slim failed: c.npz: expected one image"),
        ("conv/weight in model.onnx", "conv/weight in model.onnx"),
        ("read (/a/b/model.xml)", "read (model.xml)"),
    ],
)
def test_folders_of_the_machine_leave_messages(text: str, kept: str) -> None:
    assert child.plain(text) == kept
