"""The command line under bad input: the right exit code, words with a way out, and nothing half-written or lost."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
import yaml
from command_line import Said, deploykit
from tiny_densenet import save_images, save_tiny, tiny_model

from deploy_kit import recipe
from deploy_kit.base import lazy
from deploy_kit.graph import onnx_file
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.results import ParityReport
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def contents(folder: Path) -> dict[str, str]:
    """Hash every file under a folder; the journal grows, so of it only what it began with counts."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "journal.jsonl")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def half_written(folder: Path) -> list[str]:
    """List what a stage or a copy leaves when it does not tidy up."""
    return [path.name for path in folder.rglob(".*") if path.name.startswith(".new-") or path.name.startswith(".")]


@pytest.fixture(scope="module")
def desk(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bad input beside what the cases need of good input."""
    folder = tmp_path_factory.mktemp("desk")
    whole = line.store.path(line.lean).read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    save_tiny(folder / "other.safetensors", tiny_model(seed=9))
    save_tiny(folder / "bare.safetensors", tiny_model(), preprocess=None)
    shape = onnx_file.load(line.store.path(line.lean))
    onnx_file.embed(shape, dataclasses.replace(line.lean.preprocess, height=20, width=20))
    onnx_file.save(shape, folder / "shape.onnx")
    (folder / "empty").mkdir()
    save_images(folder / "large.npz", 20, size=20, seed=3)
    (folder / "notes.txt").write_text("not a checkpoint at all\n")
    torch.save({"epoch": 3}, folder / "nothing.pth")
    data = line.recipe.model_dump(mode="json", exclude_none=True)
    (folder / "tiny.yaml").write_text(recipe.dump_recipe(line.recipe))
    write_recipe(folder / "key.yaml", data | {"bench": {"round": 3}})
    strict = {"images": data["check"]["images"], "limits": {"int8": {"min_sqnr_db": 500}}}
    write_recipe(folder / "strict.yaml", data | {"check": strict})
    write_recipe(folder / "uncalibrated.yaml", data | {"quantize": {"variants": data["quantize"]["variants"]}})
    write_recipe(folder / "gone.yaml", data | {"source": {"checkpoint": "gone.safetensors"}})
    (folder / "colon.yaml").write_text("name: a: b\n")
    return folder


def write_recipe(path: Path, data: dict[str, object]) -> None:
    path.write_text(yaml.safe_dump(data))


@dataclass(frozen=True)
class Case:
    """A command that must be refused: what is asked, and what must be said; no `fix` where the error says it all."""

    arguments: Callable[[Path, Path], list[str | Path]]
    code: int
    error: str
    fix: str


EVERY_REGION = ("stem", "denseblock1", "transition1", "denseblock2", "head")

CASES = {
    "a missing checkpoint": Case(lambda d, s: ["export", d / "no.pth"], 2, r"no\.pth: no such file", "check the path"),
    "a missing graph": Case(lambda d, s: ["quantize", d / "no.onnx", "--fp16"], 2, r"no\.onnx: no such file", "path"),
    "a text file": Case(lambda d, s: ["export", d / "notes.txt"], 2, "not a recognised checkpoint container", ""),
    "a checkpoint without weights": Case(lambda d, s: ["export", d / "nothing.pth"], 2, "no state dict found", ""),
    "a folder as checkpoint": Case(lambda d, s: ["export", d / "empty"], 2, "empty: ", ""),
    "no size of the input": Case(
        lambda d, s: ["export", d / "bare.safetensors"], 2, "does not say how large its input is", "--input"
    ),
    "half a preprocessing": Case(lambda d, s: ["export", "--mean", "0.5"], 2, "must be given together", "--mean"),
    "a size that is no number": Case(
        lambda d, s: ["export", "--input", "28", "--mean", "0", "--std", "1"], 2, "expected height and width", "--input"
    ),
    **{
        f"mean and std for pixels up to 255, {command}": Case(
            lambda d, s, command=command: [command, "demo", "--input", "28x28", "--mean", "73", "--std", "90"],
            2,
            "mean 73 and std 90 are for pixels up to 255",
            "divide both by 255: --mean 0.286275 --std 0.352941",
        )
        for command in ("export", "deploy")
    },
    "a precision that there is not": Case(
        lambda d, s: ["deploy", "demo", "--precisions", "fp32,int7"], 2, "no precision is called 'int7'", "mean 'int8'"
    ),
    "a share beyond one, deploy": Case(
        lambda d, s: ["deploy", "demo", "--slim", "1.5", "--max-drop", "1pt"], 2, r"--slim: .* to 1, found 1\.5", ""
    ),
    "no minutes": Case(
        lambda d, s: ["slim", "--macs", "0.5", "--distill", d, "--minutes=-3"], 2, r"--minutes: .* found -3\.0", ""
    ),
    "an operator set of long ago": Case(lambda d, s: ["export", "--opset", "3"], 2, r"--opset: .* found 3", ""),
    "an unknown key of a recipe": Case(
        lambda d, s: ["run", d / "key.yaml"], 2, r"recipe\.bench: unknown key 'round'", "did you mean 'rounds'"
    ),
    "a recipe that is no YAML": Case(lambda d, s: ["run", d / "colon.yaml"], 2, r"colon\.yaml: not YAML", ""),
    "a recipe whose checkpoint is not here": Case(
        lambda d, s: ["run", d / "gone.yaml"],
        2,
        r"^error: gone\.safetensors: no such file",
        "begins in the folder in which",
    ),
    "images scaled to less than the input": Case(
        lambda d, s: ["deploy", "demo", "--input", "28x28", "--resize", "20", "--mean", "0.5", "--std", "0.5"],
        2,
        r"--resize 20: expected at least 28 px",
        "--resize 28",
    ),
    "a misspelt recipe": Case(
        lambda d, s: ["run", d / "tiny.yam"], 2, r"tiny\.yam: no such recipe", r"did you mean '.*tiny\.yaml'"
    ),
    "a missing recipe": Case(lambda d, s: ["run", d / "demos.yaml"], 2, "no such recipe", "did you mean 'demo'"),
    "an unknown bundled recipe": Case(lambda d, s: ["run", "demoo"], 2, "no file 'demoo'", "did you mean 'demo'"),
    "an unknown engine": Case(
        lambda d, s: ["build", "--engine", "opnvino"], 2, "no engine is called 'opnvino'", "did you mean 'openvino'"
    ),
    "an unknown scheme": Case(
        lambda d, s: ["quantize", "--scheme", "int8_otr"], 2, "is called 'int8_otr'", "did you mean 'int8_ort'"
    ),
    "an unknown variant": Case(
        lambda d, s: ["build", "--variant", "int9"], 2, "no variant is called 'int9'", "did you mean 'int8'"
    ),
    "an option of another engine": Case(
        lambda d, s: ["build", "--compute-capability", "8.9"], 2, "unknown key 'compute_capabilities'", "threads"
    ),
    "an absent package": Case(
        lambda d, s: ["build", "--engine", "tensorrt"],
        3,
        "engine 'tensorrt' needs the package 'tensorrt', which is not installed here",
        r"pip install 'deploykit\[tensorrt\]'",
    ),
    "an unknown device to build on": Case(
        lambda d, s: ["build", "--device", "jetson"], 4, "no device is called 'jetson'", "devices add jetson ssh://"
    ),
    "an unknown device to run on": Case(
        lambda d, s: ["run", d / "tiny.yaml", "--device", "jetson"],
        4,
        "no device is called 'jetson'",
        "devices add jetson ssh://",
    ),
    "an unknown device to look at": Case(
        lambda d, s: ["doctor", "--device", "jetson"], 4, "no device is called 'jetson'", "devices add jetson ssh://"
    ),
    "a graph cut off, to export": Case(lambda d, s: ["export", d / "cut.onnx"], 2, r"cut\.onnx: ", "export it again"),
    "a graph cut off, to quantize": Case(
        lambda d, s: ["quantize", d / "cut.onnx", "--fp16"], 2, r"cut\.onnx: ", "export it again"
    ),
    "a graph cut off, to inspect": Case(lambda d, s: ["inspect", d / "cut.onnx"], 2, r"cut\.onnx: ", "export it again"),
    "a graph of another shape": Case(
        lambda d, s: ["export", d / "shape.onnx"],
        2,
        r"shape\.onnx: expected one input N×1×20×20, found input \[1, 1, 16, 16\]",
        "do not belong together",
    ),
    "an empty folder to calibrate with": Case(
        lambda d, s: ["quantize", "--int8", "--calibration", d / "empty"], 2, "at least one image, found none", "."
    ),
    "no folder to calibrate with": Case(
        lambda d, s: ["quantize", "--int8", "--calibration", d / "no"], 2, "no such file or folder", "folder of images"
    ),
    "images of another size to calibrate with": Case(
        lambda d, s: ["quantize", "--int8", "--calibration", d / "large.npz"],
        2,
        r"large\.npz: image 0: expected 16×16 px, found 20×20",
        "resize",
    ),
    "nothing to calibrate with": Case(
        lambda d, s: ["quantize", "--int8", "--recipe", d / "uncalibrated.yaml"], 2, "needs images", "--calibration"
    ),
    "noise to calibrate with": Case(
        lambda d, s: ["quantize", "--int8", "--calibration", "synthetic"], 2, "needs images", "--calibration"
    ),
    "everything in float": Case(
        lambda d, s: ["quantize", "--int8", *(f"--keep={name}" for name in EVERY_REGION)],
        2,
        "nothing is left to quantize",
        "--variant fp32",
    ),
    "times into a folder": Case(
        lambda d, s: ["bench", "--export-times", d / "empty"], 2, "expected a file to write, found a folder", "times"
    ),
    "arrivals where nothing arrives": Case(
        lambda d, s: ["bench", "--target-qps", "5"], 2, "--target-qps: scenario 'closed-loop'", "--scenario server"
    ),
    "no precision": Case(lambda d, s: ["quantize"], 2, "expected exactly one precision", "--int8"),
    "two precisions": Case(
        lambda d, s: ["quantize", "--int8", "--fp16"], 2, "expected exactly one precision", "--int8"
    ),
    "a check on the calibration set": Case(
        lambda d, s: ["check", "--images", json.loads((d / "tiny.yaml.json").read_text())],
        2,
        "20 images are both in the calibration set",
        "calibration has not seen",
    ),
    "too few rounds": Case(lambda d, s: ["bench", "--rounds", "0"], 2, r"--rounds: .* found 0$", ""),
    "a copy into no folder": Case(
        lambda d, s: ["simplify", "--out", d / "no" / "model.onnx"], 2, "no: no such folder", "mkdir -p"
    ),
    "a copy onto a folder": Case(lambda d, s: ["simplify", "--out", d / "empty"], 2, "empty: ", "--out"),
    "a store that is a file": Case(
        lambda d, s: ["export", d / "other.safetensors", "--store", d / "notes.txt"], 5, "cannot be written", "--store"
    ),
}
CASES_WITH_STORE = {"doctor": False, "inspect": False}


@pytest.fixture(scope="module")
def ended(
    line: "Line", desk: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Said, dict[str, str], Path]]:
    """Run a case once, in a store of its own: what was said, what the store held before, and where it is."""
    (desk / "tiny.yaml.json").write_text(json.dumps(line.recipe.quantize.calibration))
    done: dict[str, tuple[Said, dict[str, str], Path]] = {}

    def run(name: str) -> tuple[Said, dict[str, str], Path]:
        if name not in done:
            if name == "an absent package" and lazy.present("tensorrt"):
                pytest.skip("TensorRT is installed here")
            store = tmp_path_factory.mktemp("case") / "store"
            shutil.copytree(line.snapshot, store)
            before = contents(store)
            arguments = CASES[name].arguments(desk, store)
            if "--store" not in arguments and arguments[0] not in CASES_WITH_STORE:
                arguments += ["--store", store]
            if arguments[0] == "run":
                arguments += ["--out", store.parent / "reports"]
            done[name] = (deploykit(*arguments), before, store)
        return done[name]

    return run


every_case = pytest.mark.parametrize("name", CASES)


@every_case
def test_the_exit_code_says_what_kind_of_no_it_is(name: str, ended: Callable[[str], tuple[Said, object, Path]]) -> None:
    said, _, _ = ended(name)

    assert said.code == CASES[name].code, said.err


@every_case
def test_the_error_says_what_was_found(name: str, ended: Callable[[str], tuple[Said, object, Path]]) -> None:
    said, _, _ = ended(name)

    assert re.search(CASES[name].error, said.error), said.err


@every_case
def test_the_fix_says_what_to_do(name: str, ended: Callable[[str], tuple[Said, object, Path]]) -> None:
    said, _, _ = ended(name)

    assert re.search(CASES[name].fix, said.fix), said.err


@every_case
def test_no_trace_is_shown(name: str, ended: Callable[[str], tuple[Said, object, Path]]) -> None:
    said, _, _ = ended(name)

    assert "Traceback" not in said.err


@every_case
def test_no_result_is_printed(name: str, ended: Callable[[str], tuple[Said, object, Path]]) -> None:
    said, _, _ = ended(name)

    assert said.out == ""


@every_case
def test_nothing_is_half_written(name: str, desk: Path, ended: Callable[[str], tuple[Said, object, Path]]) -> None:
    _, _, store = ended(name)

    assert half_written(store.parent) + half_written(desk) == []


@every_case
def test_nothing_earlier_is_lost(name: str, ended: Callable[[str], tuple[Said, dict[str, str], Path]]) -> None:
    _, before, store = ended(name)

    after = contents(store)
    assert {file: after.get(file) for file in before} == before


def test_a_step_in_an_empty_store_says_where_to_begin(tmp_path: Path) -> None:
    said = deploykit("quantize", "--int8", "--store", tmp_path / "store")

    assert (said.code, "nothing was exported here yet" in said.error) == (2, True)
    assert "deploykit export" in said.fix


@pytest.mark.parametrize(
    "command", [("check",), ("check", "--all"), ("bench",), ("bench", "--all"), ("report", "-o", "out")], ids=" ".join
)
def test_a_step_that_needs_an_engine_says_how_to_build_one(
    command: tuple[str, ...], line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(line.snapshot, tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "build")
    monkeypatch.chdir(tmp_path)

    said = deploykit(*command, "--store", tmp_path / "store")

    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert (said.code, "no engine was built here yet" in said.error) == (2, True)
    assert "deploykit build" in said.fix


def test_an_unknown_command_is_a_wrong_request() -> None:
    assert deploykit("exprt").code == 2


def test_an_unknown_option_is_a_wrong_request() -> None:
    assert deploykit("export", "--opst", "18").code == 2


@pytest.mark.slow
def test_a_model_given_beside_a_recipe_is_the_one_that_is_taken(desk: Path, kept: Store) -> None:
    other = desk / "other.safetensors"

    said = deploykit("simplify", other, "--recipe", desk / "tiny.yaml", "--store", kept.root, "--json")

    assert said.code == 0, said.err
    made = codec.from_json(Artifact, json.loads(said.out)["onnx"])
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in read(kept, made).graph.initializer}
    np.testing.assert_array_equal(weights["classifier.weight"], tiny_model(seed=9).classifier.weight.numpy())


def read(store: Store, artifact: Artifact) -> onnx.ModelProto:
    return onnx.load(store.path(artifact))


@pytest.fixture(scope="module")
def strictly_checked(line: "Line", desk: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Said, Path]:
    """Check the newest engine against a limit that no int8 keeps: what was said, and the store."""
    store = tmp_path_factory.mktemp("strict") / "store"
    shutil.copytree(line.snapshot, store)
    return deploykit("check", "--recipe", desk / "strict.yaml", "--store", store), store


def test_a_limit_that_is_not_kept_is_the_answer_no(strictly_checked: tuple[Said, Path]) -> None:
    said, _ = strictly_checked

    assert said.code == 1, said.err
    assert re.search(r"accuracy +rejected: SQNR .* at least 500 asked for", said.out)


def test_the_answer_no_is_no_error(strictly_checked: tuple[Said, Path]) -> None:
    said, _ = strictly_checked

    assert "error:" not in said.err


def test_a_rejected_engine_is_not_handed_out(strictly_checked: tuple[Said, Path], desk: Path, tmp_path: Path) -> None:
    _, store = strictly_checked

    said = deploykit("build", "--recipe", desk / "strict.yaml", "--store", store, "--out", tmp_path / "engine.onnx")

    assert (said.code, "rejected by its last check" in said.error) == (2, True), said.err
    assert list(tmp_path.iterdir()) == []


def test_a_report_with_a_rejected_engine_is_the_answer_no(
    strictly_checked: tuple[Said, Path], desk: Path, tmp_path: Path
) -> None:
    _, store = strictly_checked

    said = deploykit("report", "--recipe", desk / "strict.yaml", "--store", store, "--out", tmp_path)

    assert said.code == 1, said.err


@pytest.mark.slow
def test_a_target_that_fails_after_its_build_is_no_success(
    desk: Path, kept: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploy_kit.base.errors import EngineCrashError
    from deploy_kit.stages import check

    def die(*_: object, **__: object) -> None:
        raise EngineCrashError("the worker process died in 'infer' with SIGSEGV")

    monkeypatch.setattr(check, "run", die)
    said = deploykit("run", desk / "tiny.yaml", "--store", kept.root, "--out", tmp_path)

    assert said.code == 5, said.out


@pytest.mark.slow
def test_a_scheme_that_fails_behind_its_calibration_does_not_lock_the_store(kept: Store) -> None:
    said = deploykit("quantize", "--int8", "--keep", "denseblock9", "--store", kept.root)
    assert (said.code, "denseblock9" in said.error) == (2, True), said.err

    said = deploykit("quantize", "--int8", "--store", kept.root)

    assert said.code == 0, said.err


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module", params=[(os, "fsync"), (Path, "rename"), (onnx_file, "save")], ids=lambda at: at[1])
def on_a_full_disk(
    request: pytest.FixtureRequest, line: "Line", tmp_path_factory: pytest.TempPathFactory
) -> tuple[Said, dict[str, str], Path]:
    """Quantize on a disk that is full when the record, the folder or the graph is written: said, before, store."""
    store = tmp_path_factory.mktemp("full") / "store"
    shutil.copytree(line.snapshot, store)
    before = contents(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*request.param, full)
        said = deploykit("quantize", "--fp16", "--store", store)
    return said, before, store


@pytest.mark.slow
def test_a_full_disk_is_a_failed_stage_with_a_way_out(on_a_full_disk: tuple[Said, object, Path]) -> None:
    said, _, _ = on_a_full_disk

    assert (said.code, "no space left on the disk" in said.error) == (5, True), said.err
    assert "free some space" in said.fix


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_leaves_nothing_half_written(
    on_a_full_disk: tuple[Said, dict[str, str], Path],
) -> None:
    _, before, store = on_a_full_disk

    assert (contents(store), half_written(store)) == (before, [])


@pytest.mark.slow
def test_after_a_full_disk_the_same_command_works(line: "Line", kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        deploykit("quantize", "--fp16", "--store", kept.root)

    said = deploykit("quantize", "--fp16", "--store", kept.root)

    assert said.code == 0, said.err


@pytest.mark.slow
def test_with_a_journal_on_a_full_disk_results_are_read_and_none_is_made(desk: Path, kept: Store) -> None:
    journal = kept.root / "journal.jsonl"
    journal.unlink()
    journal.symlink_to("/dev/full")

    read = deploykit("simplify", "--recipe", desk / "tiny.yaml", "--store", kept.root)
    made = deploykit("quantize", "--fp16", "--recipe", desk / "tiny.yaml", "--store", kept.root)

    assert read.code == 0, read.err
    assert (made.code, "no space left on the disk" in made.error) == (5, True), made.err


def test_a_full_disk_during_a_copy_is_a_failed_stage(
    kept: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "copyfile", full)

    said = deploykit("simplify", "--store", kept.root, "--out", tmp_path / "model.onnx")

    assert (said.code, "Traceback" in said.err) == (5, False), said.err


def test_a_full_disk_during_a_copy_keeps_the_file_that_was_there(
    kept: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"the earlier one")
    monkeypatch.setattr(shutil, "copyfile", full)

    deploykit("simplify", "--store", kept.root, "--out", tmp_path / "model.onnx")

    assert (tmp_path / "model.onnx").read_bytes() == b"the earlier one"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def limited() -> None:
    """Let no file grow beyond 8 kB: writing fails in the middle, here and in every worker."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def started(*arguments: str | Path, **options: object) -> "subprocess.Popen[str]":
    """Start the real command in a process of its own."""
    command = [sys.executable, "-m", "deploy_kit", *map(str, arguments)]
    first = options.pop("preexec_fn", None)

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are started with it ignored
        if callable(first):
            first()

    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=prepare, **options
    )  # type: ignore[call-overload]


