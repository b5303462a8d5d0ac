"""The method of ranges and the rounding of weights, chosen by calibration images that were not calibrated with.

Candidates are quantized on every second batch and judged on the batches between, then the other way round:

    d_i = |y_i(default) - y_i|² - |y_i(candidate) - y_i|²        y_i: the logits of the float graph for image i

A candidate replaces the default where the mean of d is above twice its standard error, and of several the one with the
least error does. All else is a tie, and the default stays. Methods are judged with the default rounding, as the noise
of another would hide or turn their differences; then roundings with the method that won.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnx_ir as ir

from deploy_kit.base.lazy import need
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.graph import onnx_file
from deploy_kit.quantization.int8 import mixed_precision, observation, plan
from deploy_kit.quantization.int8.observation import ImageStream, Observed
from deploy_kit.quantization.int8.plan import Int8Choices, Int8Plan, PreparedGraph, Rounding
from deploy_kit.quantization.int8.range_selection import RangeMethod, RangeTarget
from deploy_kit.quantization.ranges.reduced_graph import ObservedActivations
from deploy_kit.quantization.ranges.thresholds import Method

FEWEST, MOST = 64, 512
"""Images that a choice needs, and those that it makes use of, spread over all."""

MOST_MACS, MOST_PARAMETERS = 5e8, 2_000_000
"""Multiply-accumulates of one image, and parameters, up to which a choice is made.

