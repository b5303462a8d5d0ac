"""bfloat16: float32's range with 8 bits of fraction; the file needs operator set 22."""

from pathlib import Path

import onnx_ir as ir

from deploy_kit.quantization.schemes import Calibration, Scheme
from deploy_kit.quantization.schemes._half import HalfOptions, convert


def apply(source: Path, target: Path, options: HalfOptions, calibration: Calibration | None) -> None:
    """Write the graph in bfloat16."""
    convert(source, target, ir.DataType.BFLOAT16, options, calibration)


SCHEME = Scheme(
    package="onnx_ir",
    precision="bf16",
    options=HalfOptions,
    calibrates=False,
    observes=True,
    apply=apply,
    libraries=("onnxruntime", "onnx", "onnx-ir"),
)
