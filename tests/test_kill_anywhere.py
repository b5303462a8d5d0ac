"""A short form of `kill_anywhere.py`: the command is killed, a worker of it is, and the command is interrupted."""

from pathlib import Path

import kill_anywhere
import pytest


@pytest.mark.slow
def test_what_was_killed_is_whole_again_by_the_same_line(tmp_path: Path) -> None:
    counts = kill_anywhere.try_kills(tmp_path, 3, seed=7)

    assert sum(counts[victim] for victim in kill_anywhere.VICTIMS) == 2
    assert counts["SIGINT"] == 1
