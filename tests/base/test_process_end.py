"""The end of a process: all that was registered and buffered is done, and the exit code is the one given."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import atexit, sys, tempfile
from deploy_kit.base.process_end import end_process
folder = tempfile.TemporaryDirectory(dir=sys.argv[1])
atexit.register(print, "registered")
print("buffered")
end_process(3)
"""


def ended(folder: Path, shell: str = "") -> "subprocess.CompletedProcess[str]":
    line = f'"$0" -c "$1" "$2" {shell}'
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = ["sh", "-c", line, sys.executable, SCRIPT, str(folder)]
    return subprocess.run(command, env=buffered, capture_output=True, text=True)


def test_what_was_registered_and_buffered_is_done(tmp_path: Path) -> None:
    done = ended(tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (3, "buffered\nregistered\n", "")
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_leaves_the_exit_code(tmp_path: Path) -> None:
    done = ended(tmp_path, "> /dev/full")

    assert (done.returncode, done.stderr) == (3, "")
    assert not list(tmp_path.iterdir())
