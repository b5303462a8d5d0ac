"""IEEE half precision: weights and activations in float16, input and output in float32."""

from pathlib import Path

import onnx_ir as ir

from deploy_kit.quantization.schemes import Calibration, Scheme
from deploy_kit.quantization.schemes._half import HalfOptions, convert


def apply(source: Path, target: Path, options: HalfOptions, calibration: Calibration | None) -> None:
    """Write the graph typed in float16."""
    convert(source, target, ir.DataType.FLOAT16, options, calibration)


SCHEME = Scheme(
    package="onnx_ir",
    precision="fp16",
    options=HalfOptions,
    calibrates=False,
    observes=True,
    apply=apply,
    libraries=("onnxruntime", "onnx", "onnx-ir"),
)