It rounds the weights six times over, which took 190 s for a DenseNet-121 (7 million parameters) at 64 px.
"""

_BYTES = 512 * 2**20  # of images, and of outputs as float64: the float graph's and a candidate's
_METHODS: tuple[Method, ...] = ("mse", "minmax", "percentile")  # `entropy` has lost on every network tried
_ROUNDINGS: tuple[Rounding, ...] = ("nearest", "descent")
_CERTAIN = 2.0  # standard errors
_Name = TypeVar("_Name", bound=str)


@dataclass(frozen=True, kw_only=True)
class OpenChoice:
    """What is left to choose; what is not is as the choices say."""

    method: bool
    rounding: bool


def choose(
    source: Path,
    choices: Int8Choices,
    left: OpenChoice,
    images: ImageStream,
    write: Callable[[Int8Plan], ir.Model],
) -> Int8Choices:
    """Choose what is open, and say why: as fact ``choice`` and as progress.

    Args:
        source: A float32 ONNX file.
        choices: The defaults, and what was asked for.
        left: What is open.
        images: The calibration images.
        write: Writes a plan as a graph; leaves the plan's model as it is.

    Raises:
        QuantizeError: The graph cannot be quantized, or an activation is not finite.
    """
    chosen, said = _chosen(source, choices, left, images, write)
    text = f"{chosen.ranging.method}, rounding {chosen.rounding}: {said}"
    images.context.note("choice", text)
    images.context.on_progress(ProgressEvent(stage="quantize", text=f"chosen {text}"))
    return chosen


def _chosen(
    source: Path,
    choices: Int8Choices,
    left: OpenChoice,
    images: ImageStream,
    write: Callable[[Int8Plan], ir.Model],
) -> tuple[Int8Choices, str]:
    model = onnx_file.load(source)
    first = next(images.batches(), np.zeros(0))
    cost, size = sum(map(onnx_file.macs_of, model.graph)), len(first)
    if images.n < max(FEWEST, 4 * size):
        return choices, f"the default, as {images.n} images are too few to choose by ({max(FEWEST, 4 * size)})"
    parameters = onnx_file.parameters(model)
    if cost > MOST_MACS or parameters > MOST_PARAMETERS:
        large = f"{cost / 1e9:.1f} GMACs an image and {parameters / 1e6:.1f} million parameters"
        return choices, f"the default, as choosing takes long for a network of {large}"
    image = first.nbytes // size + 16 * math.prod(logits(model, [first]).shape[1:])
    most = min(MOST, _BYTES // image)
    if most < max(FEWEST, 4 * size):
        return choices, f"the default, as images and outputs of {image / 1e6:.0f} MB each are too large to choose by"
    trial = _Trial(plan.prepare(source, choices), model, images, most=most, size=size, write=write)
    said = []
    if left.method:
        by_method = {name: _ranged(choices, name) for name in _METHODS}
        method, words = trial.best(by_method, choices.ranging.method)
        choices = by_method[method]
        said.append(words)
    if left.rounding:
        by_rounding = {name: replace(choices, rounding=name) for name in _ROUNDINGS}
        rounding, words = trial.best(by_rounding, choices.rounding)
        choices = by_rounding[rounding]
        said.append(words)
    return choices, f"{'; '.join(said)} (logits of {trial.n} calibration images held out in turns)"


def _ranged(choices: Int8Choices, method: Method) -> Int8Choices:
    return replace(choices, ranging=replace(choices.ranging, method=method))


class _Trial:
    """Two folds of the images, and the squared error of the logits that candidates leave on them."""

    def __init__(
        self,
        prepared: PreparedGraph,
        model: ir.Model,
        images: ImageStream,
        *,
        most: int,
        size: int,
        write: Callable[[Int8Plan], ir.Model],
    ) -> None:
        self._prepared, self._write = prepared, write
        every = max(1, -(-images.n // max(most, size)))
        used = [batch for at, batch in enumerate(images.batches()) if at % every == 0]
        self._folds, self.n = (used[::2], used[1::2]), size * len(used)
        self._float = [logits(model, fold) for fold in self._folds]
        self._errors: dict[Int8Choices, np.ndarray] = {}
        self._observed: dict[object, Observed] = {}

    def best(self, candidates: dict[_Name, Int8Choices], default: _Name) -> tuple[_Name, str]:
        """Return the name of the best candidate, and the signal to noise that each leaves, in words."""
        errors = {name: self._error(candidate) for name, candidate in candidates.items()}
        better = [name for name in candidates if name != default and surely_less(errors[name], errors[default])]
        best = min(better, key=lambda name: float(errors[name].mean()), default=default)
        power = float(np.mean([np.square(part).sum(1).mean() for part in self._float]))
        scores = ", ".join(
            f"{name} {10 * math.log10(max(power, 1e-30) / max(float(error.mean()), 1e-30)):.1f} dB"
            for name, error in errors.items()
        )
        least = min(candidates, key=lambda name: float(errors[name].mean()))
        return best, scores if best == least else f"{scores}, of which {least} is not better by more than chance"

    def _error(self, candidate: Int8Choices) -> np.ndarray:
        """Compute the squared error of the logits of each image, quantized on the fold that it is not in."""
        if candidate not in self._errors:
            parts = []
            for at, judged in enumerate(self._folds):
                seen, ranging = self._folds[1 - at], candidate.ranging
                made = plan.make_plan(
                    self._prepared,
                    candidate,
                    partial(iter, seen),
                    len(seen) * len(seen[0]),
                    observe=partial(self._observe, (at, ranging if ranging.settle else None)),
                )
                written = self._write(mixed_precision.keep_in_float(made, ()))
                parts.append(np.square(logits(written, judged) - self._float[at]).sum(1))
            self._errors[candidate] = np.concatenate(parts)
        return self._errors[candidate]

    def _observe(
        self,
        key: object,
        model: onnx.ModelProto,
        activations: ObservedActivations,
        targets: tuple[RangeTarget, ...],
        ranging: RangeMethod,
        images: ImageStream,
    ) -> Observed:
        """Observe a fold once: candidates share its statistics, and those of the first, `mse`, serve all methods."""
        if key not in self._observed:
            # How ranges move from look to look is told to nobody here: only who would stop there has targets.
            looked_at = targets if ranging.settle else ()
            self._observed[key] = observation.observe_images(model, activations, looked_at, ranging, images)
        return self._observed[key]


def surely_less(errors: np.ndarray, default: np.ndarray) -> bool:
    """Return whether paired errors (images,) are less than the default's by more than chance."""
    less = default - errors
    return bool(less.mean() > _CERTAIN * less.std(ddof=1) / math.sqrt(len(less)))


def logits(model: ir.Model, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Compute the first output (images, …) as float64 rows."""
    ort = need("onnxruntime", by="calibration")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # what any processor will compute
    proto: onnx.ModelProto = ir.serde.serialize_model(model)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    found = np.concatenate([session.run(None, {feed: batch})[0] for batch in batches]).astype(np.float64)
    return found.reshape(len(found), -1)
