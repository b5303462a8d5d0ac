"""Standard streams of a real process: closed, full, gone or of another encoding. The exit code stays the answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NO, REFUSED = "export no.pth", 2
"""A command that is refused without anything heavy."""


def ended(command: str, streams: str, folder: Path, **variables: str) -> tuple[int, str]:
    """Run a command of a shell, and return its exit code and what it could still say."""
    line = f"{sys.executable} -m deploy_kit {command} {streams}"
    process = subprocess.run(
        ["bash", "-c", line], capture_output=True, cwd=folder, env=os.environ | variables, timeout=60, check=False
    )
    return process.returncode, (process.stdout + process.stderr).decode(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-", "2> >(true)"])
def test_an_error_that_nobody_hears_keeps_its_exit_code(streams: str, tmp_path: Path) -> None:
    assert ended(NO, streams, tmp_path)[0] == REFUSED


@pytest.mark.slow
@pytest.mark.parametrize("command", ["--version", "--help", "devices list", "devices list --json", "export --help"])
def test_a_full_standard_output_is_a_failure_with_a_way_out(command: str, tmp_path: Path) -> None:
    code, said = ended(command, ">/dev/full", tmp_path)

    assert code == 5
    assert said.startswith("error: standard output cannot be written: no space left on the disk\n  fix: ")
    assert len(said.splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("command", ["--version", "--help", "devices list", "devices list --json", "export --help"])
def test_a_reader_that_is_gone_is_not_the_answer_no(command: str, tmp_path: Path) -> None:
    code, said = ended(command, "> >(exec >&-; exec <&-; sleep 0.5)", tmp_path)

    assert code in (0, 141)  # 0 where the reader went after the last word
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("streams", [">&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_written_nowhere(streams: str, tmp_path: Path) -> None:
    assert ended("devices list", streams, tmp_path)[0] == 0


@pytest.mark.slow
def test_a_file_does_not_take_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "from deploy_kit.base import standard_streams\n"
        "standard_streams.prepare_streams()\n"
        "opened = os.open('file', os.O_CREAT | os.O_WRONLY)\n"
        "os.write(1, b'what a native library prints')\n"
        "print('and Python')\n"
        "raise SystemExit(0 if opened > 2 else 9)\n"
    )
    (tmp_path / "a.py").write_text(script)

    code = subprocess.run(["bash", "-c", f"{sys.executable} a.py <&- >&- 2>&-"], cwd=tmp_path, check=False).returncode

    assert (code, (tmp_path / "file").read_bytes()) == (0, b"")


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.slow
@pytest.mark.parametrize("variables", [ASCII, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}])
@pytest.mark.parametrize("command", ["--help", "export größe-日本.pth", "run größe.yaml", "devices list"])
def test_an_encoding_that_lacks_characters_changes_no_exit_code(
    command: str, variables: dict[str, str], tmp_path: Path
) -> None:
    code, said = ended(command, "", tmp_path, **variables)

    assert code == (2 if "größe" in command else 0)
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_name_that_is_no_utf8_is_shown_with_backslashes(tmp_path: Path) -> None:
    code, said = ended("export $'caf\\xe9.pth'", "", tmp_path)

    assert (code, said.splitlines()[0]) == (2, 'error: recipe: expected names in UTF-8, found "caf\\udce9.pth"')
