"""The whole line over a real SSH connection gives what it gives here."""

from pathlib import Path

import pytest

from deploy_kit import pipeline
from deploy_kit.devices import links
from deploy_kit.recipe import Recipe
from deploy_kit.records.artifacts import Device
from deploy_kit.store import Store


@pytest.mark.slow
def test_a_recipe_gives_the_same_numbers_over_ssh(tiny: Recipe, board: Device, tmp_path: Path) -> None:
    here = pipeline.deploy(tiny, links.LOCAL, Store(tmp_path / "here"))

    there = pipeline.deploy(tiny, board, Store(tmp_path / "there"))

    assert not [row.failed for row in there.rows if row.failed]
    assert [row.artifact.sha256 for row in there.rows] == [row.artifact.sha256 for row in here.rows]
    assert [row.artifact.proof for row in there.rows] == [row.artifact.proof for row in here.rows]
    assert [row.parity for row in there.rows] == [row.parity for row in here.rows]
    assert [len(row.measurement.samples_ms) for row in there.rows] == [15, 15]
