"""INT8 as TensorRT takes it: int8 around 0, Q/DQ where it fuses them, from a DenseNet's structure.

See `deploy_kit.int8`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from deploy_kit import codec, graph, passes
from deploy_kit.int8 import explain, plan, symmetric
from deploy_kit.schemes import BLOCKS_KEY, Calibration, Scheme, _half


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a recipe's variant.

    Attributes:
        convolutions: That compute on integers: ``behind_norms``, where the quantizer is part of a kernel that is there
            anyway; ``blocks``, a dense layer's second one, too; or ``all``, and Gemm.
        concats: Quantize what concatenations read, one scale for a dense block.
        rest: Type of everything that stays float.
        equalize: Give concatenated channels one range before they are quantized; without it accuracy is lost.
        bias_correction: Let biases make up for what is known on average.
        rounding: Of weights: each to the ``nearest``, or by ``descent`` on the error of the outputs.
    """

    convolutions: symmetric.Convolutions = "behind_norms"
    concats: bool = False
    rest: Literal["fp16", "fp32"] = "fp16"
    equalize: bool = True
    bias_correction: bool = True
    rounding: plan.Rounding = "nearest"


def apply(source: Path, target: Path, options: Options, calibration: Calibration | None) -> None:
    """Write the Q/DQ graph.

    Raises:
        QuantizeError: The operator set is too old, nothing can be quantized, or an activation is not finite.
    """
    assert calibration is not None
    half = options.rest == "fp16"
    choices = plan.Choices(
        passes=(),
        signed=True,
        concats="flatten_concats",
        equalized=options.equalize,
        bias_correction=options.bias_correction,
        rounding=options.rounding,
    )
    made = plan.make(source, choices, calibration.batches, calibration.n_images)
    found = explain.blocks(made, "int8" if options.concats else options.rest)
    model = symmetric.write(
        made,
        convolutions=options.convolutions,
        concats=options.concats,
        scales=np.float16 if half else np.float32,
    )
    passes.apply(model, ("remove_unused",))
    if half:
        model = graph.reread(_half.raised(model, _half.QDQ_OPSET, source))
        _half.narrow(model, ir.DataType.FLOAT16, calibration, source)
    model.metadata_props[BLOCKS_KEY] = codec.canonical(found)
    graph.save(model, target)


SCHEME = Scheme(
    package="onnxruntime",
    precision="int8",
    options=Options,
    calibrates=True,
    apply=apply,
    libraries=("onnxruntime", "onnx", "onnx-ir"),
)
