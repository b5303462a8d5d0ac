"""``deploy``: one command from a checkpoint to named files, a table of 80 columns and a recommendation."""

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from command_line import Said, deploykit
from report_records import artifact, everything, made, measurement, parity, row
from tiny_densenet import save_images, save_tiny, tiny_model

from deploy_kit import recipe
from deploy_kit.analysis import slim_budget
from deploy_kit.analysis.recommendation import recommend
from deploy_kit.api import line
from deploy_kit.base.errors import InputError
from deploy_kit.cli import _deployment, _quantities
from deploy_kit.recipe import overrides, targets
from deploy_kit.records import codec
from deploy_kit.records.measurements import NotRun
from deploy_kit.records.parity import Drop
from deploy_kit.records.passports import read_passport
from deploy_kit.records.recommendation import Budgets
from deploy_kit.records.results import Limits, Report
from deploy_kit.stages import deliver


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, and images to calibrate and to check with."""
    folder = tmp_path_factory.mktemp("deploy")
    save_tiny(folder / "best.safetensors", tiny_model())
    save_images(folder / "calib.npz", 20, seed=1)
    save_images(folder / "val.npz", 24, seed=2, known_to=tiny_model())
    return folder


def deploy(desk: Path, *more: str | Path) -> Said:
    given = ("--images", desk / "val.npz", "--calibration", desk / "calib.npz", "--engines", "onnxruntime")
    given = (*given, "--store", desk / "store", "--allow-invalid")
    return deploykit("deploy", desk / "best.safetensors", *given, *more)


def hurry(patch: pytest.MonkeyPatch, runs: int) -> None:
    """Let the default recipe take the faster exporter and a short bench."""
    load, base = recipe.load_recipe, recipe.load_recipe("default")
    bench = base.bench.model_copy(update={"rounds": 6, "runs": runs, "warmup_s": 0.05})
    quick = base.model_copy(
        update={"bench": bench, "export": base.export.model_copy(update={"exporter": "torchscript"})}
    )
    patch.setattr(recipe, "load_recipe", lambda name: quick if name == "default" else load(name))


@pytest.fixture(scope="module")
def deployed(desk: Path) -> Said:
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch, runs=20)
        return deploy(desk, "-o", desk / "out", "--save-recipe", desk / "done.yaml", "--pack", desk / "bundle")


@pytest.mark.slow
def test_it_ends_with_a_table_that_fits_a_recommendation_and_the_files(deployed: Said, desk: Path) -> None:
    assert deployed.code == 0, deployed.err
    table = deployed.out.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "int8@onnxruntime" in table
    assert "recommended: " in deployed.out
    assert "limits of int8: SQNR ≥ 15 dB" in deployed.out
    assert str(desk / "out" / "best-int8.onnx") in deployed.out
    assert "step 1 of 9" in deployed.err


@pytest.mark.slow
def test_files_have_speaking_names_and_passports_that_are_read_wherever_they_lie(
    deployed: Said, desk: Path, tmp_path: Path
) -> None:
    names = {path.name for path in (desk / "out").iterdir()}
    assert {"best-fp32.onnx", "best-int8.onnx", "best-int8.onnx.passport.json", "report.json", "report.md"} <= names
    for name in ("best-int8.onnx", "best-int8.onnx.passport.json"):
        shutil.copy(desk / "out" / name, tmp_path / name)

    passport = read_passport(tmp_path / "best-int8.onnx")

    assert passport is not None and passport.origin is not None
    assert passport.origin.accuracy.startswith("accepted (SQNR ≥ 15 dB)")
    assert passport.origin.n_images == 24
    assert onnx.load(tmp_path / "best-int8.onnx").graph.node


@pytest.mark.slow
def test_a_checkpoint_that_scores_low_is_accepted_in_no_precision_unless_no_more_is_expected(
    desk: Path, tmp_path: Path
) -> None:
    save_images(tmp_path / "other.npz", 24, seed=2)  # labels that the checkpoint does not know
    given = ("--images", tmp_path / "other.npz", "-o", tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch, runs=20)
        low, expected = deploy(desk, *given), deploy(desk, *given, "--min-top1", "1%")

    said = low.err.index("export: the checkpoint itself is right on only")
    assert low.err.index("answers on") < said < low.err.index("simplify: ")  # before the long work
    assert low.code == 6
    assert len(re.findall(r"^(?:fp32|int8)@onnxruntime .* undecided$", low.out, re.MULTILINE)) == 2
    assert "files   " not in low.out
    assert expected.code == 0, expected.out
    assert "right on only" not in expected.err + expected.out
    assert (tmp_path / "out" / "best-fp32.onnx").is_file()


@pytest.mark.slow
def test_the_recommended_engine_is_packed(deployed: Said, desk: Path) -> None:
    winner = deployed.out.partition("recommended: ")[2].partition("@")[0]

    manifest = json.loads((desk / "bundle" / "manifest.json").read_text())

    assert manifest["name"].startswith(f"best-{winner}")
    assert f"bundle  {desk / 'bundle'}" in deployed.out


@pytest.mark.slow
@pytest.mark.usefixtures("deployed")
def test_where_no_engine_is_recommended_the_bundle_that_was_asked_for_is_said_to_be_none(
    desk: Path, tmp_path: Path
) -> None:
    done = recipe.load_recipe(str(desk / "done.yaml"))
    small = done.model_copy(update={"recommend": done.recommend.model_copy(update={"max_size_mb": 0.001})})
    (tmp_path / "small.yaml").write_text(recipe.dump_recipe(small))
    place = ("--store", desk / "store", "--out", tmp_path, "--allow-invalid", "-q")

    said = deploykit("run", tmp_path / "small.yaml", *place, "--pack", tmp_path / "bundle")

    assert (
        "bundle  none: no engine is recommended; to pack one all the same:\n        deploykit pack --engine" in said.out
    )
    assert not (tmp_path / "bundle").exists()
    assert said.code in (1, 6)  # 6 where latencies are invalid: what was asked for is not there in either case
    line = next(line for line in said.out.splitlines() if "deploykit pack" in line)
    assert deploykit(*shlex.split(line)[1:]).code == 0  # as it is shown
    assert (tmp_path / "bundle" / "manifest.json").is_file()


@pytest.mark.slow
def test_the_recipe_that_it_saves_is_what_was_done(deployed: Said, desk: Path, tmp_path: Path) -> None:
    again = deploykit(
        "run", desk / "done.yaml", "--store", desk / "store", "--out", tmp_path, "--allow-invalid", "--json"
    )

    report = codec.from_json(Report, json.loads(again.out))
    assert all(time.reused for time in report.times), report.times
    assert [r.label for r in report.rows] == ["fp32 · onnxruntime", "int8 · onnxruntime"]


@pytest.mark.slow
@pytest.mark.usefixtures("deployed")
def test_another_preprocessing_is_not_delivered_among_the_files_of_the_first_one(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, runs=4)

    said = deploy(desk, "-o", desk / "out", "--mean", "0.4", "--std", "0.4", "--precisions", "fp32")

    assert (said.code, "best-int8.onnx: is for another preprocessing" in said.error) == (2, True), said.err
    assert f"rm {desk / 'out' / 'best-int8.onnx'}" in said.fix
    assert "answers on" not in said.err


@pytest.mark.slow
def test_a_file_of_the_users_own_is_not_replaced_and_nothing_is_done(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "best-int8.onnx").write_bytes(b"mine")

    said = deploy(desk, "-o", tmp_path, "--fresh")

    assert (said.code, said.error) == (
        2, f"error: {tmp_path / 'best-int8.onnx'}: exists, and was not written by deploykit"
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["best-int8.onnx"]


def test_a_checkpoint_that_is_not_there_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    said = deploykit("deploy", "none.pth", "--engines", "onnxruntime")

    assert (said.code, said.err.splitlines()[0]) == (2, "error: none.pth: no such file")  # neither a note nor a step
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [(), ("--dynamic",)])
def test_a_graph_for_any_batch_is_exported_where_it_is_asked_for(
    desk: Path, given: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[recipe.Recipe]()

    def run(chosen: recipe.Recipe, *more: object, **options: object) -> int:
        asked.append(chosen)
        return 0

    monkeypatch.setattr(_deployment, "run", run)

    assert deploy(desk, *given).code == 0
    assert [one.export.dynamic for one in asked] == [bool(given)]


@pytest.mark.parametrize("precisions", ["int8", "fp32,int8"])
def test_int8_without_images_to_calibrate_with_is_refused_before_any_work(
    desk: Path, tmp_path: Path, precisions: str
) -> None:
    given = ("--images", desk / "val.npz", "--engines", "onnxruntime", "--precisions", precisions, "--max-drop", "1pt")

    said = deploykit("deploy", desk / "best.safetensors", *given, "--store", tmp_path / "store", "-o", tmp_path / "out")

    assert said.code == 2 and "needs images to calibrate with" in said.error and "--calibration FOLDER" in said.fix
    assert "step 1" not in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_engine_is_refused_with_the_nearest(desk: Path) -> None:
    said = deploykit("deploy", desk / "best.safetensors", "--engines", "openvno")

    assert (said.code, said.fix) == (2, "  fix: did you mean 'openvino'?")


@pytest.mark.parametrize(
    ("text", "mb"), [("10MB", 10.0), ("500kB", 0.5), ("0.5 GB", 500.0), ("7.5MB", 7.5), (None, None)]
)
def test_sizes_are_read_with_their_unit(text: str | None, mb: float | None) -> None:
    assert _quantities.megabytes("--max-size", text) == mb


@pytest.mark.parametrize("text", ["10", "0MB", "10MiB", "-1MB", "ten"])
def test_a_size_without_its_unit_is_refused(text: str, desk: Path) -> None:
    said = deploykit("deploy", desk / "best.safetensors", "--max-size", text)

    assert (said.code, said.fix) == (2, "  fix: e.g. --max-size 10MB")


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (_quantities.millijoules, "40mJ", 40.0),
        (_quantities.millijoules, "0.04 J", 40.0),
        (_quantities.watts, "7500mW", 7.5),
        (_quantities.watts, "10W", 10.0),
    ],
)
def test_energies_and_powers_are_read_with_their_unit(
    read: Callable[[str, str], float | None], text: str, value: float
) -> None:
    assert read("--max-it", text) == value


@pytest.mark.parametrize(
    ("flag", "text", "example"),
    [("--max-energy", "40", "40mJ"), ("--max-energy", "40W", "40mJ"), ("--max-power", "10", "10W")],
)
def test_an_energy_or_power_without_its_unit_is_refused(flag: str, text: str, example: str, desk: Path) -> None:
    said = deploykit("deploy", desk / "best.safetensors", flag, text)

    assert (said.code, said.fix) == (2, f"  fix: e.g. {flag} {example}")


def test_a_budget_of_power_measures_it() -> None:
    made = overrides.with_limits(overrides.for_checkpoint("a/best.pth"), max_power_w=10)

    assert (made.recommend.max_power_w, made.bench.energy) == (10, True)


def test_limits_of_the_command_line_are_in_the_recipe() -> None:
    made = overrides.with_limits(
        overrides.for_checkpoint("a/best.pth"), max_drop=0.3, latency_budget_ms=8, max_size_mb=10
    )

    assert (made.name, made.bench.latency_budget_ms, made.recommend.max_size_mb) == ("best", 8, 10)
    drops = {precision: limits.max_drop for precision, limits in made.check.limits.items()}
    assert drops == {"fp32": None, "fp16": 0.3, "bf16": 0.3, "int8": 0.3}
    assert recipe.parse_recipe(made.model_dump(mode="json", exclude_none=True)) == made


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("runs/best.pth", "best"),
        ("bundled:demo_net", "demo_net"),
        ("my net (3).pth", "my-net-3-"),
        ("-.pth", "default"),
        ("best.pth.tar", "best"),
        ("net.v2.safetensors", "net.v2"),
    ],
)
def test_a_checkpoint_gives_its_name_to_the_recipe(name: str, called: str) -> None:
    assert overrides.name_of(name) == called


@pytest.mark.parametrize(
    ("engine", "accelerator", "calibrated", "found"),
    [
        ("onnxruntime", "cpu", True, ("fp32", "int8")),
        ("openvino", "cpu", False, ("fp32",)),
        ("openvino", "GPU", True, ("fp32", "fp16", "int8")),
        ("tensorrt", "cuda:0", True, ("fp32", "fp16", "int8")),
    ],
)
def test_an_engine_is_built_in_the_precisions_that_gain_there(
    engine: str, accelerator: str, calibrated: bool, found: tuple[str, ...]
) -> None:
    assert targets.find_target(engine).precisions((), accelerator, calibrated=calibrated) == found


def test_the_table_fits_80_columns_with_the_longest_names() -> None:
    timed = measurement("int8 · onnxruntime", (123.456,) * 2000)
    rows = [row("int8", "onnxruntime", measurement=dataclasses.replace(timed, invalid=("a",)))]

    assert max(map(len, _deployment.summary_table(rows).splitlines())) <= 80


def test_invalid_latencies_that_are_allowed_leave_the_smallest_accurate_engine_to_be_packed() -> None:
    timed = dataclasses.replace(measurement("fp32 · onnxruntime", (1.0,) * 2000), invalid=("foreign load",))
    large = row("fp32", "onnxruntime", measurement=timed, artifact=dataclasses.replace(artifact("fp32"), size_bytes=9))
    small = row("int8", "onnxruntime", measurement=timed, artifact=dataclasses.replace(artifact("int8"), size_bytes=2))
    wrong = row("mix", "onnxruntime", measurement=timed, artifact=dataclasses.replace(artifact("mix"), size_bytes=1))
    wrong = dataclasses.replace(wrong, parity=parity("mix · onnxruntime", limits=Limits(min_sqnr_db=99)))
    rows = (large, small, wrong)
    found = made(*rows, recommendation=recommend(rows, Budgets()))
    within = made(*rows, recommendation=recommend(rows, Budgets(latency_ms=1)))

    assert _deployment._to_pack(found, allow_invalid=True) is small
    assert _deployment._to_pack(found, allow_invalid=False) is None
    assert "-o mine\n        or the same command again with --allow-invalid" in _deployment._unpacked(
        found, ["-o", "mine"]
    )
    assert "--allow-invalid" not in _deployment._unpacked(within, ["-o", "mine"])
    assert _deployment._to_pack(within, allow_invalid=True) is None  # a budget of latency cannot be judged


def test_the_checkpoint_s_own_score_stands_above_the_limits() -> None:
    text = _deployment.text(made(row("int8", "onnxruntime")), Path("report.md"))

    assert "\n\ncheckpoint: 93.00 % top-1 on 100 images of bundled:some\nlimits of int8: SQNR ≥ 20 dB\n" in text


def test_where_a_latency_is_not_valid_the_cure_is_named() -> None:
    timed = measurement("int8 · onnxruntime", (1.0,) * 2000)
    invalid = dataclasses.replace(timed, invalid=("foreign load",))
    doubtful, sound = (made(row("int8", "onnxruntime", measurement=one)) for one in (invalid, timed))
    again = "measure again: deploykit bench --all"

    assert f"\n\nfix: remove the cause and {again}\n\n" in _deployment.text(doubtful, Path("report.md"), again=again)
    assert "fix: " not in _deployment.text(sound, Path("report.md"), again=again)
    assert "fix: " not in _deployment.text(doubtful, Path("report.md"))  # a record alone measures nothing


def test_the_table_has_every_column_on_80_and_leaves_out_what_was_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    drop = Drop(what="top-1", points=-0.01, low=-0.16, high=0.14)
    ran = row(
        "int8-ort", "onnxruntime", parity=parity("int8-ort · onnxruntime", drop=drop),
        measurement=measurement("int8-ort · onnxruntime", (0.536,) * 2000),
    )  # fmt: skip
    absent = NotRun(artifact="d", label="int8-tensorrt · tensorrt_rtx", why="no NVIDIA GPU")
    left = row("int8-tensorrt", "tensorrt_rtx", parity=absent, measurement=absent)

    lines = _deployment.summary_table([ran, left]).splitlines()

    assert lines[0].split() == ["engine", "size", "drop", "in", "points", "p50", "speed-up", "verdict"]
    assert [line.split()[0] for line in lines[2:]] == ["int8-ort@onnxruntime"]
    assert "-0.01 [-0.16, 0.14]" in lines[2]
    assert max(map(len, lines)) <= 80
    assert "int8-tensorrt@tensorrt_rtx: not run" in _deployment.text(made(ran, left), Path("report.md"))


def test_what_a_reviewer_needs_besides_stands_in_a_second_table_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    label = "int8-tensorrt · tensorrt_rtx"
    timed = dataclasses.replace(measurement(label, (123.456,) * 2000), invalid=("a",))
    ran = row("int8-tensorrt", "tensorrt_rtx", parity=parity(label), measurement=timed)

    table = _deployment.text(made(ran), Path("report.md")).split("\n\n")[1].splitlines()

    assert table[0].split() == ["engine", "top-1", "agreement", "SQNR", "p99"]
    assert re.split(r"  +", table[2]) == [
        "int8-tensorrt@tensorrt_rtx", "92.50 %", "97.00 %", "31.4 dB", "123.456 ms (INVALID)"
    ]  # fmt: skip
    assert max(map(len, table)) <= 80


@pytest.mark.parametrize(
    ("store", "device", "line"),
    [
        (".deploykit", "local", "deploykit bench --all"),
        ("my store", "jetson", "deploykit bench --all --store 'my store' --device jetson"),
    ],
)
def test_the_command_that_measures_longer_names_where_the_engines_are(store: str, device: str, line: str) -> None:
    timed = measurement("int8 · onnxruntime", (1.0,) * 9)
    kept = dataclasses.replace(
        made(row("int8", "onnxruntime", measurement=timed, parity=parity("int8"))), device=device
    )

    text = _deployment.text(kept, Path("report.md"), again="measure again", store=Path(store))

    assert f":\n  {line} --min-iters 1000\n" in text


@pytest.mark.parametrize(("n", "said"), [(999, True), (1000, False)])
def test_a_p99_of_too_few_samples_is_said_to_need_more(n: int, said: bool) -> None:
    timed = measurement("int8 · onnxruntime", (1.0,) * n)

    text = _deployment.more_numbers([row("int8", "onnxruntime", measurement=timed)], longer="deploykit bench --all")

    wanted = "\np99 is known from 1,000 samples on:\n  deploykit bench --all --min-iters 1000"
    assert text.endswith(wanted) is said
    alone = _deployment.more_numbers([row("int8", "onnxruntime", measurement=timed)])
    assert alone.endswith("\np99 is known from 1,000 samples on") is said


def test_every_reason_is_below_the_table() -> None:
    found = everything()
    found = dataclasses.replace(found, recommendation=recommend(found.rows, Budgets(latency_ms=8)))

    text = " ".join(_deployment.text(found, Path("report.md")).split())

    assert "budgets: latency ≤ 8 ms" in text
    assert "recommended within latency ≤ 8 ms: int8@onnxruntime: the only one that qualifies" in text
    assert "int8@openvino: rejected: SQNR 10 dB, at least 20 asked for" in text
    assert "bf16@onnxruntime: failed: it has no bfloat16" in text
    assert "note: this is a remark" in text


def test_two_engines_whose_files_end_alike_are_told_apart_by_the_engine() -> None:
    one, two = (artifact("fp16", engine, path=f"build/{engine}/model.plan") for engine in ("tensorrt", "tensorrt_rtx"))

    assert deliver._names("best", (one, two)) == {
        "fp16 · tensorrt": "best-fp16-tensorrt.plan", "fp16 · tensorrt_rtx": "best-fp16-tensorrt_rtx.plan"
    }  # fmt: skip


def test_a_report_of_another_checkpoint_is_not_replaced(tmp_path: Path) -> None:
    from deploy_kit.cli import _output_files
    from deploy_kit.stages import report

    report.run(made(row("fp32", "onnxruntime", parity=parity("fp32 · onnxruntime"))), tmp_path)

    with pytest.raises(InputError, match=r"is the report of another checkpoint: some\.pth"):
        _output_files.verify_report_folder(tmp_path, "runs/other.pth")
    _output_files.verify_report_folder(tmp_path, "some.pth")
    _output_files.verify_report_folder(tmp_path / "new", "other.pth")


@pytest.mark.slow
def test_without_images_to_calibrate_with_no_int8_comes_and_that_is_said(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, runs=4)
    given = ("--images", desk / "val.npz", "--engines", "onnxruntime", "--store", desk / "store", "--allow-invalid")

    said = deploykit("deploy", desk / "best.safetensors", *given, "-o", tmp_path / "out")

    assert "no images to calibrate with are given: a float network gets no INT8 (--calibration FOLDER)" in said.err
    assert "fp32@onnxruntime" in said.out and "int8@onnxruntime" not in said.out


def test_a_command_that_fails_leaves_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    for arguments in (("check",), ("bench",), ("report",), ("export", "none.pth"), ("lint",), ("quantize", "--int8")):
        assert deploykit(*arguments).code in (2, 5), arguments
        assert list(tmp_path.iterdir()) == [], arguments


def test_slimming_without_a_limit_on_the_drop_is_refused(desk: Path) -> None:
    said = deploy(desk, "--slim", "0.8")

    assert said.code == 2
    assert "nothing says what it may lose" in said.error
    assert "--max-drop 0.5pt" in said.fix


@pytest.mark.parametrize(
    ("given", "words", "fix"),
    [
        (("--slim", "auto", "--max-drop", "1pt"), "needs images that choose", "--tune FOLDER"),
        (("--slim", "0.6", "--max-drop", "1pt", "--tune", "x"), "--tune applies to --slim auto only", "--slim auto"),
        (("--slim", "half", "--max-drop", "1pt"), "a share of the multiply-accumulates or auto, found 'half'", "0.6"),
        (("--slim", "auto", "--tune", "x"), "nothing says what it may lose", "--max-drop 0.5pt"),
    ],
)
def test_what_slim_does_not_take_is_refused(desk: Path, given: tuple[str, ...], words: str, fix: str) -> None:
    said = deploy(desk, *given)

    assert said.code == 2
    assert words in said.error
    assert fix in said.fix


@pytest.mark.slow
def test_a_searched_deployment_is_slimmed_quantized_and_reports_its_search(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, runs=5)
    find = targets.find_target
    monkeypatch.setattr(targets, "find_target", lambda name: dataclasses.replace(find(name), channels=4))
    monkeypatch.setattr(line, "_MEASURED_S", 0.1)
    monkeypatch.setattr(slim_budget, "STEP", 0.4)
    save_images(desk / "tune.npz", 64, seed=7)

    said = deploy(desk, "--slim", "auto", "--max-drop", "99pt", "--tune", desk / "tune.npz", "-o", desk / "searched")

    assert said.code == 0, said.err
    found = codec.from_json(Report, json.loads((desk / "searched" / "report.json").read_text()))
    (search,) = found.slim_searches
    assert search.found
    assert {trial.precision for trial in search.compared} == {"fp32", "int8"}
    assert all(trial.ms is not None and trial.engine == "onnxruntime" for trial in search.compared)
    page = (desk / "searched" / "report.html").read_text()
    assert 'id="slimming"' in page


def test_a_slimmed_deployment_is_judged_by_the_drop_alone() -> None:
    made = overrides.with_slim_within(recipe.load_recipe("default"), 0.6, 0.5)

    assert made.slim is not None
    assert (made.slim.macs, made.slim.step) == (0.6, 16)
    assert set(made.check.limits) == {"fp32", "fp16", "bf16", "int8"}
    for limits in made.check.limits.values():
        assert limits.model_dump(exclude_none=True) == {"max_drop": 0.5}


@pytest.mark.parametrize("option", ["--images", "--calibration"])
def test_images_that_are_not_there_are_missed_before_the_export(desk: Path, tmp_path: Path, option: str) -> None:
    given = {"--images": desk / "val.npz", "--calibration": desk / "calib.npz", option: tmp_path / "nowhere"}
    words = [word for pair in given.items() for word in pair]

    said = deploykit("deploy", desk / "best.safetensors", *words, "--store", tmp_path / "store")

    assert (said.code, said.error) == (2, f"error: {tmp_path / 'nowhere'}: no such file or folder")
    assert "export" not in said.err
    assert not (tmp_path / "store").exists()


def test_images_of_another_size_are_refused_before_the_exporter_works(desk: Path, tmp_path: Path) -> None:
    save_images(tmp_path / "large.npz", 4, seed=3, size=48)

    said = deploykit("deploy", desk / "best.safetensors", "--images", tmp_path / "large.npz", "--store", tmp_path / "s")

    assert said.code == 2
    assert "px, found 48×48" in said.error
    assert "--resize" in said.fix
    assert "exporter" not in said.err
