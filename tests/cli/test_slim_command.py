"""``deploykit slim``: what it prints and keeps, how it ends, what it refuses."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import deploykit
from tiny_densenet import save_images, tiny_recipe

from deploy_kit import recipe
from deploy_kit.analysis import slim_budget
from deploy_kit.api import slimming
from deploy_kit.base.errors import RequestError
from deploy_kit.recipe import SlimTable
from deploy_kit.records.slimming import Price, SlimSearch
from deploy_kit.stages import slim as slim_stage
from deploy_kit.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with enough images for a budget of 10 points."""
    folder = tmp_path_factory.mktemp("slim")
    made = tiny_recipe(folder)
    save_images(folder / "check.npz", 64, seed=2)
    save_images(folder / "tune.npz", 64, seed=7)
    (folder / "tiny.yaml").write_text(recipe.dump_recipe(made))
    return folder


def slim(folder: Path, *more: str):  # type: ignore[no-untyped-def]
    given = ("--recipe", folder / "tiny.yaml", "--store", folder / "store", "--channel-step", "4", *more)
    return deploykit("slim", *given)


def test_a_share_gives_a_graph_and_later_steps_take_it(folder: Path) -> None:
    said = slim(folder, "--macs", "0.8", "--explain", "--out", str(folder / "slim.onnx"))

    assert said.code == 0
    assert "slimmed               slimmed: " in said.out
    assert "another network than the checkpoint's" in said.out
    assert "denseblock1.denselayer1  16 → " in said.out
    (row,) = [line for line in said.out.splitlines() if line.startswith("denseblock1.denselayer1")]
    before, after = row.split()[-3], row.split()[-1]
    assert 0 < float(before) < 10 and 0 < float(after) < 10
    (total,) = [line for line in said.out.splitlines() if line.startswith("denseblock1, all")]
    each = [line.split()[1:4:2] for line in said.out.splitlines() if line.startswith("denseblock1.")]
    assert total.split()[2:5:2] == [str(sum(int(row[at]) for row in each)) for at in (0, 1)]
    assert "saved where           most ms of onnxruntime, int8, " in said.out
    assert "left alone            " in said.out
    assert (folder / "slim.onnx.passport.json").is_file()
    others = save_images(folder / "others.npz", 24, seed=9)  # INT8 may have calibration images of its own
    step = ("--scheme", "int8_ort", "--calibration", str(others), "--store", str(folder / "store"))
    quantized = deploykit("quantize", "--int8", *step, "--json")
    assert quantized.code == 0
    assert "another network" in quantized.err
    assert (
        json.loads(quantized.out)["parent"]
        == json.loads((folder / "slim.onnx.passport.json").read_text())["onnx"]["sha256"]
    )


def test_an_engine_that_does_not_time_its_layers_says_so(folder: Path) -> None:
    said = slim(folder, "--macs", "0.8", "--explain", "--target", "reference")

    assert said.code == 0
    assert "no times: engine 'reference' does not time its layers" in said.out
    assert "saved where           most multiply-accumulates are saved" in said.out
    assert "layers are priced by their multiply-accumulates: 'reference' does not time its layers" in said.err


def test_multiply_accumulates_can_be_the_price_on_any_machine(folder: Path) -> None:
    said = slim(folder, "--macs", "0.8", "--price", "macs")

    assert said.code == 0
    assert "saved where           most multiply-accumulates are saved" in said.out
    assert recipe.parse_recipe(dict(Store(folder / "store").in_force().recipe)).slim.target is None  # type: ignore[union-attr]


def test_another_price_that_chooses_the_same_channels_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = slim(folder, "--macs", "0.7", "--price", "macs")
    of_macs = slim_stage.priced

    def in_ms(*things: Any, **named: Any) -> Price:
        return dataclasses.replace(of_macs(*things, **named), unit="ms", source="a planted engine")

    monkeypatch.setattr(slim_stage, "priced", in_ms)
    timed = slim(folder, "--macs", "0.7", "--price", "macs")

    assert plain.out.splitlines()[:2] == timed.out.splitlines()[:2]  # multiply-accumulates, channels
    assert "saved where           most multiply-accumulates are saved" in plain.out
    assert "saved where           most ms of a planted engine " in timed.out


def test_distilling_is_said_and_is_another_result_than_without(folder: Path) -> None:
    train = save_images(folder / "train.npz", 120, seed=11)
    plain = slim(folder, "--macs", "0.8", "--json")

    said = slim(folder, "--macs", "0.8", "--distill", str(train), "--minutes", "0.02", "--json")

    assert said.code == 0, said.err
    small = json.loads(said.out)["slimmed"]
    assert small["distilled"].startswith("distilled on 120 images, ")
    assert small["distilled"] in small["onnx"]["made_by"]["slimmed"]
    assert small["onnx"]["path"] != json.loads(plain.out)["slimmed"]["onnx"]["path"]
    in_force = recipe.parse_recipe(dict(Store(folder / "store").in_force().recipe)).slim  # type: ignore[union-attr]
    images = str(folder / "calibration.npz")
    more = {"distill": str(train), "distill_minutes": 0.02}
    assert in_force == SlimTable(macs=0.8, step=4, target="onnxruntime", images=images, **more)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (("--macs", "0.8", "--minutes", "1"), "--minutes is the time of --distill"),
        (("--max-drop", "1pt", "--tune", "t", "--distill", "d"), "a search for an accuracy budget tries many shares"),
        (("--macs", "0.8", "--distill", "no-such-folder"), "no-such-folder"),
    ],
)
def test_distilling_is_refused_where_it_cannot_be(folder: Path, flags: tuple[str, ...], error: str) -> None:
    said = slim(folder, *flags)

    assert (said.code, error in said.error) == (2, True), said.err


