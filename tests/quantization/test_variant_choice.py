"""``quantize`` finds the variant that was asked for: by precision, target, processor and runtime."""

from typing import Any

import pytest

from deploy_kit import recipe
from deploy_kit.base.errors import RequestError, UnknownNameError
from deploy_kit.quantization.variant_choice import VariantRequest, choose_variant, fit_recipe, verify_place
from deploy_kit.recipe import Recipe, Variant

NARROW = "this processor has no VNNI: neighbouring weights are kept small enough that its 16-bit sums do not saturate"
VNNI, NO_VNNI = ("avx2", "avx512_vnni"), ("avx2",)
FLAT = {"passes": ["flatten_concats", "cast_pixels_first"]}


def test_a_scheme_that_is_computed_in_one_process_refuses_workers() -> None:
    with pytest.raises(RequestError, match="--on: scheme 'fp16' is computed in one process"):
        verify_place(Variant(name="fp16", scheme="fp16"), "ray")

    verify_place(Variant(name="fp16", scheme="fp16"), "")
    verify_place(Variant(name="int8", scheme="int8_portable"), "ray")


def chosen(
    *precisions: str, of: str = "default", isa: tuple[str, ...] = VNNI, ort: str = "1.31.1", **said: Any
) -> Variant:
    return choose_variant(VariantRequest(precisions=precisions, **said), recipe.load_recipe(of), isa, lambda _: ort)[0]


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_for_tensorrt_has_flat_concatenations(precision: str, target: str) -> None:
    assert chosen(precision, target=target) == Variant(name=precision, scheme=precision, options=FLAT)


def test_half_precision_for_onnxruntime_is_not_rewritten() -> None:
    assert chosen("fp16") == Variant(name="fp16", scheme="fp16")


@pytest.mark.parametrize(
    ("target", "name", "scheme"),
    [
        ("onnxruntime", "int8", "int8_portable"),
        ("openvino", "int8", "int8_portable"),
        ("tensorrt", "int8-tensorrt", "int8_tensorrt"),
        ("tensorrt_rtx", "int8-tensorrt", "int8_tensorrt"),
    ],
)
def test_a_target_has_its_int8_layout(target: str, name: str, scheme: str) -> None:
    assert chosen("int8", target=target) == Variant(name=name, scheme=scheme)


def test_an_unknown_layout_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no INT8 layout is called 'portabel'") as caught:
        chosen("int8", layout="portabel")

    assert caught.value.hint == "did you mean 'portable'?"


def test_a_layout_that_is_said_wins() -> None:
    assert chosen("int8", target="tensorrt", layout="ort") == Variant(name="int8-ort", scheme="int8_ort")


def test_the_recipes_own_variant_is_taken_where_it_is_the_same() -> None:
    own = chosen("fp16", of="demo", target="tensorrt_rtx")

    assert own in recipe.load_recipe("demo").quantize.variants


def test_a_method_is_an_option_and_a_part_of_the_name() -> None:
    assert chosen("int8", method="entropy") == Variant(
        name="int8-entropy", scheme="int8_portable", options={"method": "entropy"}
    )
    assert chosen("int8", target="tensorrt", method="minmax").name == "int8-tensorrt-minmax"


def test_a_processor_without_vnni_gets_narrow_weights_and_is_told_why() -> None:
    variant, remarks = choose_variant(
        VariantRequest(precisions=("int8",)), recipe.load_recipe("default"), NO_VNNI, lambda _: "1.31.1"
    )

    assert variant.options == {"reduce_range": True}
    assert remarks == (NARROW,)


def test_a_recipe_is_fitted_to_a_processor_without_vnni_unless_it_decides_itself() -> None:
    variants = (
        Variant(name="int8", scheme="int8_portable", options={"form": "depthwise"}),
        Variant(name="wide", scheme="int8_portable", options={"reduce_range": False}),
        Variant(name="stock", scheme="int8_ort", options={}),
    )
    given = recipe.load_recipe("default")
    given = given.model_copy(update={"quantize": given.quantize.model_copy(update={"variants": variants})})

    fitted, remarks = fit_recipe(given, NO_VNNI)

    first, *others = fitted.quantize.variants
    assert first.options == {"reduce_range": True, "form": "depthwise"}
    assert tuple(others) == variants[1:]
    assert remarks == (NARROW,)
    assert fit_recipe(given, VNNI) == (given, ())
    assert fit_recipe(fitted, NO_VNNI) == (fitted, remarks)


def test_an_old_runtime_gets_the_depthwise_form_and_is_told_why() -> None:
    variant, remarks = choose_variant(
        VariantRequest(precisions=("int8",)), recipe.load_recipe("default"), VNNI, lambda _: "1.23.2"
    )

    assert variant.options == {"form": "depthwise"}
    assert remarks[0].startswith("onnxruntime 1.23.2 has no maximum of integers")


def test_rounding_is_an_option_of_the_variant_and_part_of_its_name() -> None:
    variant = chosen("int8", rounding="nearest")

    assert variant == Variant(name="int8-nearest", scheme="int8_portable", options={"rounding": "nearest"})


@pytest.mark.parametrize(
    ("precisions", "said", "message"),
    [
        ((), {}, "expected exactly one precision"),
        (("int8", "fp16"), {}, "expected exactly one precision"),
        (("fp16",), {"layout": "ort"}, "--layout, --form, --method and --rounding apply to --int8 only"),
        (("fp16",), {"method": "mse"}, "--layout, --form, --method and --rounding apply to --int8 only"),
        (("fp16",), {"rounding": "nearest"}, "--layout, --form, --method and --rounding apply to --int8 only"),
        (("fp16",), {"scheme": "bf16"}, "--fp16 contradicts scheme 'bf16', which yields bf16"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(precisions: tuple[str, ...], said: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        chosen(*precisions, **said)


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no target is called 'tensort'") as caught:
        chosen("fp16", target="tensort")

    assert caught.value.hint == "did you mean 'tensorrt'?"


def with_variants(*variants: Variant) -> Recipe:
    data = recipe.load_recipe("default").model_dump(mode="json", exclude_none=True)
    data["quantize"]["variants"] = [variant.model_dump(mode="json") for variant in variants]
    return recipe.parse_recipe(data)


def test_the_options_of_the_recipes_one_variant_are_kept() -> None:
    own = Variant(name="mine", scheme="int8_portable", options={"keep": ["transition1"]})

    assert choose_variant(VariantRequest(precisions=("int8",)), with_variants(own), VNNI, lambda _: "1.31.1") == (
        own,
        (),
    )
    changed, _ = choose_variant(
        VariantRequest(precisions=("int8",), method="mse"), with_variants(own), VNNI, lambda _: "1.31.1"
    )
    assert changed.options == {"keep": ["transition1"], "method": "mse"}


def test_of_several_variants_none_is_picked_and_that_is_told() -> None:
    own = [Variant(name=n, scheme="int8_portable", options={"equalize": e}) for n, e in (("one", True), ("two", False))]

    variant, remarks = choose_variant(
        VariantRequest(precisions=("int8",)), with_variants(*own), VNNI, lambda _: "1.31.1"
    )

    assert variant.options == {}
    assert remarks == ("the recipe has several variants of this scheme (one, two): the options of none are used",)
