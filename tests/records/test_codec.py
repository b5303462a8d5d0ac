"""Tests of codec.py: records survive JSON unchanged, equal values share one text, and strictness names the path."""

import dataclasses
import json
import math

import pytest

from deploy_kit.base.errors import RecipeError
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, Preprocess, Proof, TensorSpec  # fmt: skip
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Head, HeadLayer, StemConv
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.measurements import NotRun
from deploy_kit.records.results import EngineRow, Limits, ParityReport, StageTime

BLOCK = {"layers": 6, "growth": 12, "bottleneck": 48}
PREPROCESS = Preprocess(height=28, width=28, color="gray", mean=(0.286,), std=(0.353,))
SPEC = DenseNetSpec(
    in_channels=3,
    stem=(StemConv(channels=24, kernel=(3, 3), stride=(1, 1), norm=False, relu=False),),
    blocks=(DenseBlock(layers=6, growth=12, bottleneck=48), DenseBlock(layers=6, growth=12, bottleneck=None)),
    transitions=(48,),
    heads=(Head(name="logits", layers=(HeadLayer(kind="linear", channels=10),)),),
    sources=(("stem_stride", "the file"),),
)
ARTIFACT = Artifact(
    kind="engine",
    name="int8",
    path="build/int8-0/model.xml",
    sha256="ab",
    size_bytes=12,
    precision="int8",
    inputs=(TensorSpec(name="image", dtype="FLOAT", shape=("N", 1, 28, 28)),),
    outputs=(TensorSpec(name="logits", dtype="FLOAT", shape=("N", 10)),),
    preprocess=PREPROCESS,
    stage="build",
    parent="cd",
    engine="openvino",
    made_by=MadeBy(notes=(("threads", "2"),)),
    proof=Proof(source="the runtime model", counts=(("Conv", "int8", 39),)),
)
PARITY = ParityReport(
    artifact="ab",
    label="int8 · openvino",
    n=10000,
    images="bundled:fashion-mnist-10000",
    sqnr_db=math.inf,
    cosine=1.0,
    max_error=0.0,
    agreement=1.0,
    top1_reference=None,
    top1=None,
    drop_pp=None,
    drop_pp_interval=None,
    worst_images=(3, 1),
    limits=Limits(min_sqnr_db=90),
)
RECORDS = [
    PREPROCESS,
    SPEC,
    ARTIFACT,
    PARITY,
    EngineRow(label="int8 · openvino", artifact=ARTIFACT, parity=PARITY),
    EngineRow(label="fp16", artifact=None, parity=NotRun(artifact="ab", label="fp16", why="no GPU here")),
    StageTime(stage="export", name="demo", seconds=0.1, reused=True),
]


def refused(cls, data, where=""):
    with pytest.raises(RecipeError) as caught:
        codec.from_json(cls, data, where)
    return caught.value


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_from_json_as_it_was(record):
    text = json.dumps(codec.to_json(record), allow_nan=False)

    assert codec.from_json(type(record), json.loads(text)) == record


def test_nan_comes_back_as_nan():
    record = StageTime(stage="export", name="demo", seconds=math.nan, reused=False)

    back = codec.from_json(StageTime, json.loads(codec.canonical_json(record)))

    assert math.isnan(back.seconds)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinity_comes_back_with_its_sign(value):
    record = StageTime(stage="export", name="demo", seconds=value, reused=False)

    assert codec.from_json(StageTime, json.loads(codec.canonical_json(record))) == record


def test_what_was_not_run_is_told_from_a_result():
    row = EngineRow(label="a", artifact=None, parity=NotRun(artifact="ab", label="a", why="no GPU"), measurement=None)

    assert codec.to_json(row)["parity"]["record"] == "NotRun"


def test_equal_mappings_share_one_text_whatever_their_order():
    assert codec.canonical_json({"b": 1, "a": (2, 3)}) == codec.canonical_json({"a": [2, 3], "b": 1})


def test_canonical_text_is_sorted_json_without_spaces():
    assert codec.canonical_json({"b": [1, True, None], "a": "ä"}) == '{"a":"ä","b":[1,true,null]}'


def test_canonical_text_writes_a_record_by_its_fields():
    assert codec.canonical_json(HeadLayer(kind="linear", channels=10)) == '{"bias":true,"channels":10,"kind":"linear"}'


def test_different_values_have_different_texts():
    assert codec.canonical_json({"symmetric": True}) != codec.canonical_json({"symmetric": False})


def test_a_whole_number_fits_where_a_float_is_expected():
    limits = codec.from_json(Limits, {"max_error": 1})

    assert type(limits.max_error) is float


def test_a_key_left_out_takes_its_default():
    assert codec.from_json(Limits, {}) == Limits()


def test_a_dynamic_axis_is_text_among_numbers():
    spec = codec.from_json(TensorSpec, {"name": "image", "dtype": "FLOAT", "shape": ["N", 1]})

    assert spec.shape == ("N", 1)


def test_unknown_key_is_named_with_its_table():
    error = refused(DenseBlock, BLOCK | {"grwth": 1}, "recipe.block")

    assert str(error) == "recipe.block: unknown key 'grwth'"