def finished(process: "subprocess.Popen[str]") -> Said:
    out, err = process.communicate(timeout=300)
    return Said(process.returncode, out, err)


@pytest.fixture(scope="module")
def cut_short(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> tuple[Said, dict[str, str], Path]:
    """The real command on a disk that takes no more: what was said, what the store held before, and where it is."""
    store = tmp_path_factory.mktemp("limit") / "store"
    shutil.copytree(line.snapshot, store)
    os.truncate(store / "journal.jsonl", 0)
    (store / "journal.jsonl").write_text((line.snapshot / "journal.jsonl").read_text().splitlines()[-1] + "\n")
    before = contents(store)
    plain = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # half a .pyc would stay, and be taken for a whole one
    process = started("quantize", "--bf16", "--store", store, preexec_fn=limited, env=plain)
    return finished(process), before, store


@pytest.mark.slow
def test_a_write_that_stops_in_the_middle_is_a_failed_stage(cut_short: tuple[Said, object, Path]) -> None:
    assert cut_short[0].code == 5, cut_short[0].err


@pytest.mark.slow
def test_a_write_that_stops_in_the_middle_comes_with_a_way_out(cut_short: tuple[Said, object, Path]) -> None:
    assert cut_short[0].fix, cut_short[0].err


@pytest.mark.slow
def test_a_write_that_stops_in_the_middle_leaves_the_store_as_it_was(
    cut_short: tuple[Said, dict[str, str], Path],
) -> None:
    _, before, store = cut_short

    assert (contents(store), half_written(store)) == (before, [])


@dataclass(frozen=True)
class Interrupted:
    """A real run that was interrupted: how it ended, its workers, and its store."""

    said: Said
    workers: tuple[int, ...]
    before: dict[str, str]
    store: Path


def children(pid: int) -> tuple[int, ...]:
    return tuple(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def words(pid: int) -> str:
    """Give the command line of a process; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def interrupt(line: "Line", store: Path, word: str, *arguments: str) -> Interrupted:
    """Start a command, wait until it says `word` and has a worker, and interrupt it as Ctrl-C does."""
    shutil.copytree(line.snapshot, store)
    before = contents(store)
    process = started(*arguments, "--store", store)
    assert process.stderr is not None
    heard = []
    for text in process.stderr:
        heard.append(text)
        if word in text:
            break
    workers: tuple[int, ...] = ()
    while not any("deploy_kit.programs.worker" in words(pid) for pid in workers) and process.poll() is None:
        time.sleep(0.02)
        workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    said = finished(process)
    return Interrupted(Said(said.code, said.out, "".join(heard) + said.err), workers, before, store)


@pytest.fixture(scope="module", params=["quantize", "bench"])
def interrupted(
    request: pytest.FixtureRequest, line: "Line", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Interrupted]:
    """Interrupt a stage in the middle of its write, and one in the middle of its measurements."""
    store = tmp_path_factory.mktemp("interrupted") / "store"
    if request.param == "quantize":
        yield interrupt(line, store, "scheme int8_tensorrt", "quantize", "--int8", "--layout", "tensorrt")
    else:
        yield interrupt(line, store, "in turns", "bench", "--rounds", "100000", "--warmup", "0.01")


@pytest.mark.slow
def test_an_interruption_has_its_own_exit_code(interrupted: Interrupted) -> None:
    assert interrupted.said.code == 130, interrupted.said.err


@pytest.mark.slow
def test_an_interruption_shows_no_trace(interrupted: Interrupted) -> None:
    assert "Traceback" not in interrupted.said.err


@pytest.mark.slow
def test_an_interruption_says_that_nothing_is_half_written(interrupted: Interrupted) -> None:
    assert "interrupted: nothing is half-written" in interrupted.said.err


@pytest.mark.slow
def test_an_interruption_leaves_no_worker_behind(interrupted: Interrupted) -> None:
    assert interrupted.workers
    for _ in range(250):
        if not any(map(running, interrupted.workers)):
            break
        time.sleep(0.02)

    assert [pid for pid in interrupted.workers if running(pid)] == []


@pytest.mark.slow
def test_an_interruption_leaves_the_store_as_it_was(interrupted: Interrupted) -> None:
    found, before = contents(interrupted.store), interrupted.before
    # What calibration has observed by then is a result of its own, and stays.
    new = {path.split("/")[0] for path in found.keys() - before.keys()}

    assert {path: found.get(path) for path in before} == before
    assert (new & {"quantize", "bench"}, half_written(interrupted.store)) == (set(), [])


@pytest.mark.slow
def test_a_store_can_be_used_after_an_interruption(interrupted: Interrupted) -> None:
    said = deploykit("check", "--store", interrupted.store)

    assert said.code == 0, said.err
    assert Store(interrupted.store).all(ParityReport, "check")


@pytest.mark.slow
def test_a_command_that_is_terminated_unwinds(kept: Store, tmp_path: Path) -> None:
    before = contents(kept.root)
    process = started(
        "bench",
        "--rounds",
        "100000",
        "--warmup",
        "0.01",
        "--store",
        kept.root,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stderr is not None
    heard = next(text for text in process.stderr if "in turns" in text)
    process.send_signal(signal.SIGTERM)

    said = finished(process)

    assert (said.code, "Traceback" in heard + said.err) == (143, False), said.err
    assert (contents(kept.root), half_written(kept.root), list(tmp_path.glob("deploykit-*"))) == (before, [], [])


@pytest.mark.slow
def test_a_reader_that_goes_away_is_not_told_no(line: "Line") -> None:
    process = started("inspect", line.store.path(line.lean))
    assert process.stdout is not None
    process.stdout.close()

    code = process.wait(timeout=300)

    assert process.stderr is not None
    assert (code, "Traceback" in process.stderr.read()) == (141, False)
    process.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code"), [(["export", "no.pth"], 2), (["build", "--device", "jetson"], 4)])
def test_the_real_command_ends_with_the_same_code(arguments: list[str], code: int, kept: Store) -> None:
    said = finished(started(*arguments, "--store", kept.root))

    assert (said.code, said.error.startswith("error: "), said.fix.startswith("  fix: ")) == (code, True, True)
