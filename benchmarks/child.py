"""Call a function in a process of its own: what it costs is its own, and a crash of native code becomes a sentence."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.candidates import Unavailable
from deploy_kit.base.errors import DeployKitError
from deploy_kit.machine import environment

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call ended.

    Attributes:
        value: What the function returned, as JSON can hold it; None where it did not return.
        why: Why it did not; empty where it did.
        seconds: Wall time of the call itself, imports included, the start of Python not.
        peak_mib: The most memory the process has held; 0 where it died.
    """

    value: Any
    why: str
    seconds: float
    peak_mib: int


def call(function: str, **arguments: Any) -> Outcome:
    """Call ``module:function`` of this package in a fresh process.

    Args:
        function: E.g. ``stock:make``.
        **arguments: As JSON can hold them.
    """
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        question, answer = Path(folder) / "arguments.json", Path(folder) / "outcome.json"
        question.write_text(json.dumps(arguments))
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        ended = subprocess.run(
            (sys.executable, "-m", "benchmarks.child", function, str(question), str(answer)),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if ended.returncode:
            return Outcome(value=None, why=_death(ended.returncode, ended.stderr), seconds=0.0, peak_mib=0)
        return Outcome(**json.loads(answer.read_text()))


def plain(text: str) -> str:
    """Take the folders of this machine out of a message; the names of files stay."""
    return re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+", "", text)


def _death(code: int, stderr: bytes) -> str:
    if code < 0:
        return f"crashed: {signal.Signals(-code).name}"
    words = stderr.decode(errors="replace").strip().splitlines()
    return plain(f"failed: {words[-1] if words else f'exit code {code}'}")


def _answer(function: str, arguments: dict[str, Any]) -> Outcome:
    begun, value, why = time.perf_counter(), None, ""
    module, name = function.split(":")
    try:
        value = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**arguments)
    except Unavailable as absent:
        why = str(absent)
    except DeployKitError as error:
        why = plain(f"failed: {error}")
    seconds = time.perf_counter() - begun
    return Outcome(value=value, why=why, seconds=seconds, peak_mib=environment.peak_memory_mib())


def main() -> None:
    """Answer one call; what breaks unforeseen ends this process with its trace."""
    function, question, answer = sys.argv[1:]
    outcome = _answer(function, json.loads(Path(question).read_text()))
    Path(answer).write_text(json.dumps(vars(outcome)))
    # Native libraries may crash while they are torn down; the answer is written, and that crash is not the candidate's.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
