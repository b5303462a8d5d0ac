"""The report's sections on loading, layers and the container: written where they are known, and read back whole."""

import dataclasses
from pathlib import Path

from layer_profiles import COST, PROFILE
from report_records import HERE, everything, made, measurement, row, tables

from deploy_kit.records.artifacts import Proof
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.results import Report
from deploy_kit.stages import report

PLACED = Proof(source="a profile", counts=(("Conv", "int8", 9),), placement=(("CPUExecutionProvider", "Conv", 9),))


def profiled() -> Report:
    timed = dataclasses.replace(measurement("int8 · onnxruntime", (7.0,) * 100), cost=COST, profile=PROFILE)
    found = row("int8", "onnxruntime", measurement=timed)
    assert found.artifact is not None
    return made(dataclasses.replace(found, artifact=dataclasses.replace(found.artifact, proof=PLACED)))


def test_what_loading_cost_has_a_table_of_its_own() -> None:
    headings, _, line = tables(report.markdown(profiled()))["Load"]

    assert (headings[2], line[2], line[5]) == ("load", "413 ms", "157 MiB, 53 before loading")


def test_where_an_engine_ran_stands_beside_its_precision() -> None:
    headings, _, line = tables(report.markdown(profiled()))["Build: precision and place proved"]

    assert dict(zip(headings, line, strict=True))["runs on"] == "CPUExecutionProvider (9 nodes)"


def test_a_profile_is_written_with_what_it_is_of() -> None:
    text = report.markdown(profiled())

    assert [line[0] for line in tables(text)["Layers"]] == ["region", "---", "stem", "block 1", "unknown", "all"]
    assert "\nint8 · onnxruntime: a profiler, 2 runs of their own: layers 8.000 ms by their medians" in text


def test_without_a_profile_there_is_no_section() -> None:
    assert not {"Layers", "Load"} & tables(report.markdown(everything())).keys()


def test_a_profile_comes_back_from_json(tmp_path: Path) -> None:
    report.run(profiled(), tmp_path)

    found = report.load_report(tmp_path / "report.json").rows[0].measurement

    assert isinstance(found, Measurement)
    assert (found.cost, found.profile) == (COST, PROFILE)


def test_limits_of_the_container_are_told() -> None:
    here = dataclasses.replace(HERE, cpu_limit=1.5, memory_limit_gib=2.0)

    rows = dict(line[:2] for line in tables(report.markdown(made(environment=here)))["Environment"])

    assert rows["limits of the container"] == "1.5 processors, 2 GiB"
    assert (
        dict(line[:2] for line in tables(report.markdown(made()))["Environment"])["limits of the container"] == "none"
    )
