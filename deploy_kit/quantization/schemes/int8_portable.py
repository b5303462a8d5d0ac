"""INT8 as one standard-ONNX file that ONNX Runtime and OpenVINO both run at their best, from a DenseNet's structure.

Each dense block stays on one uint8 grid from end to end; nothing is quantized twice: see `quantization.int8`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from deploy_kit.graph import sums_of_two
from deploy_kit.quantization.int8 import explain, portable
from deploy_kit.quantization.int8.plan import Int8Plan
from deploy_kit.quantization.schemes import BLOCKS_KEY, Calibration, PlannedMix, _int8
from deploy_kit.records import codec

_MOVES = ("split_to_slices", "shuffle_to_gather", "divide_sliced_convolutions", "transposed_to_convolution")
_PASSES = {
    "max": (*_MOVES, "clip_to_bounds", "remove_unused", "relu_after_pool", "batchnorm_to_max"),
    "depthwise": (*_MOVES, "remove_unused", "relu_after_pool"),
}


@dataclass(frozen=True, kw_only=True)
class Int8PortableOptions(_int8.Int8Options):
    """Options of a recipe's variant, beside those of every INT8 layout.

    Attributes:
        form: What BN + ReLU become: ``max``, one integer maximum, or ``depthwise``, an integer convolution: slower,
            for an ONNX Runtime that has no integer maximum (`versions.INTEGER_MAXIMUM`).
        reduce_range: Neighbouring weights are at most 128 together, for x64 processors without VNNI, whose 16-bit sums
            would saturate (`deploy_kit.graph.sums_of_two`).
        fit_biases: Fit the biases to the float logits where torch is installed, the network is small and images held
            out agree (`deploy_kit.quantization.int8.bias_fit`); not without `bias_correction`.
    """

    form: Literal["max", "depthwise"] = "max"
    reduce_range: bool = False
    fit_biases: bool = True
    method: _int8.OpenMethod = "auto"
    rounding: _int8.OpenRounding = "auto"


def planned(source: Path, options: Int8PortableOptions, calibration: Calibration) -> PlannedMix:
    """Observe the images, and return what writes the integer graph for any choice of groups that stay in float.

    Raises:
        QuantizeError: The operator set is too old, nothing can be quantized, or an activation is not finite.
    """
    choices = options.choices(passes=_PASSES[options.form], narrow_sums=options.reduce_range)
    fits = options.fit_biases and options.bias_correction
    return _int8.plan_mix(source, choices, options.open, calibration, _write, fits_biases=fits)


def _write(plan: Int8Plan) -> ir.Model:
    blocks = explain.blocks(plan)
    model = portable.write_portable(plan)
    model.metadata_props[BLOCKS_KEY] = codec.canonical_json(blocks)
    sums_of_two.note(model)
    return model


SCHEME = _int8.scheme(Int8PortableOptions, planned)
