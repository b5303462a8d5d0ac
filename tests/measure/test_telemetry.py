"""What is told beside samples, from gauges that are pretended: their readings are known."""

import dataclasses
from typing import TYPE_CHECKING

import pytest
from gauged import NO_ENERGY, WATCHED, Gauges
from stand_ins import PretendWorker

from deploy_kit.graph import onnx_file
from deploy_kit.machine import environment
from deploy_kit.measure import roofline
from deploy_kit.measure.telemetry import Telemetry
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import Measurement

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

HERE = dataclasses.replace(environment.describe_machine(), virtual=True, isa=("avx2", "avx512_vnni"), cores=2)
BLIND = dataclasses.replace(WATCHED, unreadable=(*WATCHED.unreadable, *NO_ENERGY))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def measurement(engine: Artifact, **changed: object) -> Measurement:
    facts = Measurement(
        artifact=engine.sha256,
        label=engine.label,
        batch=1,
        span="compute",
        samples_ms=(1.0,) * 20,
        rounds=(0,),
        warmup_runs=60,
        steady=True,
        settings=(("provider", "CPUExecutionProvider"),),
        environment=HERE,
        when="2026-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(facts, **changed)  # type: ignore[arg-type]


def annotated(
    line: "Line", gauges: Gauges, *, variant: str = "fp32", energy: bool = False, **changed: object
) -> Measurement:
    engine = line.built(variant, "onnxruntime")
    facts = measurement(engine, **changed)
    worker = PretendWorker(gauges.answers())
    telemetry = Telemetry(worker, machine=facts.environment, store=line.store, with_energy=energy)
    with telemetry.turn("one"):
        pass
    if telemetry.measures_energy:
        telemetry.run_for_energy("one", batch=2, run=lambda seconds: 500)
    return telemetry.annotate(facts, engine, "one")


def test_conditions_without_fault_leave_a_measurement_valid(line: "Line") -> None:
    found = annotated(line, Gauges())

    assert (found.valid, found.conditions is not None) == (True, True)


@pytest.mark.usefixtures("alone")
def test_foreign_load_makes_it_invalid_and_keeps_every_sample(line: "Line") -> None:
    # Two cores for 11 s are 22 s; 4.4 s of them are foreign.
    found = annotated(line, Gauges(foreign=4.4))

    assert found.invalid == ("foreign load took 20.0 % of the cores' time; at most 5 % is valid",)
    assert found.samples_ms == (1.0,) * 20
    assert found.conditions is not None
    assert found.conditions.advice == ("sudo nvpmodel -m 2",)


@pytest.mark.usefixtures("alone")
def test_what_was_invalid_before_stays_so(line: "Line") -> None:
    found = annotated(line, Gauges(foreign=4.4), invalid=("LoadGen says INVALID: too few queries",))

    assert [why.partition(" ")[0] for why in found.invalid] == ["LoadGen", "foreign"]


def test_energy_is_that_above_idle(line: "Line") -> None:
    # Read: idle twice at 5 W; adopt no worker; turn twice; then 11 s at 15 W.
    found = annotated(line, Gauges(watts=(5, 5, 5, 5, 15, 15)), energy=True)

    assert found.energy is not None
    (rail,) = found.energy.rails
    assert (rail.name, rail.idle_w, rail.joules) == ("VDD_IN", 5.0, 165.0)
    assert rail.mj_per_inference == pytest.approx(1000 * (165 - 55) / (500 * 2))


def test_energy_that_was_not_asked_for_says_how_to_ask(line: "Line") -> None:
    found = annotated(line, Gauges())

    assert found.energy is not None
    assert (found.energy.rails, found.energy.why) == ((), "not measured: not asked for (--energy, 10 s an engine)")


@pytest.mark.parametrize("asked", [True, False])
def test_energy_that_cannot_be_read_says_why(line: "Line", asked: bool) -> None:
    found = annotated(line, Gauges(watched=BLIND), energy=asked)

    assert found.energy is not None
    assert (found.energy.rails, found.energy.why) == ((), "not measured: no RAPL; no driver; no INA")


def test_the_roof_is_that_of_the_graph_the_engine_was_built_from(line: "Line") -> None:
    found = annotated(line, Gauges()).roof

    assert found is not None
    assert found.macs == onnx_file.macs(onnx_file.load(line.store.path(line.lean)))
    assert (found.peak_ops_s, found.bandwidth_b_s, found.basis) == (100e9, 10e9, "measured")


def test_int8_has_a_roof_of_its_own(line: "Line") -> None:
    whole, quarter = annotated(line, Gauges()).roof, annotated(line, Gauges(), variant="int8").roof

    assert whole is not None
    assert quarter is not None
    assert (quarter.peak_ops_s, quarter.basis) == (4 * whole.peak_ops_s, "computed")
    assert quarter.moved_bytes * 4 == whole.moved_bytes
    assert "times 4 for avx512_vnni" in quarter.source


def test_an_engine_on_an_unknown_gpu_has_no_roof(line: "Line") -> None:
    assert annotated(line, Gauges(), settings=(("provider", "CUDAExecutionProvider"),)).roof is None


@pytest.mark.parametrize(
    ("setting", "value", "processor"),
    [
        ("provider", "CPUExecutionProvider", "cpu"),
        ("provider", "CUDAExecutionProvider", "gpu"),
        ("device", "CPU", "cpu"),
        ("device", "GPU.0", "gpu"),
        ("gpu", "NVIDIA H100 (sm_90)", "gpu"),
        ("arithmetic", "numpy", "cpu"),
    ],
)
def test_the_processor_is_what_the_session_reports(setting: str, value: str, processor: str) -> None:
    assert roofline.processor_of(((setting, value), ("threads", "2"))) == processor


def test_an_emulated_machine_is_not_judged(line: "Line") -> None:
    played = dataclasses.replace(HERE, emulated="qemu-aarch64-static")

    found = annotated(line, Gauges(foreign=4.4), environment=played)

    assert (found.invalid, found.conditions) == ((), None)


def test_an_emulated_machine_has_no_roof_and_no_energy(line: "Line") -> None:
    played = dataclasses.replace(HERE, emulated="qemu-aarch64-static")
    worker = PretendWorker({op: answer for op, answer in Gauges().answers().items() if op != "measure_roof"})
    engine = line.built("fp32", "onnxruntime")

    telemetry = Telemetry(worker, machine=played, store=line.store, with_energy=True)
    found = telemetry.annotate(measurement(engine, environment=played), engine, "one")

    assert (found.roof, telemetry.measures_energy) == (None, False)
    assert found.energy is not None
    assert found.energy.why == "not measured: emulated: not a measurement"
