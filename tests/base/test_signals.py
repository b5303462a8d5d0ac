"""Signals at any moment of the start: the exit code names the signal, and no trace is shown."""

import signal
import subprocess
import sys

import pytest

# Sends the signal in the middle of importing a module; what an importing library makes of its exception is its own.
AT = """
import os, signal, sys
class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), {number})
                for _ in range(1000): pass
            except {swallowed} as error:
                raise ImportError("a library that swallows") from error
sys.meta_path.insert(0, Sender())
sys.argv = ["deploykit", "devices", "list"]
from deploy_kit.__main__ import main
main()
"""
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def ended(number: int, module: str, swallowed: str = "()", **options: object) -> "subprocess.CompletedProcess[str]":
    script = AT.format(module=module, number=int(number), swallowed=swallowed)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("number", EXIT_CODES)
@pytest.mark.parametrize("module", ["deploy_kit.cli", "typer", "deploy_kit.cli.devices", "yaml"])
def test_a_signal_while_the_program_is_loaded_ends_it_in_order(number: int, module: str) -> None:
    process = ended(number, module)

    assert (process.returncode, "Traceback" in process.stderr) == (EXIT_CODES[number], False), process.stderr


@pytest.mark.slow
@pytest.mark.parametrize("module", ["typer", "yaml"])
def test_a_library_that_makes_another_error_of_it_changes_nothing(module: str) -> None:
    process = ended(signal.SIGINT, module, "KeyboardInterrupt")

    assert (process.returncode, "Traceback" in process.stderr) == (130, False), process.stderr


@pytest.mark.slow
def test_a_hangup_that_the_caller_ignores_stays_ignored() -> None:
    process = ended(signal.SIGHUP, "yaml", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))

    assert (process.returncode, "local" in process.stdout) == (0, True), process.stderr
