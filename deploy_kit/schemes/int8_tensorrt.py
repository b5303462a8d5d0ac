"""INT8 as TensorRT takes it: int8 around 0, Q/DQ where it fuses them, from a DenseNet's structure.

See `deploy_kit.int8`.
"""

from dataclasses import dataclass
from pathlib import Path

from deploy_kit import codec, graph, passes
from deploy_kit.int8 import explain, plan, symmetric
from deploy_kit.schemes import BLOCKS_KEY, Calibration, Scheme


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a recipe's variant.

    Attributes:
        concats: Quantize what concatenations read, one scale for a dense block: its maps move as bytes. Otherwise
            they move as floats, without the rounding.
        equalize: Give concatenated channels one range first; without it accuracy is lost.
    """

    concats: bool = True
    equalize: bool = True


def apply(source: Path, target: Path, options: Options, calibration: Calibration | None) -> None:
    """Write the Q/DQ graph.

    Raises:
        QuantizeError: The operator set is too old, nothing can be quantized, or an activation is not finite.
    """
    assert calibration is not None
    choices = plan.Choices(passes=(), signed=True, equalized=options.equalize)
    made = plan.make(source, choices, calibration.batches, calibration.n_images)
    found = explain.blocks(made)
    model = symmetric.write(made, concats=options.concats)
    passes.apply(model, ("remove_unused",))
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
