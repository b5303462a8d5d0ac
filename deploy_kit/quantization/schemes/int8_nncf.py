"""Static Q/DQ by NNCF's post-training quantization, which places quantizers as OpenVINO fuses them."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from deploy_kit.base.errors import QuantizeError
from deploy_kit.base.lazy import need
from deploy_kit.quantization.schemes import Calibration, Scheme


@dataclass(frozen=True, kw_only=True)
class Int8NncfOptions:
    """Options of a recipe's variant.

    Attributes:
        preset: ``mixed`` has asymmetric activations, ``performance`` symmetric ones.
        ranges: ``mean_minmax`` is NNCF's default; ``minmax`` keeps outliers and reaches a higher SQNR on DenseNets.
        bias_correction: Correct biases by the mean error of each layer.
    """

    preset: Literal["mixed", "performance"] = "mixed"
    ranges: Literal["mean_minmax", "minmax"] = "mean_minmax"
    bias_correction: bool = True


def apply(source: Path, target: Path, options: Int8NncfOptions, calibration: Calibration | None) -> None:
    """Write the graph with Q/DQ pairs.

    Raises:
        QuantizeError: NNCF cannot quantize this graph.
    """
    assert calibration is not None
    nncf = need("nncf", by="scheme 'int8_nncf'")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = onnx.load(source)
    dataset = nncf.Dataset(_Stream(calibration), lambda batch: {calibration.input_name: batch})
    try:
        typed = nncf.quantize(
            model,
            dataset,
            preset=nncf.QuantizationPreset(options.preset),
            subset_size=calibration.n_batches,
            fast_bias_correction=True,
            advanced_parameters=_advanced(nncf, options),
        )
    except _errors() as error:
        raise QuantizeError(
            f"{source}: NNCF failed: {error}", hint="simplify the graph first, or use the scheme int8_ort"
        ) from error
    onnx.save(typed, target)
    onnx.checker.check_model(str(target), full_check=True)


def _errors() -> tuple[type[Exception], ...]:
    """List what NNCF raises: its own exceptions have no common root."""
    module = vars(need("nncf.errors", by="scheme 'int8_nncf'"))
    own = [entry for entry in module.values() if isinstance(entry, type) and issubclass(entry, Exception)]
    return (RuntimeError, ValueError, *own)


class _Stream:
    """Calibration as NNCF takes it: an iterable with a length that can be iterated over more than once."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    def __iter__(self):  # type: ignore[no-untyped-def]  # NNCF asks for any iterable
        return self._calibration.batches()

    def __len__(self) -> int:
        return self._calibration.n_batches


def _advanced(nncf: object, options: Int8NncfOptions) -> object:
    advanced = need("nncf.quantization.advanced_parameters", by="scheme 'int8_nncf'")
    estimator = need("nncf.quantization.range_estimator", by="scheme 'int8_nncf'")
    chosen = {}
    if options.ranges == "minmax":
        chosen["activations_range_estimator_params"] = estimator.RangeEstimatorParametersSet.MINMAX
    return advanced.AdvancedQuantizationParameters(disable_bias_correction=not options.bias_correction, **chosen)


SCHEME = Scheme(
    package="nncf",
    precision="int8",
    options=Int8NncfOptions,
    calibrates=True,
    apply=apply,
    libraries=("nncf", "onnxruntime", "onnx"),
)
