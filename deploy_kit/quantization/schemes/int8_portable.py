"""INT8 as one standard-ONNX file that ONNX Runtime and OpenVINO both run at their best, from a DenseNet's structure.

Each dense block stays on one uint8 grid from end to end; nothing is quantized twice. See `quantization.int8`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy_kit.graph import onnx_file
from deploy_kit.quantization.int8 import explain, mixed_precision, plan, portable, range_selection
from deploy_kit.quantization.int8.range_selection import RangeMethod
from deploy_kit.quantization.ranges.thresholds import Method
from deploy_kit.quantization.schemes import BLOCKS_KEY, FLOAT_KEY, Calibration, PlannedMix, Scheme
from deploy_kit.records import codec

_PASSES = {"max": ("relu_after_pool", "batchnorm_to_max"), "depthwise": ("relu_after_pool",)}


@dataclass(frozen=True, kw_only=True)
class Int8PortableOptions:
    """Options of a recipe's variant.

    Attributes:
        form: What BN + ReLU become: ``max``, one integer maximum, or ``depthwise``, an integer convolution: slower,
            for an ONNX Runtime that has no integer maximum (`versions.INTEGER_MAXIMUM`).
        reduce_range: Weights in 7 bits, for x64 processors without VNNI, whose 16-bit sums would saturate.
        equalize: Give concatenated channels one range first; without it accuracy is lost.
        method: How the ends of ranges are chosen (`deploy_kit.quantization.ranges.thresholds`).
        percentile: Share of the values that the method ``percentile`` encodes, in per cent.
        settle: Stop looking at images once the ranges have settled; extremes never do.
        bias_correction: Let biases make up for what is known on average.
        rounding: Of weights: each to the ``nearest``, or by ``descent`` on the error of the outputs.
        keep: Layer groups that compute in float32, by coordinate, e.g. ``denseblock1.denselayer1`` (`coordinates`).
    """

    form: Literal["max", "depthwise"] = "max"
    reduce_range: bool = False
    equalize: bool = True
    method: Method = "minmax"
    percentile: float = 99.99
    settle: bool = False
    bias_correction: bool = True
    rounding: plan.Rounding = "descent"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a percentile that leaves nothing.

        Raises:
            RecipeError: It is not above 50 and at most 100.
        """
        range_selection.ranging(self.method, self.percentile, self.settle)

    @property
    def ranging(self) -> RangeMethod:
        """How the ends of ranges are chosen."""
        return range_selection.ranging(self.method, self.percentile, self.settle)


def apply(source: Path, target: Path, options: Int8PortableOptions, calibration: Calibration | None) -> None:
    """Write the integer graph.

    Raises:
        QuantizeError: The operator set is too old, nothing can be quantized, or an activation is not finite.
        UnknownNameError: Nothing is called as `Options.keep` says.
    """
    assert calibration is not None
    planned(source, options, calibration).write(target, options.keep)


def planned(source: Path, options: Int8PortableOptions, calibration: Calibration) -> PlannedMix:
    """Observe the images, and give what writes the graph for any choice of groups that stay in float.

    Raises:
        QuantizeError: As `apply`.
    """
    choices = plan.Int8Choices(
        passes=_PASSES[options.form],
        bits=7 if options.reduce_range else 8,
        equalized=options.equalize,
        ranging=options.ranging,
        bias_correction=options.bias_correction,
        rounding=options.rounding,
    )
    made = plan.make_plan(source, choices, calibration.batches, calibration.n_images, context=calibration.context)

    def write(target: Path, kept: tuple[str, ...]) -> None:
        if kept and options.rounding == "descent" and not made.rounded:
            portable.write_portable(
                mixed_precision.keep_in_float(made, ())
            )  # a weight's integers do not depend on what else is quantized
        mixed = mixed_precision.keep_in_float(made, kept)
        found = explain.blocks(mixed)
        model = portable.write_portable(mixed)
        model.metadata_props[BLOCKS_KEY] = codec.canonical_json(found)
        if kept:
            model.metadata_props[FLOAT_KEY] = json.dumps(kept)
        onnx_file.save(model, target)

    return PlannedMix(groups=mixed_precision.groups(made), write=write)


SCHEME = Scheme(
    package="onnxruntime",
    precision="int8",
    options=Int8PortableOptions,
    calibrates=True,
    apply=apply,
    libraries=("onnxruntime", "onnx", "onnx-ir", "onnxscript", "numpy"),
    planned=planned,
    simplifies=True,
)
