"""What every gauge promises: it reads below its root only, says why it reads nothing, and never raises."""

from pathlib import Path

import pytest
from trees import recorded

from deploy_kit.measure.gauges import CATALOGUE, GaugeScope

NAMES = CATALOGUE.names()


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_tree_gives_a_reason_and_no_reading(name: str, tmp_path: Path) -> None:
    gauge, place = CATALOGUE.get(name), GaugeScope(root=tmp_path)

    assert gauge.read(place) == ()
    assert gauge.why_unavailable(place) != ""
    assert (gauge.settings(place), gauge.advice(place)) == ((), ())


@pytest.mark.parametrize("name", NAMES)
def test_where_it_reads_there_is_no_reason(name: str) -> None:
    gauge = CATALOGUE.get(name)

    for place in (recorded("orin-nano-super"), GaugeScope()):
        if gauge.why_unavailable(place):
            assert gauge.read(place) == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_gauge_of_energies_or_powers_says_so(name: str) -> None:
    gauge = CATALOGUE.get(name)
    kinds = {reading.kind for tree in ("orin-nano-super", "agx-orin") for reading in gauge.read(recorded(tree))}

    assert not kinds & {"energy_uj", "power_mw"} or gauge.measures_energy


@pytest.mark.parametrize("name", NAMES)
def test_a_reading_bears_the_name_of_its_gauge(name: str) -> None:
    for place in (recorded("orin-nano-super"), recorded("agx-orin"), GaugeScope()):
        assert {reading.gauge for reading in CATALOGUE.get(name).read(place)} <= {name}
