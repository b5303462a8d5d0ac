"""Small networks with something to remove, and their images as a set of the product's own."""

import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
from dense_graphs import Sketch

from deploy_kit.base.progress import no_progress
from deploy_kit.graph import onnx_file
from deploy_kit.images import ImageSet
from deploy_kit.images.sets import of_pixels
from deploy_kit.records.artifacts import BareInput
from deploy_kit.slimming import compensation, curves
from deploy_kit.slimming.compensation import SlimResult, SlimTask
from deploy_kit.slimming.curves import MeasuredCurves


def planted(sketch: Sketch, x: str, repeats: int = 2, own: int = 4, n_out: int = 6) -> str:
    """Add 1×1 → ReLU → 3×3 whose first `own` channels the 1×1 makes `repeats` times."""
    n_in = sketch.n_channels[x]
    weight = sketch.generator.standard_normal((own, n_in, 1, 1)) / np.sqrt(n_in)
    bias = 0.3 * sketch.generator.standard_normal(own)
    inner = sketch.node(
        "Conv",
        x,
        sketch.constant(np.concatenate([weight] * repeats)),
        sketch.constant(np.concatenate([bias] * repeats)),
        channels=own * repeats,
    )
    return sketch.conv(sketch.node("Relu", inner), n_out, 3, pad=1)


def resnet(sketch: Sketch, x: str, inner: int = 16, outer: int = 8) -> str:
    """Add a bottleneck of a ResNet: 1×1 → 3×3 → 1×1, its input added through a 1×1."""
    y = sketch.node("Relu", sketch.norm(sketch.conv(x, inner), relu=False))
    y = sketch.node("Relu", sketch.conv(y, inner, 3, pad=1))
    return sketch.node("Relu", sketch.node("Add", sketch.conv(y, outer), sketch.conv(x, outer)))


def image_set(tensors: np.ndarray) -> tuple[ImageSet, BareInput]:
    """Make a set of tensors (N, C, …) float32."""
    return of_pixels("tensors", tensors, None), BareInput(shape=tensors.shape[1:])


def measured(model: ir.Model, tensors: np.ndarray) -> MeasuredCurves:
    """Measure the curves of a graph, through a file."""
    with tempfile.TemporaryDirectory() as folder:
        onnx_file.save(model, Path(folder) / "source.onnx")
        return curves.measure(Path(folder) / "source.onnx", *image_set(tensors), no_progress)


def slimmed(
    model: ir.Model, tensors: np.ndarray, kept: tuple[int, ...], found: MeasuredCurves | None = None
) -> tuple[ir.Model, SlimResult]:
    """Slim a graph to these numbers of channels, through files."""
    found = found or measured(model, tensors)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx_file.save(model, source)
        task = SlimTask(source=source, target=target, curves=found.curves, kept=kept, sensitivities=found.sensitivities)
        result = compensation.slim(task, *image_set(tensors), no_progress)
        assert {path.name for path in Path(folder).iterdir()} == {"source.onnx", "target.onnx"}
        return onnx_file.load(target), result
