"""A short form of `kill_anywhere.py`: one kill of each victim."""

from pathlib import Path

import kill_anywhere
import pytest


@pytest.mark.slow
def test_what_was_killed_is_whole_again_by_the_same_line(tmp_path: Path) -> None:
    counts = kill_anywhere.try_kills(tmp_path, len(kill_anywhere.VICTIMS), seed=7)

    assert sum(counts[victim] for victim in kill_anywhere.VICTIMS) == len(kill_anywhere.VICTIMS)
