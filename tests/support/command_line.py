"""The command line, run in this process."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy_kit import cli


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The first line of the error, without its word."""
        return next((line for line in self.err.splitlines() if line.startswith("error: ")), "")

    @property
    def fix(self) -> str:
        """The hint."""
        return next((line for line in self.err.splitlines() if line.startswith("  fix: ")), "")


def deploykit(*arguments: str | Path) -> Said:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["deploykit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())
