"""The line over SSH to another architecture, and the numbers that its own kernels give."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import edge_arm as arm
import pytest
from bundle_making import pack
from edge_machine import Served

from benchmarks import subjects
from deploy_kit import pipeline
from deploy_kit.accuracy import metrics
from deploy_kit.base import lazy
from deploy_kit.devices import inference, links
from deploy_kit.images import open_set
from deploy_kit.recipe import Recipe
from deploy_kit.records.artifacts import Device
from deploy_kit.records.results import Report
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

INTEGER = ("int8 portable, max", "int8 portable, depthwise", "int8 portable, narrow sums")
# (processor that qemu plays, multiplying instruction that ONNX Runtime 1.31 takes there)
PROCESSORS = [("cortex-a53", "SMLAL"), ("neoverse-n1", "UDOT"), ("max", "SVE UMMLA")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> arm.Files:
    """The demo in float32 and in three integer forms, with 8 images."""
    return arm.prepare(subjects.demo(), tmp_path_factory.mktemp("demo"), ("fp32", *INTEGER), 8)


@pytest.mark.slow
@pytest.mark.parametrize("processor", [name for name, _ in PROCESSORS], ids=[kernel for _, kernel in PROCESSORS])
def test_integer_graphs_give_the_same_logits_on_arm_to_the_last_bit(
    files: arm.Files, edge_root: Path, monkeypatch: pytest.MonkeyPatch, processor: str
) -> None:
    monkeypatch.setenv("QEMU_CPU", processor)

    fp32, *integer = arm.compare(files, edge_root)

    assert [(row.form, row.equal) for row in integer] == [(form, 1.0) for form in INTEGER]
    assert 0 < fp32.difference < 1e-5  # another order of float sums: two architectures have really computed


def deploykit(*words: str) -> str:
    """Run the command line and give what it prints."""
    command = (sys.executable, "-m", "deploy_kit", *words)
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_a_person_adds_and_probes_it(edge: Served) -> None:
    deploykit("devices", "add", "board", f"ssh://{edge.address}")

    said = deploykit("devices", "probe", "board")

    assert "by qemu-aarch64-static: its times are not measurements" in said
    assert "aarch64" in said
    assert "MHz" not in said  # the host's clock is not its own


def test_a_probe_tells_which_engines_are_missing_there(edge: Served) -> None:
    deploykit("devices", "add", "board", f"ssh://{edge.address}")

    found = json.loads(deploykit("devices", "probe", "board", "--json"))["findings"]

    runs = {row["name"]: row["runs"] for row in found}
    assert (runs["onnxruntime"], runs["openvino"]) == (True, False)


@pytest.mark.slow
def test_a_bundle_verifies_there(edge: Served, line: "Line", tmp_path: Path) -> None:
    deploykit("devices", "add", "board", f"ssh://{edge.address}")
    bundle = pack(line, "int8", "onnxruntime", tmp_path / "bundle")

    found = json.loads(deploykit("verify", str(bundle), "--device", "board", "--json"))

    assert [(row["what"], row["ok"]) for row in found["findings"]] == [
        ("files", True), ("signature", None), ("version", True), ("golden outputs", True),
    ]  # fmt: skip
    assert found["device"] == "board"


@pytest.fixture(scope="module")
def reports(tiny: Recipe, served_edge: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """The tiny recipe, deployed here and on the device."""
    folder = tmp_path_factory.mktemp("stores")
    board = Device(name="edge", link="ssh", address=served_edge.address)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(served_edge.home))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        return {
            device.name: pipeline.deploy(tiny, device, Store(folder / device.name)) for device in (links.LOCAL, board)
        }


def test_every_engine_is_built_checked_and_timed_there(reports: dict[str, Report]) -> None:
    assert [(row.label, row.verdict) for row in reports["edge"].rows] == [
        ("fp32 · onnxruntime", "accepted (agreement ≥ 100 %)"), ("int8 · onnxruntime", "accepted (SQNR ≥ 5 dB)"),
    ]  # fmt: skip


def test_its_parity_is_that_of_this_machine(reports: dict[str, Report]) -> None:
    there, here = ([row.parity for row in reports[name].rows] for name in ("edge", "local"))

    assert [parity.agreement for parity in there] == [parity.agreement for parity in here]
    assert [parity.sqnr_db for parity in there][1] == pytest.approx(here[1].sqnr_db, abs=0.01)


def test_its_times_say_that_they_are_none(reports: dict[str, Report]) -> None:
    assert {row.measurement.emulated for row in reports["edge"].rows} == {"emulated: not a measurement"}
    assert {row.measurement.emulated for row in reports["local"].rows} == {""}


@pytest.fixture(scope="module")
def beside(line: "Line", served_edge: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tiny DenseNet's two engines, measured there and here by one line: as a table, and again as a record."""
    folder = tmp_path_factory.mktemp("beside")
    shutil.copytree(line.snapshot, folder / ".deploykit")
    bench = ("bench", "--all", "--device", f"ssh://{served_edge.address}", "--beside", "local", "--allow-invalid")
    fast = ("--rounds", "6", "--runs", "4", "--warmup", "10ms", "--baseline", "fp32 · onnxruntime")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(served_edge.home))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        patch.setenv("COLUMNS", "220")  # no verdict is wrapped
        return {"table": deploykit(*bench, *fast), "record": deploykit(*bench, *fast, "--json")}


