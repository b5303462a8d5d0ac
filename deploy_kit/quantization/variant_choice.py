"""Which variant is meant: a precision and a target, turned into a scheme and its options."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from deploy_kit.base import versions
from deploy_kit.base.errors import RequestError, UnknownNameError, nearest
from deploy_kit.quantization import schemes
from deploy_kit.recipe import Recipe, Variant, targets
from deploy_kit.records.artifacts import Precision

_INT8 = "int8_"
"""What the name of a scheme begins with that writes an INT8 layout."""
_PORTABLE = "int8_portable"
_NARROW = "this processor has no VNNI: neighbouring weights are kept small enough that its 16-bit sums do not saturate"


@dataclass(frozen=True, kw_only=True)
class VariantRequest:
    """A precision, the engine it is for, and what the user decides beside them.

    Attributes:
        precisions: Precisions that were asked for: exactly one, or none where a scheme is named.
        target: The engine: it decides layout and form.
        layout: INT8 layout; the target's if None.
        form: What BN + ReLU become in the portable layout.
        method: How INT8 ranges are chosen.
        rounding: How INT8 weights are rounded.
        scheme: A scheme of the catalogue, by name.
    """

    precisions: tuple[str, ...] = ()
    target: str = "onnxruntime"
    layout: str | None = None
    form: str | None = None
    method: str | None = None
    rounding: str | None = None
    scheme: str | None = None


def choose_variant(
    request: VariantRequest, recipe: Recipe, isa: tuple[str, ...], version_of: Callable[[str], str]
) -> tuple[Variant, tuple[str, ...]]:
    """Find the variant that is meant: the recipe's own if it has one, else the scheme with its defaults.

    Args:
        request: What was asked for.
        recipe: The recipe in force.
        isa: Instruction sets of the processor it will run on.
        version_of: Returns the version of an installed distribution.

    Returns:
        The variant, and what was decided for the processor and the runtime at hand.

    Raises:
        RequestError: No precision, or several, or options that belong to another one.
        UnknownNameError: No such precision, target, layout or scheme.
    """
    named = request.scheme is not None
    if len(request.precisions) + (named and not request.precisions) != 1:
        found = " and ".join(f"--{precision}" for precision in request.precisions) or "none"
        raise RequestError(
            f"expected exactly one precision, found {found}", hint="--int8, --fp16, --bf16 or --fp32 (or --scheme NAME)"
        )
    precision = request.precisions[0] if request.precisions else ""
    if precision and precision not in get_args(Precision):
        raise UnknownNameError(f"no precision is called '{precision}'", hint=nearest(precision, get_args(Precision)))
    if (request.layout or request.form or request.method or request.rounding) and (named or precision != "int8"):
        raise RequestError(
            "--layout, --form, --method and --rounding apply to --int8 only",
            hint="deploykit quantize --int8 --layout portable",
        )
    preferences = targets.find_target(request.target)
    layout = request.layout or preferences.int8
    layouts = [one.removeprefix(_INT8) for one in schemes.CATALOGUE.names() if one.startswith(_INT8)]
    if precision == "int8" and not layout:
        raise RequestError(
            f"engine '{request.target}' takes no INT8 graph",
            hint=f"build its float32 graph (deploykit build --engine {request.target} --variant fp32), "
            "or name another engine with --target",
        )
    if layout and layout not in layouts:
        raise UnknownNameError(f"no INT8 layout is called '{layout}'", hint=nearest(layout, layouts))
    name = request.scheme or (f"{_INT8}{layout}" if precision == "int8" else precision)
    entry = schemes.CATALOGUE.get(name)
    if precision and entry.precision != precision:
        raise RequestError(f"--{precision} contradicts scheme '{name}', which yields {entry.precision}")
    given = {"form": request.form, "method": request.method, "rounding": request.rounding}
    options: dict[str, Any] = {option: value for option, value in given.items() if value}
    remarks: tuple[str, ...] = ()
    if name == _PORTABLE:
        fitted, remarks = _fitted(request, isa, version_of("onnxruntime"))
        options |= fitted
    elif not named and precision != "int8":
        passes = preferences.passes(entry.precision)
        options = {"passes": list(passes)} if passes else {}
    own = [variant for variant in recipe.quantize.variants if variant.scheme == name]
    if len(own) == 1 and entry.precision == "int8":
        options = {**own[0].options, **options}
    for variant in own:
        if variant.options == options:
            return variant, remarks
    if len(own) > 1 and entry.precision == "int8":
        names = ", ".join(variant.name for variant in own)
        remarks = (*remarks, f"the recipe has several variants of this scheme ({names}): the options of none are used")
    return Variant(name=_name(request, precision, layout, name), scheme=name, options=options), remarks


def keep_float(variant: Variant, groups: Sequence[str]) -> Variant:
    """Return a variant that leaves layer groups in float, under a name of its own.

    Args:
        variant: An INT8 variant.
        groups: Coordinates of the groups, e.g. ``transition1``; the variant itself is returned where there are none.

    Raises:
        RequestError: Its scheme cannot.
    """
    if not groups:
        return variant
    verify_mixes(variant)
    return variant.model_copy(
        update={
            "name": f"{variant.name.removesuffix('-mixed')}-mixed",
            "options": {**variant.options, "keep": list(groups)},
        }
    )


def verify_mixes(variant: Variant) -> None:
    """Refuse a scheme that quantizes everything or nothing.

    Raises:
        RequestError: It does.
    """
    if schemes.CATALOGUE.get(variant.scheme).planned is None:
        raise RequestError(
            f"scheme '{variant.scheme}' cannot leave layer groups in float",
            hint="--keep, --max-drop and --sensitivity need --int8 with layout portable or tensorrt",
        )


def verify_place(variant: Variant, on: str) -> None:
    """Refuse workers for a scheme that makes no use of them.

    Raises:
        RequestError: It makes none.
    """
    if on and schemes.CATALOGUE.get(variant.scheme).planned is None:
        raise RequestError(
            f"--on: scheme '{variant.scheme}' is computed in one process",
            hint="leave --on out; images are observed on workers for --int8 with layout portable or tensorrt",
        )


def fit_recipe(recipe: Recipe, isa: tuple[str, ...]) -> tuple[Recipe, tuple[str, ...]]:
    """Fit variants of layout `portable` that do not state `reduce_range` to a processor, and say what was decided."""
    if not targets.narrow_sums(isa):
        return recipe, ()
    variants = tuple(
        variant.model_copy(update={"options": {"reduce_range": True, **variant.options}})
        if variant.scheme == _PORTABLE
        else variant
        for variant in recipe.quantize.variants
    )
    narrow = any(variant.scheme == _PORTABLE and variant.options["reduce_range"] for variant in variants)
    table = recipe.quantize.model_copy(update={"variants": variants})
    return recipe.model_copy(update={"quantize": table}), (_NARROW,) if narrow else ()


def _fitted(request: VariantRequest, isa: tuple[str, ...], runtime: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fit the portable layout to a processor and a runtime, and say what was decided and why."""
    options: dict[str, Any] = {}
    remarks = []
    if targets.narrow_sums(isa):
        options["reduce_range"] = True
        remarks.append(_NARROW)
    if request.form is None and request.target == "onnxruntime" and versions.lacks_integer_maximum(runtime):
        options["form"] = "depthwise"
        floor = versions.INTEGER_MAXIMUM
        remarks.append(f"onnxruntime {runtime} has no maximum of integers ({floor} has): using the depthwise form")
    return options, tuple(remarks)


def _name(request: VariantRequest, precision: str, layout: str, scheme: str) -> str:
    """Name a variant that no recipe names: by its precision, and by what differs from the usual."""
    if request.scheme is not None:
        return scheme
    if precision != "int8":
        return precision if precision != "fp32" else f"fp32-{request.target}"
    parts = [(layout, "portable"), (request.form or "max", "max"), (request.method or "", "")]
    parts.append((request.rounding or "", ""))
    return "-".join([precision, *(value for value, usual in parts if value != usual)])
