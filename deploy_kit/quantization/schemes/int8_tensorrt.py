"""INT8 as TensorRT takes it: int8 around 0, Q/DQ where it fuses them, from a DenseNet's structure.

See `deploy_kit.quantization.int8`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import onnx_file, passes
from deploy_kit.quantization.int8 import explain, mixed_precision, plan, range_selection, symmetric
from deploy_kit.quantization.int8.range_selection import RangeMethod
from deploy_kit.quantization.ranges.thresholds import Method
from deploy_kit.quantization.schemes import BLOCKS_KEY, FLOAT_KEY, Calibration, PlannedMix, Scheme, _half
from deploy_kit.records import codec


@dataclass(frozen=True, kw_only=True)
class Int8TensorRtOptions:
    """Options of a recipe's variant.

    Attributes:
        convolutions: That compute on integers: ``behind_norms``, where the quantizer is part of a kernel that is there
            anyway; ``blocks``, a dense layer's second one, too; or ``all``, and Gemm.
        concats: Quantize what concatenations read, one scale for a dense block.
        rest: Type of everything that stays float.
        equalize: Give concatenated channels one range before they are quantized; without it accuracy is lost.
        method: How the ends of ranges are chosen (`deploy_kit.quantization.ranges.thresholds`).
        percentile: Share of the values that the method ``percentile`` encodes, in per cent.
        settle: Stop looking at images once the ranges have settled; extremes never do.
        bias_correction: Let biases make up for what is known on average.
        rounding: Of weights: each to the ``nearest``, or by ``descent`` on the error of the outputs.
        keep: Layer groups that stay in `rest`, by coordinate, e.g. ``denseblock1.denselayer1`` (`coordinates`).
    """

    convolutions: symmetric.Convolutions = "behind_norms"
    concats: bool = False
    rest: Literal["fp16", "fp32"] = "fp16"
    equalize: bool = True
    method: Method = "minmax"
    percentile: float = 99.99
    settle: bool = False
    bias_correction: bool = True
    rounding: plan.Rounding = "nearest"
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


def apply(source: Path, target: Path, options: Int8TensorRtOptions, calibration: Calibration | None) -> None:
    """Write the Q/DQ graph.

    Raises:
        QuantizeError: The operator set is too old, nothing can be quantized, or an activation is not finite.
        UnknownNameError: Nothing is called as `Options.keep` says.
    """
    assert calibration is not None
    planned(source, options, calibration).write(target, options.keep)


def planned(source: Path, options: Int8TensorRtOptions, calibration: Calibration) -> PlannedMix:
    """Observe the images, and give what writes the graph for any choice of groups that stay in float.

    Raises:
        QuantizeError: As `apply`.
    """
    choices = plan.Int8Choices(
        passes=("flatten_concats",),
        signed=True,
        equalized=options.equalize,
        bias_correction=options.bias_correction,
        rounding=options.rounding,
        ranging=options.ranging,
    )
    made = plan.make_plan(source, choices, calibration.batches, calibration.n_images, context=calibration.context)

    def write(target: Path, kept: tuple[str, ...]) -> None:
        if kept and options.rounding == "descent" and not made.rounded:
            # a weight's integers do not depend on what else is quantized
            _written(mixed_precision.copied(mixed_precision.keep_in_float(made, ())), options, calibration, source)
        model = _written(
            mixed_precision.copied(mixed_precision.keep_in_float(made, kept)), options, calibration, source
        )
        if kept:
            model.metadata_props[FLOAT_KEY] = json.dumps(kept)
        onnx_file.save(model, target)

    return PlannedMix(groups=mixed_precision.groups(made), write=write)


def _written(made: plan.Int8Plan, options: Int8TensorRtOptions, calibration: Calibration, source: Path) -> ir.Model:
    half = options.rest == "fp16"
    found = explain.blocks(made, "int8" if options.concats else options.rest, options.rest)
    model = symmetric.write_symmetric(
        made,
        convolutions=options.convolutions,
        concats=options.concats,
        scales=np.float16 if half else np.float32,
    )
    passes.apply_passes(model, ("remove_unused",))
    if half:
        model = onnx_file.reread(_half.raised(model, _half.QDQ_OPSET, source))
        _half.narrow(model, ir.DataType.FLOAT16, calibration, source)
    model.metadata_props[BLOCKS_KEY] = codec.canonical_json(found)
    return model


SCHEME = Scheme(
    package="onnxruntime",
    precision="int8",
    options=Int8TensorRtOptions,
    calibrates=True,
    apply=apply,
    libraries=("onnxruntime", "onnx", "onnx-ir", "onnxscript", "numpy"),
    planned=planned,
    simplifies=True,
)