def test_where_nothing_is_removed_there_is_nothing_to_distil(folder: Path) -> None:
    train = save_images(folder / "train.npz", 120, seed=11)

    said = slim(folder, "--macs", "1", "--distill", str(train))

    assert (said.code, "and there is nothing to distil" in said.error) == (2, True), said.err
    assert said.fix == "  fix: ask for less, e.g. --macs 0.6, or leave out --distill"
    assert slim(folder, "--macs", "1").code == 0


def test_images_that_weights_are_refitted_to_cannot_say_what_distilling_gains(folder: Path) -> None:
    said = slim(folder, "--macs", "0.8", "--distill", str(folder / "calibration.npz"))

    assert (said.code, "20 of 20 images to distil on are ones that weights are refitted to" in said.error) == (2, True)
    assert said.fix.startswith("  fix: give other images to --distill than ")


def test_the_whole_share_puts_the_simplified_graph_back_in_force(folder: Path) -> None:
    assert slim(folder, "--macs", "0.8").code == 0

    said = slim(folder, "--macs", "1", "--json")

    assert said.code == 0
    small = json.loads(said.out)["slimmed"]
    assert small["macs_after"] == small["macs_before"]
    store = Store(folder / "store")
    assert recipe.parse_recipe(dict(store.in_force().recipe)).slim == SlimTable(
        macs=1.0, step=4, target="onnxruntime", images=str(folder / "calibration.npz")
    )  # type: ignore[union-attr]
    assert "another network" not in deploykit("build", "--engine", "onnxruntime", "--store", str(store.root)).err


def test_images_that_could_not_show_the_budget_are_refused_before_anything_computes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slim_stage, "measured", lambda *given, **named: pytest.fail("it computes"))

    said = slim(folder, "--max-drop", "1pt", "--tune", str(folder / "tune.npz"))

    assert said.code == 2
    assert said.error == "error: 64 images cannot show a drop of at most 1 points, even if no answer changed"


def test_a_budget_is_searched_on_tuning_images_and_judged_on_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slim_budget, "STEP", 0.4)

    said = slim(folder, "--max-drop", "99pt", "--tune", str(folder / "tune.npz"))

    assert said.code == 0
    assert "budget                99 points: kept" in said.out
    assert "tried                 " in said.out
    assert f"on 64 images ({folder / 'check.npz'})" in next(
        line for line in said.out.splitlines() if line.startswith("judged")
    )


def test_nothing_within_the_budget_ends_with_1_and_keeps_no_graph(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = SlimSearch(max_drop_pp=20, tried=(), chosen=None, judged=None)
    monkeypatch.setattr(slim_budget, "search", lambda *given: (none, None))

    said = slim(folder, "--max-drop", "20pt", "--tune", str(folder / "tune.npz"), "--out", str(folder / "none.onnx"))

    assert said.code == 1
    assert "budget  20 points: not kept" in said.out
    assert "answer  nothing within the budget" in said.out
    assert not (folder / "none.onnx").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "a share of the multiply-accumulates or an accuracy budget, one of the two"),
        (("--macs", "0.5", "--max-drop", "1pt"), "one of the two"),
        (("--max-drop", "1pt"), "an accuracy budget needs images that choose the share"),
        (("--macs", "0.5", "--tune", "x"), "--tune applies to --max-drop only"),
    ],
)
def test_a_request_that_says_too_little_or_too_much_is_refused(
    folder: Path, given: tuple[str, ...], words: str
) -> None:
    said = slim(folder, *given)

    assert said.code == 2
    assert words in said.error
    assert "--max-drop 0.3pt --tune FOLDER" in said.fix or "--tune FOLDER" in said.fix


def test_a_share_beyond_one_is_refused(folder: Path) -> None:
    said = slim(folder, "--macs", "1.5")

    assert said.code == 2
    assert said.error == "error: --macs: input should be less than or equal to 1, found 1.5"


def test_a_share_below_the_least_names_one_that_works(folder: Path) -> None:
    said = slim(folder, "--macs", "0.01")

    assert said.code == 2
    assert "less than what is left with the fewest channels everywhere" in said.error
    assert slim(folder, "--macs", said.fix.split("--macs ")[1].split()[0]).code == 0


@pytest.mark.parametrize(("name", "words"), [("calibration", "refitted to"), ("check", "check set")])
def test_images_for_two_purposes_are_refused(folder: Path, name: str, words: str) -> None:
    said = slim(folder, "--max-drop", "20pt", "--tune", str(folder / f"{name}.npz"))

    assert said.code == 2
    assert words in said.error


def test_a_request_is_a_share_or_a_budget() -> None:
    with pytest.raises(RequestError, match="one of the two"):
        slimming.SlimRequest(macs=None, max_drop_pp=None, tune=None, step=16)
