"""``quantize``: from the options of the command line to one variant, the recipe's own or a scheme with its defaults."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy_kit.base import versions
from deploy_kit.base.errors import RequestError
from deploy_kit.quantization import schemes
from deploy_kit.recipe import Recipe, Variant, targets


@dataclass(frozen=True, kw_only=True)
class PrecisionRequest:
    """A precision, the engine it is for, and what of its scheme is not the default.

    Attributes:
        precisions: Precisions named on the command line; exactly one unless a scheme is named.
        target: Engine the graph is for.
        layout: INT8 layout.
        form: Form of BN + ReLU in the portable layout.
        method: How INT8 ranges are chosen.
        rounding: How weights are rounded in INT8.
        scheme: Scheme of the catalogue.
    """

    precisions: tuple[str, ...] = ()
    target: str = "onnxruntime"
    layout: str | None = None
    form: str | None = None
    method: str | None = None
    rounding: str | None = None
    scheme: str | None = None

    @property
    def int8_options(self) -> dict[str, Any]:
        """The options of an INT8 scheme that were given."""
        stated = (("form", self.form), ("method", self.method), ("rounding", self.rounding))
        return {name: value for name, value in stated if value}


def choose_variant(
    request: PrecisionRequest, recipe: Recipe, isa: tuple[str, ...], version_of: Callable[[str], str]
) -> tuple[Variant, tuple[str, ...]]:
    """Choose the variant a request means: the recipe's own if it has one, else the scheme with its defaults.

    Args:
        request: Precision and options.
        recipe: Recipe in force.
        isa: Instruction sets of the processor the graph will run on.
        version_of: Returns the version of an installed distribution.

    Returns:
        The variant, and what was decided for the processor and the runtime at hand.

    Raises:
        RequestError: No precision, several, or options that contradict it.
        UnknownNameError: No such target or scheme.
    """
    precision = _precision(request)
    options = request.int8_options
    target = targets.find_target(request.target)
    layout = request.layout or target.int8
    name = request.scheme or (f"int8_{layout}" if precision == "int8" else precision)
    scheme = schemes.CATALOGUE.get(name)
    if precision and scheme.precision != precision:
        raise RequestError(f"--{precision} contradicts scheme '{name}', which yields {scheme.precision}")
    remarks: tuple[str, ...] = ()
    if name == "int8_portable":
        fitted, remarks = _fitted(request, isa, version_of("onnxruntime"))
        options |= fitted
    elif request.scheme is None and precision != "int8":
        passes = target.passes(scheme.precision)
        options = {"passes": list(passes)} if passes else {}
    own = [variant for variant in recipe.quantize.variants if variant.scheme == name]
    if len(own) == 1 and scheme.precision == "int8":
        options = {**own[0].options, **options}
    for variant in own:
        if variant.options == options:
            return variant, remarks
    if len(own) > 1 and scheme.precision == "int8":
        names = ", ".join(variant.name for variant in own)
        remarks = (*remarks, f"the recipe has several variants of this scheme ({names}): the options of none are used")
    return Variant(name=_name(request, precision, layout, name), scheme=name, options=options), remarks


def _precision(request: PrecisionRequest) -> str:
    """Return the precision a request names; empty where it names a scheme alone.

    Raises:
        RequestError: None, several, or one that the options do not belong to.
    """
    if len(request.precisions) != 1 and (request.precisions or request.scheme is None):
        raise RequestError("expected exactly one precision", hint="--int8, --fp16, --bf16 or --fp32 (or --scheme NAME)")
    precision = request.precisions[0] if request.precisions else ""
    if (request.layout or request.int8_options) and (request.scheme is not None or precision != "int8"):
        raise RequestError(
            "--layout, --form, --method and --rounding apply to --int8 only",
            hint="deploykit quantize --int8 --layout portable",
        )
    return precision


def _fitted(request: PrecisionRequest, isa: tuple[str, ...], runtime: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the options that fit the portable layout to a processor and a runtime, and the reason for each."""
    options: dict[str, Any] = {}
    remarks = []
    if targets.narrow_weights(isa):
        options["reduce_range"] = True
        remarks.append("this processor has no VNNI: weights have 7 bits, so that its 16-bit sums do not saturate")
    if request.form is None and request.target == "onnxruntime" and versions.lacks_integer_maximum(runtime):
        options["form"] = "depthwise"
        floor = versions.INTEGER_MAXIMUM
        remarks.append(f"onnxruntime {runtime} has no maximum of integers ({floor} has): using the depthwise form")
    return options, tuple(remarks)


def _name(request: PrecisionRequest, precision: str, layout: str, scheme: str) -> str:
    """Name a variant that no recipe names: by its precision, and by what differs from the usual."""
    if request.scheme is not None:
        return scheme
    if precision != "int8":
        return precision if precision != "fp32" else f"fp32-{request.target}"
    choices = [(layout, "portable"), (request.form or "max", "max"), (request.method or "minmax", "minmax")]
    choices.append((request.rounding or "", ""))
    return "-".join([precision, *(chosen for chosen, usual in choices if chosen != usual)])
