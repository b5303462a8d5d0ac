"""INT8 as TensorRT takes it: int8 around 0, Q/DQ where it fuses them, from a DenseNet's structure.

See `deploy_kit.quantization.int8`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import onnx_file, passes
from deploy_kit.quantization.int8 import explain, mixed_precision, symmetric
from deploy_kit.quantization.int8.plan import Int8Plan
from deploy_kit.quantization.schemes import BLOCKS_KEY, Calibration, PlannedMix, _half, _int8
from deploy_kit.records import codec


@dataclass(frozen=True, kw_only=True)
class Int8TensorRtOptions(_int8.Int8Options):
    """Options of a recipe's variant, beside those of every INT8 layout.

    Attributes:
        convolutions: Convolutions that compute on integers: ``behind_norms``, where the quantizer is part of a kernel
            that is there anyway; ``blocks``, a dense layer's second one, too; or ``all``, and Gemm.
        concats: Quantize what concatenations read, with one scale for a dense block.
        rest: Type of everything that stays float.
    """

    convolutions: symmetric.Convolutions = "behind_norms"
    concats: bool = False
    rest: Literal["fp16", "fp32"] = "fp16"


def planned(source: Path, options: Int8TensorRtOptions, calibration: Calibration) -> PlannedMix:
    """Observe the images, and return what writes the Q/DQ graph for any choice of groups that stay in `rest`.

    Raises:
        QuantizeError: The operator set is too old, nothing can be quantized, or an activation is not finite.
    """
    choices = options.choices(passes=("flatten_concats", "cast_pixels_first"), signed=True)
    write = partial(_write, options=options, calibration=calibration, source=source)
    return _int8.plan_mix(source, choices, options.open, calibration, write)


def _write(plan: Int8Plan, options: Int8TensorRtOptions, calibration: Calibration, source: Path) -> ir.Model:
    plan, half = mixed_precision.copied(plan), options.rest == "fp16"
    blocks = explain.blocks(plan, "int8" if options.concats else options.rest, options.rest)
    model = symmetric.write_symmetric(
        plan,
        convolutions=options.convolutions,
        concats=options.concats,
        scales=np.float16 if half else np.float32,
    )
    passes.apply_passes(model, ("remove_unused",))
    if half:
        model = onnx_file.reread(_half.raised(model, _half.QDQ_OPSET, source))
        _half.narrow(model, ir.DataType.FLOAT16, calibration, source)
    model.metadata_props[BLOCKS_KEY] = codec.canonical_json(blocks)
    return model


SCHEME = _int8.scheme(Int8TensorRtOptions, planned)
