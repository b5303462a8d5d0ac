"""What the schemes that plan INT8 from a DenseNet's structure share: options, and how a plan becomes a file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import onnx_ir as ir

from deploy_kit.base.lazy import present
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.graph import onnx_file
from deploy_kit.quantization.int8 import method_choice, mixed_precision, plan, range_selection
from deploy_kit.quantization.int8.method_choice import OpenChoice
from deploy_kit.quantization.int8.observation import ImageStream
from deploy_kit.quantization.int8.plan import Int8Choices, Int8Plan, Rounding
from deploy_kit.quantization.ranges.thresholds import Method
from deploy_kit.quantization.schemes import FLOAT_KEY, Calibration, PlannedMix, Scheme

OpenMethod: TypeAlias = Literal[Method, "auto"]
OpenRounding: TypeAlias = Literal[Rounding, "auto"]


@dataclass(frozen=True, kw_only=True)
class Int8Options:
    """Options of a recipe's variant that every INT8 layout has.

    Attributes:
        equalize: Bring concatenated channels to one range before they are quantized; without it accuracy is lost.
        method: How the ends of ranges are chosen (`deploy_kit.quantization.ranges.thresholds`); ``auto`` lets images
            held out decide (`deploy_kit.quantization.int8.method_choice`).
        percentile: Share of the values that the method ``percentile`` encodes, in per cent.
        settle: Stop observing images once the ranges have settled; those of ``minmax`` never do.
        bias_correction: Let biases make up for the mean error of the integers.
        rounding: How weights are rounded: each to the ``nearest``, or by ``descent`` on the error of the outputs;
            ``auto`` as with `method`.
        keep: Layer groups that stay in float, by name, e.g. ``denseblock1.denselayer1`` (`graph.layer_names`).
    """

    equalize: bool = True
    method: OpenMethod = "minmax"
    percentile: float = 99.99
    settle: bool = False
    bias_correction: bool = True
    rounding: OpenRounding = "nearest"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a percentile that leaves nothing.

        Raises:
            RecipeError: It is not above 50 and at most 100.
        """
        range_selection.range_method(self._method, self.percentile, self.settle)

    @property
    def open(self) -> OpenChoice:
        """What images held out decide."""
        return OpenChoice(method=self.method == "auto", rounding=self.rounding == "auto")

    @property
    def _method(self) -> Method:
        return "mse" if self.method == "auto" else self.method

    def choices(self, *, passes: tuple[str, ...], signed: bool = False, narrow_sums: bool = False) -> Int8Choices:
        """Put the options together with what a layout decides."""
        return Int8Choices(
            passes=passes,
            signed=signed,
            narrow_sums=narrow_sums,
            equalized=self.equalize,
            bias_correction=self.bias_correction,
            rounding="descent" if self.rounding == "auto" else self.rounding,
            ranging=range_selection.range_method(self._method, self.percentile, self.settle),
        )


def scheme(options: type[Int8Options], planned: Callable[[Path, Any, Calibration], PlannedMix]) -> Scheme:
    """Make the catalogue's entry of a layout from its options and its planner."""

    def apply(source: Path, target: Path, chosen: Int8Options, calibration: Calibration | None) -> None:
        assert calibration is not None
        planned(source, chosen, calibration).write(target, chosen.keep)

    return Scheme(
        package="onnxruntime",
        precision="int8",
        options=options,
        calibrates=True,
        apply=apply,
        libraries=("onnxruntime", "onnx", "onnx-ir", "onnxscript", "numpy", "torch"),
        planned=planned,
        simplifies=True,
    )


def plan_mix(
    source: Path,
    choices: Int8Choices,
    left: OpenChoice,
    calibration: Calibration,
    write: Callable[[Int8Plan], ir.Model],
    *,
    fits_biases: bool = False,
) -> PlannedMix:
    """Observe the images once, and return what writes the graph for any choice of groups that stay in float.

    Args:
        source: A float32 ONNX file.
        choices: Options and layout.
        left: What of the choices images held out decide.
        calibration: The images.
        write: Writes a plan as a graph; leaves the plan's model as it is.
        fits_biases: Fit the biases to the logits where nothing stays in float.

    Raises:
        QuantizeError: The operator set is too old, nothing can be quantized, or an activation is not finite.
        UnknownNameError: Raised by the result's `write`: no layer group has one of the names.
    """
    images = ImageStream(n=calibration.n_images, batches=calibration.batches, context=calibration.context)
    if left.method or left.rounding:
        choices = method_choice.choose(source, choices, left, images, write)
    whole = plan.make_plan(source, choices, calibration.batches, calibration.n_images, context=calibration.context)

    def write_file(target: Path, kept: tuple[str, ...]) -> None:
        if kept and choices.rounding == "descent" and not whole.rounded:
            # The integers of a weight do not depend on what else is quantized. Chosen once with nothing in float, they
            # are the same in every mix, whichever is written first.
            write(mixed_precision.keep_in_float(whole, ()))
        if fits_biases and not kept:
            fit_biases(whole, write, images)
        model = write(mixed_precision.keep_in_float(whole, kept))
        if kept:
            model.metadata_props[FLOAT_KEY] = json.dumps(kept)
        onnx_file.save(model, target)

    return PlannedMix(groups=mixed_precision.groups(whole), write=write_file)


def fit_biases(plan: Int8Plan, write: Callable[[Int8Plan], ir.Model], images: ImageStream) -> None:
    """Fit the biases of a plan to the logits where that can be done in little time; says what came of it as ``biases``.

    Args:
        plan: A plan in layout `portable`; its `fitted` is filled.
        write: Writes a plan as a graph; leaves the plan's model as it is.
        images: The calibration images.
    """
    cost, size = sum(map(onnx_file.macs_of, plan.model.graph)), len(next(images.batches(), ()))
    if images.n < max(method_choice.FEWEST, 4 * size):
        said = f"not fitted to the logits, as {images.n} images are too few"
    elif cost > method_choice.MOST_MACS or onnx_file.parameters(plan.model) > method_choice.MOST_PARAMETERS:
        said = "not fitted to the logits, as that takes long for a network of this size"
    elif not present("torch"):
        said = "not fitted to the logits, as torch is not installed"
    else:
        from deploy_kit.quantization.int8 import bias_fit  # torch takes seconds and hundreds of MiB

        said = bias_fit.fit(plan, write, images)
    images.context.note("biases", said)
    images.context.on_progress(ProgressEvent(stage="quantize", text=f"biases: {said}"))
