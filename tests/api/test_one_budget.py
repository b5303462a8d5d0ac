"""One budget over slimming, INT8 and mixes: which combination is chosen, by what, and when there is none."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from report_records import artifact, measurement

from deploy_kit import pipeline, recipe
from deploy_kit.analysis import slim_budget
from deploy_kit.analysis.slim_budget import SlimSubject
from deploy_kit.api import line, mixing, one_budget, slimming
from deploy_kit.base.errors import RequestError
from deploy_kit.images import ImageSource
from deploy_kit.recipe import Recipe, Variant
from deploy_kit.records.artifacts import Artifact, ReferenceLogits
from deploy_kit.records.slimming import SlimSearch, SlimTrial
from deploy_kit.stages import bench, build

FLOAT_LOSS, INT8_LOSS = 1.0, 0.1  # points: for everything that is removed, and for int8 at any share


def graph(name: str, share: float) -> Artifact:
    return replace(artifact(name, "onnxruntime"), sha256=f"{name} {share:g}", precision=name.partition("-")[0])


class Bed:
    """Everything below the search: drops are linear, and a run takes the time that `ms` says of a graph."""

    def __init__(self, patch: pytest.MonkeyPatch, mixes: bool, ms: dict[str, float]) -> None:
        self.mixes, self.ms, self.mixed_at = mixes, ms, list[float]()
        noise = ReferenceLogits(path="", sha256="", images="tune", n=9000, labelled=True, top1=0.9)
        source = ImageSource(name="calibration")
        self.subject = SlimSubject(
            simplified=graph("fp32", 1), images=source, tuning=ImageSource(name="tune"), tuning_logits=noise,
            check=ImageSource(name="check"), check_logits=noise, step=16,
        )  # fmt: skip
        patch.setattr(pipeline, "exported", lambda run: None)
        patch.setattr(pipeline, "simplified", lambda run, source: SimpleNamespace(onnx=graph("fp32", 1)))
        patch.setattr(slimming, "tuning_images", lambda *given: self.subject.tuning)
        patch.setattr(slimming, "subject_of", lambda *given: self.subject)
        patch.setattr(slim_budget, "shares", lambda *given: [0.2, 0.4, 0.6, 0.8])
        patch.setattr(slim_budget, "tuned", self._tuned)
        patch.setattr(slim_budget, "judge", self._judge)
        patch.setattr(
            slim_budget, "slimmed", lambda subject, share, context: SimpleNamespace(onnx=graph("fp32", share))
        )
        patch.setattr(slim_budget, "kept", lambda found, subject, context: found)
        patch.setattr(mixing, "mix_in_run", self._mix)
        patch.setattr(build, "run", lambda artifact, entry, context: (artifact, False))
        patch.setattr(bench, "run", self._bench)

    def _tuned(
        self, subject: SlimSubject, share: float, variant: Variant | None, context: object
    ) -> tuple[Artifact, SlimTrial]:
        made = graph("fp32" if variant is None else "int8", share)
        return made, self._judge(made, replace(slim_budget._UNJUDGED, asked=share, share=share), None, None, None)

    def _judge(self, made: Artifact, like: SlimTrial, *given: object) -> SlimTrial:
        lost = FLOAT_LOSS * (1 - like.asked) + (INT8_LOSS if made.sha256.startswith("int8 ") else 0)
        return replace(like, precision=made.precision, drop_pp=lost, upper_pp=lost, lower_pp=lost)

    def _mix(self, run: object, small: Artifact, *given: object) -> Any:
        self.mixed_at.append(share := float(small.sha256.split()[1]))
        row = SimpleNamespace(group="stem", precision="fp32")
        mix = SimpleNamespace(decisions=(row, SimpleNamespace(group="head", precision="int8")))
        return SimpleNamespace(artifact=graph("int8-mixed", share) if self.mixes else None, mix=mix)

    def _bench(self, engines: tuple[Artifact, ...], table: object, context: object) -> Any:
        rows = [measurement(one.label, (self.ms.get(one.sha256, 9.0),) * 8) for one in engines]
        return SimpleNamespace(measurements=[replace(row, rounds=tuple(range(8))) for row in rows]), False


def found(
    patch: pytest.MonkeyPatch, points: float, *, mixes: bool = True, **ms: float
) -> tuple[Bed, SlimSearch, Recipe | None]:
    bed = Bed(
        patch, mixes, {name.replace("_", " ").replace("mixed", "int8-mixed"): value for name, value in ms.items()}
    )
    run = SimpleNamespace(recipe=base(), host=None, target=None, calibration_images=ImageSource(name="calibration"))
    return bed, *one_budget.find_fastest(run, points, "tune", lambda text: None)  # type: ignore[arg-type]


def base() -> Recipe:
    data = recipe.load_recipe("default").model_dump(mode="json", exclude_none=True)
    data["quantize"] |= {"variants": [{"name": "int8", "scheme": "int8_portable"}], "calibration": "calibration"}
    data["build"] = {"engines": [{"engine": "onnxruntime", "variants": ["fp32", "int8"]}]}
    return recipe.parse_recipe(data)


def test_the_fastest_that_keeps_the_budget_is_chosen_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"fp32_1": 8.0, "int8_1": 4.0, "fp32_0.8": 5.0, "int8_0.8": 2.0, "mixed_0.6": 3.0}

    bed, search, made = found(monkeypatch, 0.42, **times)

    assert bed.mixed_at == [0.6]  # one share below the smallest whose int8 keeps the budget
    assert search.chosen is not None and search.chosen.ms is not None and search.chosen.faster is not None
    assert (search.chosen.what, search.chosen.ms[0], search.chosen.faster.ratio) == ("int8, 0.80 of the MACs", 2.0, 4.0)
    assert [trial.what for trial in search.compared] == [
        "fp32, whole", "int8, whole", "fp32, 0.80 of the MACs", "int8, 0.80 of the MACs",
        "int8 and 1 layer groups in float, 0.60 of the MACs",
    ]  # fmt: skip
    assert search.judged is not None
    assert made is not None and made.slim is not None
    assert made.slim.macs == 0.8
    assert {limit.max_drop for limit in made.check.limits.values()} == {0.42}


def test_a_faster_mix_at_a_smaller_share_wins_and_its_groups_stay_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    _, search, made = found(monkeypatch, 0.42, **{"int8_0.8": 2.0, "mixed_0.6": 1.5})

    assert search.chosen is not None and search.chosen.kept == ("stem",)
    assert made is not None and made.slim is not None
    assert made.slim.macs == 0.6
    assert made.quantize.variants[0].options["keep"] == ["stem"]


def test_no_mix_is_searched_where_slimming_alone_breaks_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    bed, search, _ = found(monkeypatch, 0.32, **{"int8_0.8": 2.0})

    assert bed.mixed_at == []
    assert search.chosen is not None and search.chosen.asked == 0.8


def test_less_work_that_is_not_faster_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    _, search, made = found(monkeypatch, 0.32, **{"int8_1": 2.0, "int8_0.8": 2.5})

    assert search.chosen is not None and search.chosen.what == "int8, whole"
    assert made is not None and made.slim is None


def test_a_budget_below_int8s_own_loss_ends_in_a_mix_of_the_whole_or_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    bed, search, _ = found(monkeypatch, 0.05, mixes=False)

    assert bed.mixed_at == [1.0]
    assert search.chosen is not None and search.chosen.what == "fp32, whole"


def test_a_recipe_without_int8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(recipe=recipe.load_recipe("default"), calibration_images=None)

    with pytest.raises(RequestError, match="no INT8 is to be built") as raised:
        one_budget.find_fastest(run, 0.3, "tune", lambda text: None)  # type: ignore[arg-type]

    assert "--calibration FOLDER" in str(raised.value.hint)


def test_a_share_is_priced_on_the_first_engine_that_gets_int8() -> None:
    base = recipe.load_recipe("default")

    both = line.with_engines(base, ("openvino", "onnxruntime"), ("fp32", "int8"))
    assert one_budget.pricing(both) == {"step": 16, "target": "openvino"}
    assert one_budget.pricing(line.with_engines(base, ("onnxruntime",), ("fp32",))) == {}
