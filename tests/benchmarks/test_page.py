"""What the page shows: tables, ratios worked by hand, reasons in place of numbers, and its way to JSON and back."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy, calibration, document, page, races, roofline, slimmed
from benchmarks.accuracy import Score, Truth
from benchmarks.calibration import Cost, Costs
from benchmarks.document import Section
from benchmarks.records import Entry, Race, Races, Stamp
from benchmarks.roofline import Roofline
from benchmarks.slimmed import SlimmedNet, SlimmedNets, SlimShare
from deploy_kit.accuracy import paired
from deploy_kit.machine import environment

STAMP = Stamp(
    command="python -m benchmarks",
    when="2026-01-01T00:00:00+00:00",
    seconds=1.0,
    environment=environment.describe_machine(),
    load_after=1.25,
)


def entry(name: str, ms: float, *, ours: bool = False, engine: str = "onnxruntime") -> Entry:
    """An entry of two processes and two rounds that takes `ms` each time, and is slower in the other runs."""
    turn = (ms, 2 * ms)
    return Entry(name=name, engine=engine, ours=ours, int8=True, size_bytes=2_000_000, samples_ms=((turn,) * 2,) * 2)


def race_of(*entries: Entry) -> Race:
    return Race(
        title="Batch 1", subject="tiny", batch=1, streams=1, threads=2, rounds=2, runs=2, recompiles=2,
        calibration_images=4, seed=0, entries=entries,
    )  # fmt: skip


RACE = race_of(
    entry("raw@ort", 8.0),
    entry("static-minmax@ort", 6.0),
    entry("static-percentile@ort", 5.0),
    entry("mine@ort", 2.0, ours=True),
    entry("nncf@ov", 3.0, engine="openvino"),
    Entry(name="static-minmax@ov", engine="openvino", ours=False, int8=True, why="crashed: SIGSEGV"),
)


def cells(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    text = page.table(("a", "bb"), [("1", "x | y"), ("22222", "")])

    assert text.splitlines() == [
        "| a     | bb     |",
        "| ----- | ------ |",
        "| 1     | x \\| y |",
        "| 22222 |        |",
    ]


def test_a_row_holds_the_least_time_and_three_ratios() -> None:
    row = cells(races.render(RACE), "**mine@ort**")

    assert row[1:4] == ["deploykit", "2.0", "2.00"]
    assert row[4:7] == ["3.00× [3.00, 3.00]", "4.00× [4.00, 4.00]", "2.50× [2.50, 2.50]"]


def test_a_baseline_is_not_compared_with_itself() -> None:
    assert cells(races.render(RACE), "static-minmax@ort")[4] == page.NONE


def test_a_crash_has_its_reason_and_no_number() -> None:
    row = cells(races.render(RACE), "static-minmax@ov")

    assert row[2:] == [page.NONE] * 5 + ["crashed: SIGSEGV"]


def test_candidates_are_not_held_against_another_engine_s_baseline() -> None:
    assert cells(races.render(RACE), "nncf@ov")[4:7] == [page.NONE] * 3


def test_the_legend_compares_the_fastest_of_both_sides() -> None:
    assert "fastest file of deploykit is mine@ort, the fastest stock file nncf@ov: 1.50× [1.50, 1.50]" in races.render(
        RACE
    )


def test_a_slower_file_of_ours_is_shown_as_slower() -> None:
    slow = race_of(*RACE.entries[:3], entry("mine@ort", 12.0, ours=True))

    assert cells(races.render(slow), "**mine@ort**")[4] == "0.50× [0.50, 0.50]"


def test_a_slimmed_net_has_a_row_for_each_share_against_its_whole_int8_and_stock() -> None:
    def share(asked: float, ms: float) -> tuple[SlimShare, tuple[Entry, ...]]:
        scores = tuple(
            Score(name=name, ours=True, calibration_images=0, drop_pp=1 - asked, low_pp=-0.1, high_pp=2 - asked)
            for name in ("fp32", "ort", "ov")
        )
        made = (entry(f"int8-{asked:g}@ort", ms, ours=True), entry(f"int8-{asked:g}@ov", ms / 2, engine="openvino"))
        return SlimShare(asked=asked, share=asked - 0.01, seconds=3, peak_mib=900, scores=scores), made

    (whole, first), (half, second) = share(1.0, 4.0), share(0.5, 2.0)
    net = SlimmedNet(
        subject="tiny",
        images="cal.npz",
        n_images=512,
        shares=(whole, half),
        race=race_of(*first, *second, entry("static-minmax@ort", 6.0)),
    )

    text = slimmed.render(SlimmedNets(nets=(net,)))

    assert cells(text, "0.99")[4:6] == [page.NONE, page.NONE]
    row = cells(text, "0.49")
    assert row[1] == "+0.50 [-0.10, +1.50]"
    assert row[4:] == ["2.00× [2.00, 2.00]", "2.00× [2.00, 2.00]", "3 s, 900 MiB"]
    assert "Against static-minmax@ort, by share: 0.99: 1.50× [1.50, 1.50], 0.49: 3.00× [3.00, 3.00]." in text


def test_share_of_the_peak_is_floor_over_time() -> None:
    """4 million products in 2 ms are 4 GOP/s; a model of 6 million then has a floor of 3 ms, half of 6 ms."""
    found = Roofline(
        race=race_of(entry("probe@ort", 2.0), entry("mine@ort", 6.0, ours=True)),
        probes=(("probe@ort", 4_000_000),),
        macs=6_000_000,
        macs_of="mine@ort",
    )
    text = roofline.render(found)

    assert cells(text, "probe@ort")[1] == "4"
    assert "floor in this run is 3.00 ms" in text
    assert cells(text, "**mine@ort**")[1:3] == ["6.00", "50 % [50, 50]"]


def test_a_score_counts_lost_hits_and_flips() -> None:
    """Of four images the reference hits three; the candidate loses one of them and changes no other class."""
    reference = np.array([[9, 0], [9, 0], [0, 9], [0, 9]], np.float32)
    candidate = np.array([[9, 0], [0, 9], [0, 9], [0, 9]], np.float32)
    truth = Truth(logits=reference, labels=np.array([0, 0, 1, 0]), sha256="")

    found = accuracy.score(Score(name="mine@ort", ours=True, calibration_images=16), candidate, truth)

    assert (found.top1, found.drop_pp, found.flips) == (0.5, 25.0, 0.25)
    # Signal 4 · 81, noise 2 · 81: 3.01 dB.
    assert found.sqnr_db == pytest.approx(10 * np.log10(2))
    low, high = paired.drop_interval(1, 0, 4)
    assert (found.low_pp, found.high_pp) == pytest.approx((100 * low, 100 * high))


def test_a_method_is_held_against_plain_inference() -> None:
    rows = (
        Cost(name=calibration.INFERENCE, ours=False, n=512, seconds=20.0, peak_mib=300),
        Cost(name="minmax", ours=True, n=512, seconds=27.0, peak_mib=600),
        Cost(name="Entropy", ours=False, n=512, why="stopped at 12 GiB after 60 images"),
    )
    text = calibration.render(Costs(subject="tiny", rows=rows))

    assert cells(text, calibration.INFERENCE)[1:6] == [page.NONE, "512", "20.0", "1.00", "300"]
    assert cells(text, "**minmax**") == ["**minmax**", "deploykit", "512", "27.0", "1.35", "600", ""]
    assert cells(text, "Entropy")[3:] == [page.NONE] * 3 + ["stopped at 12 GiB after 60 images"]


def test_sections_come_back_as_they_were_written(tmp_path: Path) -> None:
    section = Section(mode="latency", stamp=STAMP, result=Races(races=(RACE,)))
    document.write(tmp_path, {"latency": section})

    assert document.read(tmp_path) == {"latency": section}
    assert "## Latency" in (tmp_path / "benchmarks.md").read_text()


def test_every_sample_is_kept(tmp_path: Path) -> None:
    document.write(tmp_path, {"latency": Section(mode="latency", stamp=STAMP, result=Races(races=(RACE,)))})
    kept = json.loads((tmp_path / "benchmarks.json").read_text())

    assert kept["latency"]["result"]["races"][0]["entries"][0]["samples_ms"] == [[[8.0, 16.0]] * 2] * 2


def test_sections_stand_in_the_order_of_the_page(tmp_path: Path) -> None:
    races_of = Races(races=(RACE,))
    demo = Section(mode="demo", stamp=STAMP, result=races_of)
    latency = Section(mode="latency", stamp=STAMP, result=races_of)
    document.write(tmp_path, {"demo": demo, "latency": latency})

    text = (tmp_path / "benchmarks.md").read_text()
    assert text.index("## Latency") < text.index("## The demo")


def test_the_stamp_names_machine_versions_and_command() -> None:
    text = page.stamp(STAMP)

    assert STAMP.environment.cpu in text
    assert "`python -m benchmarks`" in text
    assert "before and 1.25 after" in text
    assert all(f"{name} {version}" in text for name, version in STAMP.environment.versions)
