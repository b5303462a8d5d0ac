"""Float32 in the form that a target prefers: exact rewrites on top of the recipe's."""

from dataclasses import dataclass
from pathlib import Path

from deploy_kit.graph import onnx_file, passes
from deploy_kit.quantization.schemes import Calibration, Scheme


@dataclass(frozen=True, kw_only=True)
class Fp32Options:
    """Options of a recipe's variant.

    Attributes:
        passes: Graph passes in their order, for a target that prefers them (`recipe.targets`).
    """

    passes: tuple[str, ...] = ()


def apply(source: Path, target: Path, options: Fp32Options, calibration: Calibration | None) -> None:
    """Rewrite the graph.

    Raises:
        UnknownNameError: A pass does not exist.
    """
    model = onnx_file.load(source)
    passes.apply_passes(model, options.passes)
    onnx_file.save(model, target)


SCHEME = Scheme(
    package="onnx_ir",
    precision="fp32",
    options=Fp32Options,
    calibrates=False,
    apply=apply,
    libraries=("onnx-ir", "onnx"),
)
