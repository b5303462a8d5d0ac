"""The tables of candidates name what exists: recipes, passes, schemes, engines and their options."""

import pytest

from benchmarks import modes, ours, stock
from benchmarks.candidates import Candidate, Ours, Stock
from deploy_kit import engines
from deploy_kit.base.errors import RecipeError
from deploy_kit.graph import passes
from deploy_kit.quantization import schemes
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Preprocess

EVERY = (*stock.CANDIDATES, *ours.CANDIDATES, *ours.SIMULATED)
_SHORT = {"onnxruntime": "ort", "openvino": "ov", "torch": "torch", "ncnn": "ncnn", "executorch": "et"}


def test_names_are_taken_once() -> None:
    assert len(modes.ALL) == len(EVERY)


@pytest.mark.parametrize("candidate", EVERY, ids=lambda candidate: candidate.name)
def test_a_name_ends_with_its_engine(candidate: Candidate) -> None:
    ending = "simulated" if candidate.simulated else _SHORT[candidate.engine]
    assert candidate.name.partition("@")[2] == ending


@pytest.mark.parametrize("candidate", EVERY, ids=lambda candidate: candidate.name)
def test_engine_options_are_the_engine_s_own(candidate: Candidate) -> None:
    if candidate.engine == "torch":
        assert set(candidate.options) <= {"compiled"}
    else:
        entry = engines.CATALOGUE.get(candidate.engine)
        codec.from_json(entry.options, dict(candidate.options))


@pytest.mark.parametrize("candidate", (*ours.CANDIDATES, *ours.SIMULATED), ids=lambda candidate: candidate.name)
def test_our_files_name_passes_and_schemes_that_exist(candidate: Candidate) -> None:
    file = candidate.file

    assert isinstance(file, Ours)
    assert set(file.passes) <= set(passes.CATALOGUE.names())
    if file.scheme is not None:
        codec.from_json(schemes.CATALOGUE.get(file.scheme).options, dict(file.options))


def test_an_unknown_scheme_option_would_be_noticed() -> None:
    entry = schemes.CATALOGUE.get("int8_ort")

    with pytest.raises(RecipeError, match="unknown key 'metod'"):
        codec.from_json(entry.options, {"metod": "minmax"})


@pytest.mark.parametrize("candidate", stock.CANDIDATES, ids=lambda candidate: candidate.name)
def test_stock_files_name_recipes_that_exist(candidate: Candidate) -> None:
    assert isinstance(candidate.file, Stock)
    assert candidate.file.recipe in {"raw", "checkpoint", *stock.RECIPES}


def test_baselines_are_stock_candidates_of_their_engine() -> None:
    for engine, names in stock.BASELINES.items():
        for name in filter(None, names):
            assert modes.ALL[name].engine == engine
            assert not modes.ALL[name].ours


def test_stock_int8_baselines_are_int8_and_float_ones_are_not() -> None:
    assert [modes.ALL[pair[0]].int8 for pair in stock.BASELINES.values() if pair[0]] == [True, True]
    assert not any(modes.ALL[pair[1]].int8 for pair in stock.BASELINES.values())


def test_rewrites_name_passes_that_exist() -> None:
    for names in ours.REWRITES.values():
        assert set(names) <= set(passes.CATALOGUE.names())


def test_naming_one_candidate_brings_its_baselines() -> None:
    asked = modes.Asked(only=("int8@ov",), plan=modes.Plan())

    assert [candidate.name for candidate in asked.candidates()] == ["raw@ov", "nncf@ov", "int8@ov"]


def test_each_int8_file_of_ours_is_listed_once() -> None:
    files = list(ours.quantized().values())

    assert all(file not in files[:i] for i, file in enumerate(files))
    assert {candidate.name.partition("@")[0] for candidate in ours.CANDIDATES if candidate.int8} >= set(
        ours.quantized()
    )


def test_a_recipe_that_hoards_takes_fewer_large_images() -> None:
    large = Preprocess(height=224, width=224, color="rgb", mean=(0.5,) * 3, std=(0.5,) * 3)
    small = Preprocess(height=28, width=28, color="gray", mean=(0.5,), std=(0.5,))

    assert stock.RECIPES["static-percentile"].most_images(64, large) == 16
    assert stock.RECIPES["static-percentile"].most_images(64, small) == 64
    assert stock.RECIPES["static-minmax"].most_images(64, large) == 64


def test_what_is_simulated_is_scored_and_never_timed() -> None:
    asked = modes.Asked(only=(), plan=modes.Plan())

    assert not [one.name for one in asked.candidates() if one.simulated]
    assert {one.name for one in asked.candidates(lambda one: one.simulated)} == {one.name for one in ours.SIMULATED}
