"""Tests of the options that INT8 layouts share: names, defaults and JSON as recipes and stores have them."""

import pytest

from deploy_kit.base.errors import RecipeError
from deploy_kit.quantization import schemes
from deploy_kit.quantization.schemes._int8 import Int8Options
from deploy_kit.records import codec

# What passports and keys of stores hold; another text would be another result.
TEXTS = {
    "int8_portable": '{"bias_correction":true,"equalize":true,"fit_biases":true,"form":"max","keep":[],'
    '"method":"auto","percentile":99.99,"reduce_range":false,"rounding":"auto","settle":false}',
    "int8_tensorrt": '{"bias_correction":true,"concats":false,"convolutions":"behind_norms","equalize":true,"keep":[],'
    '"method":"minmax","percentile":99.99,"rest":"fp16","rounding":"nearest","settle":false}',
}


@pytest.mark.parametrize("name", TEXTS)
def test_options_keep_their_names_and_defaults(name: str) -> None:
    options = schemes.CATALOGUE.get(name).options

    assert codec.canonical_json(options()) == TEXTS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_shared_options_are_read_from_a_recipe(name: str) -> None:
    read = codec.from_json(schemes.CATALOGUE.get(name).options, {"method": "mse", "keep": ["stem"], "settle": True})

    assert isinstance(read, Int8Options)
    assert (read.method, read.keep, read.settle) == ("mse", ("stem",), True)


@pytest.mark.parametrize(
    ("name", "option"),
    [("int8_portable", "convolutions"), ("int8_portable", "rest"), ("int8_tensorrt", "form")],
)
def test_an_option_of_the_other_layout_is_refused(name: str, option: str) -> None:
    with pytest.raises(RecipeError, match=f"unknown key '{option}'"):
        codec.from_json(schemes.CATALOGUE.get(name).options, {option: "all"})


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("percentile", [50.0, 100.5])
def test_a_percentile_that_leaves_nothing_is_refused(name: str, percentile: float) -> None:
    with pytest.raises(RecipeError, match="percentile: expected a number above 50 and at most 100"):
        codec.from_json(schemes.CATALOGUE.get(name).options, {"percentile": percentile})


def test_choices_hold_every_shared_option() -> None:
    options = Int8Options(
        equalize=False, method="percentile", percentile=99.0, settle=True, bias_correction=False, rounding="descent"
    )

    choices = options.choices(passes=("flatten_concats",), signed=True, narrow_sums=True)

    ranging = choices.ranging
    assert (choices.equalized, choices.bias_correction, choices.rounding) == (False, False, "descent")
    assert (ranging.method, ranging.percentile, ranging.settle) == ("percentile", 99.0, True)
    assert (choices.passes, choices.signed, choices.narrow_sums) == (("flatten_concats",), True, True)