def test_its_times_and_this_machines_stand_in_one_table(beside: dict[str, str], served_edge: Served) -> None:
    rows = [line for line in beside["table"].splitlines() if " ms " in line and "  24  " in line]

    assert [row.split()[0] for row in rows] == [f"ssh://{served_edge.address}"] * 2 + ["local"] * 2
    assert ["emulated: not a measurement" in row for row in rows] == [True, True, False, False]
    # Other tests beside it are foreign load, which this machine's rows say.
    assert [bool(re.search("baseline|CI |INVALID", row)) for row in rows] == [False, False, True, True]


def test_what_loading_took_there_is_marked_too(beside: dict[str, str]) -> None:
    loads = [line for line in beside["table"].splitlines() if "before loading" in line]

    assert ["emulated: not a measurement" in load for load in loads] == [True, True, False, False]


def test_the_record_of_both_says_which_is_emulated(beside: dict[str, str]) -> None:
    record = json.loads(beside["record"])

    there, here = record["measurements"], record["beside"]["local"]["measurements"]
    assert {m["environment"]["emulated"] for m in there} == {"qemu-aarch64-static"}
    assert {m["environment"]["emulated"] for m in here} == {""}
    assert {one.get("remark", "") for one in record["summary"]} == {"emulated: not a measurement"}
    assert [m["roof"] for m in there] == [None, None]


NEEDS = "MLPerf scenarios need 'mlcommons-loadgen' on the machine that runs the engine (python3 -m venv"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--energy",), 0, "energy not measured: emulated: not a measurement"),
        (("--profile",), 0, "onnxruntime (emulated: not a measurement): ONNX Runtime's profiler"),
        (("--streams", "2"), 0, "emulated: not a measurement"),
        (("--scenario", "single-stream"), 4, f"int8 · onnxruntime: not run: {NEEDS}"),
    ],
    ids=lambda one: one[0] if isinstance(one, tuple) else None,
)
def test_every_way_to_measure_answers_where_only_numpy_and_the_engine_are(
    line: "Line", edge: Served, options: tuple[str, ...], code: int, words: str
) -> None:
    shutil.copytree(line.snapshot, ".deploykit")
    timing = () if "--scenario" in options else ("--rounds", "2", "--runs", "2")

    command = ("bench", "--device", f"ssh://{edge.address}", *timing, *options, "--warmup", "10ms")
    said = subprocess.run([sys.executable, "-m", "deploy_kit", *command], capture_output=True, text=True, timeout=120)

    assert said.returncode == code, said.stderr
    assert words in said.stdout + said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.slow
@pytest.mark.skipif(not (lazy.present("ncnn") and lazy.present("pnnx")), reason=lazy.install_line("ncnn"))
def test_a_network_of_ncnn_that_was_made_here_gives_the_same_logits_there(
    line: "Line", served_edge: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(served_edge.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    built = line.built("fp32", "ncnn")
    target = inference.InferenceTarget(engine="ncnn", path=line.store.path(built), options={})
    seen = open_set(line.recipe.check.images, built.preprocess)

    with links.connect_device(Device(name="edge", link="ssh", address=served_edge.address)) as there:
        logits = inference.infer_all(there, target, seen, built.preprocess).logits

    assert 0 < metrics.relative_difference(line.logits(), logits) < 1e-5