def test_unknown_key_names_the_nearest():
    error = refused(DenseBlock, BLOCK | {"grwth": 1})

    assert error.hint == "did you mean 'growth'?"


def test_unknown_key_comes_before_a_missing_one_so_that_a_typo_is_named():
    error = refused(DenseBlock, {"layers": 6, "grwth": 12, "bottleneck": None})

    assert str(error) == "DenseBlock: unknown key 'grwth'"


def test_missing_key_is_named():
    error = refused(DenseBlock, {"layers": 6, "growth": 12}, "recipe.block")

    assert str(error) == "recipe.block: 'bottleneck' is missing"


def test_a_wrong_record_is_a_wrong_request():
    assert refused(DenseBlock, {}).exit_code == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", "6", "block.layers: expected int, found '6'"),
        ("layers", 6.0, "block.layers: expected int, found 6.0"),
        ("layers", True, "block.layers: expected int, found True"),
        ("layers", None, "block.layers: expected int, found None"),
        ("bottleneck", "48", "block.bottleneck: expected int, found '48'"),
        ("bottleneck", [48], "block.bottleneck: expected int, found [48]"),
    ],
)
def test_wrong_type_is_named_with_its_path(field, value, message):
    assert str(refused(DenseBlock, BLOCK | {field: value}, "block")) == message


@pytest.mark.parametrize("value", ["0.5", True, "Infinity", ""])
def test_text_and_booleans_are_no_floats(value):
    error = refused(Limits, {"max_error": value})

    assert str(error) == f"Limits.max_error: expected float, found {value!r}"


def test_one_is_no_boolean():
    error = refused(StageTime, {"stage": "a", "name": "b", "seconds": 1.0, "reused": 1})

    assert str(error) == "StageTime.reused: expected bool, found 1"


def test_a_value_outside_the_choices_lists_them():
    error = refused(Preprocess, codec.to_json(PREPROCESS) | {"color": "grey"})

    assert str(error) == "Preprocess.color: expected one of gray, rgb, bgr, found 'grey'"


def test_a_value_outside_the_choices_names_the_nearest():
    error = refused(Preprocess, codec.to_json(PREPROCESS) | {"color": "grey"})

    assert error.hint == "did you mean 'gray'?"


def test_text_is_no_list():
    error = refused(Preprocess, codec.to_json(PREPROCESS) | {"mean": "0.5"})

    assert str(error) == "Preprocess.mean: expected a list, found '0.5'"


def test_an_item_is_named_by_its_index():
    error = refused(Preprocess, codec.to_json(PREPROCESS) | {"mean": [0.5, "x"]})

    assert str(error) == "Preprocess.mean[1]: expected float, found 'x'"


def test_a_pair_of_three_is_refused():
    error = refused(Proof, {"source": "engine", "counts": [["Conv", "int8"]]})

    assert str(error) == "Proof.counts[0]: expected 3 values, found 2"


def test_a_table_within_a_list_is_named_by_its_whole_path():
    data = codec.to_json(SPEC)
    data["blocks"][1]["layers"] = "six"

    assert str(refused(DenseNetSpec, data)) == "DenseNetSpec.blocks[1].layers: expected int, found 'six'"


def test_text_is_no_table():
    assert str(refused(DenseBlock, "six", "block")) == "block: expected a table, found 'six'"


def test_a_list_where_one_of_two_tables_is_expected_is_refused():
    error = refused(EngineRow, {"label": "a", "artifact": None, "parity": []})

    assert str(error) == "EngineRow.parity: expected a table, found []"


def test_a_key_called_record_is_as_unknown_as_any_other():
    error = refused(DenseBlock, BLOCK | {"record": 1}, "block")

    assert str(error) == "block: unknown key 'record'"


def test_a_table_where_a_number_or_nothing_is_expected_is_refused():
    error = refused(DenseBlock, BLOCK | {"bottleneck": {"record": 1}}, "block")

    assert str(error).startswith("block.bottleneck: expected int")


def test_preprocessing_without_pixels_keeps_the_text_that_it_had() -> None:
    text = codec.canonical_json(PREPROCESS)

    assert text == (
        '{"color":"gray","height":28,"interpolation":"bilinear","mean":[0.286],"resize":null,"std":[0.353],"width":28}'
    )
    assert codec.from_json(Preprocess, json.loads(text)) == PREPROCESS


def test_preprocessing_with_pixels_survives() -> None:
    pixels = dataclasses.replace(PREPROCESS, input_pixels=True)

    found = codec.to_json(pixels)

    assert found["input_pixels"] is True
    assert codec.from_json(Preprocess, found) == pixels


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63), 10**400])
def test_a_whole_number_that_no_arithmetic_takes_is_refused(number: int) -> None:
    for record, path in ((PARITY, "n"), (PREPROCESS, "height")):
        with pytest.raises(RecipeError, match=rf"{path}: expected a whole number below 2\^63, found"):
            codec.from_json(type(record), codec.to_json(record) | {path: number})


def test_a_side_that_may_be_a_text_is_no_longer_number_either() -> None:
    with pytest.raises(RecipeError, match=r"shape\[0\]: expected a whole number below 2\^63"):
        codec.from_json(TensorSpec, {"name": "image", "dtype": "float", "shape": [10**400]})
