"""Tables of load costs and layers: each number stands in its column, and what is not known is a dash."""

import dataclasses

from layer_profiles import COST, PROFILE
from report_records import HERE, artifact

from deploy_kit.records.artifacts import Proof
from deploy_kit.records.layer_times import LayerProfile
from deploy_kit.records.measurements import Measurement
from deploy_kit.stages.report import layer_breakdown

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
ENGINE = artifact("int8", "onnxruntime", build_s=2.26, proof=Proof(source="", counts=(), placement=((CPU, "Conv", 9),)))


def measured(**changes: object) -> Measurement:
    made = Measurement(
        artifact="a" * 64,
        label="int8 · onnxruntime",
        batch=1,
        span="compute",
        samples_ms=tuple([7.0] * 100),
        rounds=(0,),
        warmup_runs=60,
        steady=True,
        settings=(("threads", "4"),),
        environment=HERE,
        when="2026-01-01T00:00:00+00:00",
        cost=COST,
    )
    return dataclasses.replace(made, **changes)


def test_costs_are_laid_out_by_engine() -> None:
    headings, (row,) = layer_breakdown.costs([(ENGINE, measured())])

    assert dict(zip(headings, row, strict=True)) == {
        "engine": "int8 · onnxruntime",
        "build": "2.3 s",
        "load": "413 ms",
        "first run": "31.250 ms",
        "p50": "7.000 ms",
        "peak memory": "157 MiB, 53 before loading",
        "runs on": "CPUExecutionProvider (9 nodes)",
    }


def test_what_an_emulated_machine_took_is_marked() -> None:
    played = measured(environment=dataclasses.replace(HERE, emulated="qemu-aarch64-static"))

    _, (row,) = layer_breakdown.costs([(ENGINE, played)])

    assert row[0] == "int8 · onnxruntime (emulated: not a measurement)"
    assert layer_breakdown.sentence(played, PROFILE).startswith(
        "int8 · onnxruntime (emulated: not a measurement): a profiler"
    )


def test_what_is_not_known_is_a_dash() -> None:
    engine = artifact("int8", "onnxruntime", proof=None)

    _, (row,) = layer_breakdown.costs([(engine, measured(cost=None, samples_ms=(7.0,)))])

    assert row == ("int8 · onnxruntime", *["–"] * 6)


def test_nodes_spread_over_devices_are_counted() -> None:
    placement = ((CPU, "Gemm", 1), (CPU, "other", 11), (CUDA, "Conv", 120), (CUDA, "other", 118))
    engine = artifact("fp32", "onnxruntime", proof=Proof(source="", counts=(), placement=placement))

    assert layer_breakdown.where(engine.proof) == "CUDAExecutionProvider (238 nodes), CPUExecutionProvider (12 nodes)"
    assert layer_breakdown.split(engine) == (
        "fp32 · onnxruntime: 238 of 250 nodes run on CUDAExecutionProvider, 12 on CPUExecutionProvider: "
        "each change of device copies"
    )


def test_an_engine_on_one_device_is_not_called_split() -> None:
    assert layer_breakdown.split(ENGINE) == ""


def test_a_profile_is_a_line_a_region_and_a_column_a_kind() -> None:
    headings, rows = layer_breakdown.regions(PROFILE)

    assert headings == ("region", "share", "ms", "conv", "concat", "copy")
    assert rows == [
        ("stem", "12.5%", "1.000", "1.000", "–", "–"),
        ("block 1", "81.2%", "6.500", "5.000", "1.500", "–"),
        ("unknown", "6.2%", "0.500", "–", "–", "0.500"),
        ("all", "100.0%", "8.000", "75.0%", "18.8%", "6.2%"),
    ]


def test_the_profiles_total_stands_beside_the_latency() -> None:
    assert layer_breakdown.sentence(measured(), PROFILE) == (
        "int8 · onnxruntime: a profiler, 2 runs of their own: "
        "layers 8.000 ms by their medians, 12.000 ms by their means, of a profiled run of 9.000 ms; "
        "without profiling the median run took 7.000 ms; 6.2% in layers whose place is not known"
    )


def test_an_engine_without_a_profile_says_why() -> None:
    none = LayerProfile(source="", runs=0, run_ms=0.0, layers=(), remark="engine 'reference' does not time its layers")

    said = layer_breakdown.sentence(measured(), none)

    assert said == "int8 · onnxruntime: no profile: engine 'reference' does not time its layers"


def test_more_threads_than_the_container_gives_are_said() -> None:
    starved = measured(environment=dataclasses.replace(HERE, cpu_limit=1.5)).starved

    assert starved == (
        "int8 · onnxruntime ran 4 threads on the time of 1.5 processors, the container's limit: "
        "it is held back in each period, and its latencies jump"
    )


def test_as_many_threads_as_the_container_gives_are_not_starved() -> None:
    assert measured(environment=dataclasses.replace(HERE, cpu_limit=4.0)).starved == ""
    assert measured(environment=HERE).starved == ""


def test_an_engine_that_does_not_tell_its_threads_is_not_judged() -> None:
    assert measured(settings=(), environment=dataclasses.replace(HERE, cpu_limit=0.5)).starved == ""
