"""Tests of the choice of method and rounding: each candidate can win, chance cannot, and what is said."""

import math
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from dense_graphs import Sketch, batches

from deploy_kit.graph import onnx_file
from deploy_kit.quantization.int8 import method_choice, observation
from deploy_kit.quantization.int8.method_choice import OpenChoice
from deploy_kit.quantization.int8.observation import CalibrationContext, ImageStream
from deploy_kit.quantization.int8.plan import Int8Choices, Int8Plan
from deploy_kit.quantization.int8.range_selection import RangeMethod

OPEN = OpenChoice(method=True, rounding=True)
DEFAULT = Int8Choices(
    passes=("relu_after_pool", "batchnorm_to_max"), rounding="descent", ranging=RangeMethod(method="mse")
)


class Desk:
    """A float graph, its images, and a writer whose graphs are off at the logits by a planted amount."""

    def __init__(self, folder: Path, n: int = 64) -> None:
        sketch = Sketch()
        self.model = sketch.model(sketch.network())
        self.source, self.x, self.said = folder / "float.onnx", sketch.images(n), dict[str, str]()
        onnx_file.save(self.model, self.source)
        self.off: dict[tuple[str, str], float] = {}
        self.written: list[tuple[str, str, int]] = []

    def write(self, plan: Int8Plan) -> ir.Model:
        name = (plan.choices.ranging.method, plan.choices.rounding)
        self.written.append((*name, plan.n_images))
        model = onnx_file.load(self.source)
        gemm = next(node for node in model.graph if node.op_type == "Gemm")
        bias = gemm.inputs[2]
        values = bias.const_value.numpy() + np.float32(self.off.get(name, 1.0))
        bias.const_value = ir.Tensor(values, name=bias.name)
        return model

    def chosen(self, left: OpenChoice = OPEN, choices: Int8Choices = DEFAULT) -> tuple[str, str]:
        context = CalibrationContext(note=self.said.__setitem__)
        images = ImageStream(n=len(self.x), batches=lambda: batches(self.x), context=context)
        found = method_choice.choose(self.source, choices, left, images, self.write)
        return found.ranging.method, found.rounding


@pytest.mark.parametrize("rounding", ["nearest", "descent"])
@pytest.mark.parametrize("method", ["mse", "minmax", "percentile"])
def test_the_candidate_that_leaves_the_logits_alone_wins(method: str, rounding: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.off = {(method, "descent"): 0.5, (method, "nearest"): 0.7, (method, rounding): 0.1}

    assert desk.chosen() == (method, rounding)
    assert desk.said["choice"].startswith(f"{method}, rounding {rounding}: mse ")
    assert "(logits of 64 calibration images held out in turns)" in desk.said["choice"]


def test_candidates_are_quantized_on_one_half_of_the_images_and_the_scores_are_those_of_the_logits(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path, n=70)
    desk.off = {("mse", "descent"): 0.1}

    desk.chosen()

    assert {n for *_, n in desk.written} == {35}
    session = method_choice.logits(desk.model, batches(desk.x))
    power = float(np.square(session).sum(1).mean())
    assert f"mse {10 * math.log10(power / (5 * 0.1**2)):.1f} dB" in desk.said["choice"]


def test_candidates_share_the_statistics_of_each_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, passes = Desk(tmp_path), []
    observe = observation.observe_images
    monkeypatch.setattr(observation, "observe_images", lambda *args: passes.append(args[3].method) or observe(*args))

    desk.chosen()

    assert passes == ["mse", "mse"]


def test_a_tie_goes_to_the_default_and_that_is_said(tmp_path: Path) -> None:
    desk = Desk(tmp_path)

    assert desk.chosen() == ("mse", "descent")


def test_less_by_chance_is_no_better() -> None:
    draw = np.random.default_rng(0)
    default = draw.uniform(1, 2, 400)

    assert not method_choice.surely_less(default + draw.normal(-0.002, 0.1, 400), default)
    assert method_choice.surely_less(default + draw.normal(-0.05, 0.1, 400), default)
    assert not method_choice.surely_less(default, default)
    # One image decides nothing: a paired test, not a comparison of sums.
    assert not method_choice.surely_less(np.where(np.arange(400) == 7, 0.0, default), default)


def test_what_was_asked_for_is_not_chosen(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.off = {("minmax", "nearest"): 0.0}

    assert desk.chosen(OpenChoice(method=False, rounding=True)) == ("mse", "descent")
    assert {method for method, *_ in desk.written} == {"mse"}


def test_outputs_too_large_to_hold_leave_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_choice, "_BYTES", 50 * 1000)
    desk = Desk(tmp_path, n=80)

    assert desk.chosen() == ("mse", "descent")
    assert not desk.written
    assert "MB each are too large to choose by" in desk.said["choice"]


def test_too_few_images_leave_the_default(tmp_path: Path) -> None:
    desk = Desk(tmp_path, n=63)
    desk.off = {("minmax", "descent"): 0.0}

    assert desk.chosen() == ("mse", "descent")
    assert not desk.written
    assert desk.said["choice"] == ("mse, rounding descent: the default, as 63 images are too few to choose by (64)")


@pytest.mark.parametrize("bound", ["MOST_MACS", "MOST_PARAMETERS"])
def test_a_large_network_keeps_the_default(bound: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_choice, bound, 10)
    desk = Desk(tmp_path)

    assert desk.chosen() == ("mse", "descent")
    assert "the default, as choosing takes long for a network of" in desk.said["choice"]
