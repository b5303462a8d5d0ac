"""How commands end where latencies are not valid: with 6 and every number shown, or knowingly with 0."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import deploykit

from deploy_kit import recipe
from deploy_kit.measure import validity
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

QUICK = ("--rounds", "3", "--runs", "10", "--warmup", "0.05")


@pytest.fixture(autouse=True)
def nothing_is_quiet_enough() -> Iterator[None]:
    """Make every machine too busy: the gauges are real, the limit cannot be kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validity, "MIN_TIMED_S", 0.0)
        patch.setattr(validity, "MAX_FOREIGN", -1.0)
        yield


@pytest.fixture
def built(line: "Line", kept: Store) -> Store:
    line.built("fp32", "onnxruntime")
    return kept


@pytest.mark.slow
def test_bench_ends_with_6_and_shows_every_number(built: Store) -> None:
    said = deploykit("bench", *QUICK, "--store", built.root)

    assert said.code == 6
    assert "INVALID" in said.out
    assert " ms" in said.out
    assert "error: " in said.err
    assert "foreign load took" in said.err
    assert "accept the latencies as they are with --allow-invalid" in said.err


@pytest.mark.slow
def test_bench_goes_on_knowingly_and_the_mark_stays(built: Store) -> None:
    said = deploykit("bench", *QUICK, "--store", built.root, "--allow-invalid")

    assert said.code == 0, said.err
    assert "INVALID" in said.out


@pytest.mark.slow
def test_run_ends_with_6_and_its_report_is_marked(line: "Line", built: Store, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    data = line.recipe.model_dump(mode="json", exclude_none=True)
    data["bench"]["runs"] = 10  # a median takes 20 samples
    path.write_text(recipe.dump_recipe(recipe.parse_recipe(data)))

    said = deploykit("run", path, "--store", built.root, "--out", tmp_path / "reports")
    knowingly = deploykit("run", path, "--store", built.root, "--out", tmp_path / "reports", "--allow-invalid")

    assert (said.code, knowingly.code) == (6, 0), said.err + knowingly.err
    assert " ms  INVALID" in " ".join(said.out.split("\n")[2:3])
    assert "undecided: latency INVALID: foreign load took" in " ".join(said.out.split())
    assert "**INVALID**: foreign load took" in (tmp_path / "reports/tiny/report.md").read_text()
