"""What a third party registers by entry points is built, run and measured without a change to any file of deploykit.

An engine, a gauge, a scenario and a link of a temporary distribution, through real workers.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy_kit import engines
from deploy_kit.accuracy import metrics
from deploy_kit.context import Context
from deploy_kit.devices import inference, links, named_devices
from deploy_kit.images import open_set
from deploy_kit.measure import race, scenarios
from deploy_kit.measure.gauges import CATALOGUE as GAUGES
from deploy_kit.recipe import BenchTable
from deploy_kit.records.artifacts import Device

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line", "third_party"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("third_party")]

BOARD = Device(name="board", link="tunnel", address="next-door")


def test_its_entries_stand_among_deploykits_own() -> None:
    assert "toy" in engines.CATALOGUE.names()
    assert "wall_meter" in GAUGES.names()
    assert "slow-drip" in scenarios.scenario_names()
    assert "tunnel" in links.CATALOGUE.names()


def test_a_link_is_found_under_the_former_name_of_its_group_too() -> None:
    assert "old_tunnel" in links.CATALOGUE.names()


def test_a_device_can_be_named_by_the_address_of_its_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    named_devices.add_device("board", {"link": "tunnel://next-door"})

    assert links.find_device("board") == BOARD
    assert links.find_device("tunnel://next-door").address == "next-door"


def test_its_engine_is_built_with_its_version_and_computes_what_torch_computes(line: "Line") -> None:
    built = line.built("fp32", "toy")

    assert built.proof is not None
    assert (built.proof.source, Path(built.path).name) == ("the toy file", "model.toy")
    assert ("toy_vendor", "1.4") in built.made_by.versions
    target = inference.InferenceTarget(engine="toy", path=line.store.path(built), options={})
    image_set = open_set(line.recipe.check.images, built.preprocess)
    with links.connect_device(BOARD) as connection:
        inferred = inference.infer_all(connection, target, image_set, built.preprocess)
    assert metrics.relative_difference(line.logits(), inferred.logits) < 1e-5
    assert inferred.settings == (("arithmetic", "toy"),)


def test_its_engine_is_measured_in_its_scenario_over_its_link_under_its_gauge(line: "Line") -> None:
    ours, theirs = line.built("fp32", "onnxruntime"), line.built("fp32", "toy")
    entries = tuple(race.RaceEntry(engine=engine, batch=1) for engine in (ours, theirs))
    table = BenchTable(scenario="slow-drip", warmup_s=0.05)

    with links.connect_device(BOARD) as connection:
        bench = race.run_race(entries, table, Context(store=line.store, connection=connection))

    assert (bench.not_run, bench.failed) == ((), ())
    measured = {measurement.label: measurement for measurement in bench.measurements}
    assert set(measured) == {ours.label, theirs.label}
    for one in measured.values():
        assert (one.scenario, [len(samples) for samples in one.by_round]) == ("slow-drip", [3, 3])
        assert one.conditions is not None
        assert ("wall meter", "plugged in") in one.conditions.settings
        assert one.energy is not None
        assert one.energy.why == "not measured: not asked for (--energy, 10 s an engine)"
        assert one.roof is not None
        assert one.roof.processor == "cpu"
