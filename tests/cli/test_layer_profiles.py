"""``bench --profile``: where the time goes is printed and written, and what cannot be written is refused first."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from deploy_kit.base.errors import InputError, RequestError
from deploy_kit.cli import _layer_profiles, build_app
from deploy_kit.context import Context
from deploy_kit.recipe import BuildEntry
from deploy_kit.stages import build
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


@pytest.mark.slow
def test_a_profile_is_drawn_and_written_as_trtexec_does(kept: Store, line: "Line", tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    arguments = ["bench", "--store", str(kept.root), "--rounds", "3", "--runs", "5", "--warmup", "100ms"]

    found = CliRunner().invoke(build_app(), [*arguments, "--export-profile", str(out)])

    assert found.exit_code == 0, found.output
    count, *layers = json.loads(out.read_text())
    assert count == {"count": 20}
    assert {tuple(layer) for layer in layers} == {("name", "timeMs", "averageMs", "medianMs", "percentage")}
    assert sum(layer["percentage"] for layer in layers) == pytest.approx(100)
    for text in ("block 1", "transition 1", "peak memory", "ONNX Runtime's profiler, 20 runs of their own"):
        assert text in found.output


@pytest.mark.slow
def test_without_being_asked_nothing_is_profiled(kept: Store, line: "Line") -> None:
    arguments = ["bench", "--store", str(kept.root), "--rounds", "3", "--runs", "5", "--warmup", "100ms", "--json"]

    found = CliRunner().invoke(build_app(), [*arguments, "--quiet"])

    (measurement,) = json.loads(found.stdout)["measurements"]
    assert measurement["profile"] is None
    assert measurement["cost"]["load_ms"] > 0


def test_one_file_holds_one_profile(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--export-profile writes the profile of one engine, 2 are measured"):
        _layer_profiles.verify_export(tmp_path / "profile.json", n_engines=2)


def test_a_folder_is_no_profile(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file to write, found a folder") as caught:
        _layer_profiles.verify_export(tmp_path, n_engines=1)

    assert caught.value.hint == str(tmp_path / "profile.json")


def test_a_folder_that_is_missing_is_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder") as caught:
        _layer_profiles.verify_export(tmp_path / "none" / "profile.json", n_engines=1)

    assert caught.value.hint == f"mkdir -p {tmp_path / 'none'}"


@pytest.mark.slow
def test_an_engine_without_a_profile_writes_none(kept: Store, line: "Line", tmp_path: Path) -> None:
    build.run(
        line.lean, BuildEntry(engine="reference", variants=("fp32",)), Context(store=kept, connection=line.connection)
    )
    arguments = ["bench", "--store", str(kept.root), "--rounds", "3", "--runs", "1", "--warmup", "100ms"]

    found = CliRunner().invoke(build_app(), [*arguments, "--export-profile", str(tmp_path / "p.json")])

    assert isinstance(found.exception, RequestError)
    assert str(found.exception) == (
        "fp32 · reference: no profile to write: engine 'reference' does not time its layers"
    )
    assert not (tmp_path / "p.json").exists()
