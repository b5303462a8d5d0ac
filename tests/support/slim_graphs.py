"""Small networks with something to remove, and their images as a set of the product's own."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from dense_graphs import Sketch

from deploy_kit.base.progress import no_progress
from deploy_kit.graph import onnx_file
from deploy_kit.images import ImageSet
from deploy_kit.images.sets import of_pixels
from deploy_kit.records.artifacts import BareInput
from deploy_kit.records.slimming import ChannelCurve, ChannelCurves
from deploy_kit.slimming import compensation
from deploy_kit.slimming.compensation import SlimResult, SlimTask
from deploy_kit.slimming.curves import MeasuredCurves, measure


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
        return measure(Path(folder) / "source.onnx", *image_set(tensors), no_progress)


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


def curves(seed: int = 0, layers: int = 3, channels: int = 16, rest: int = 1000) -> ChannelCurves:
    """Draw curves of layers that share nothing, on top of `rest` multiply-accumulates."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(layers):
        steps = np.sort(generator.exponential(size=channels - 1))  # convex: each removal costs more than the last
        rows.append(
            ChannelCurve(
                name=f"layer{index}",
                reader=f"y{index}",
                macs=int(generator.integers(1000, 9000)) * channels,
                order=tuple(range(channels - 1)),
                errors=(0.0, *np.cumsum(steps).tolist()),
            )
        )
    total = rest + sum(row.macs for row in rows)
    return ChannelCurves(
        path="", sha256="", macs=total, n_images=1, curves=tuple(rows), refused=(), seconds=0, peak_memory_mib=0
    )


def chained(seed: int) -> ChannelCurves:
    """Three layers of one concatenation, each of which may go."""
    found, generator = curves(seed), np.random.default_rng(seed)
    rows = [
        replace(
            row,
            gone=tuple(np.sort(generator.exponential(8.0, index + 1))[::-1].tolist()),
            producer_macs=row.macs // 2,
            inputs=8 + 4 * index,
            outputs=4,
            readers=tuple(range(index + 1, 3)),
            beyond=100,
        )
        for index, row in enumerate(found.curves)
    ]
    return replace(found, curves=tuple(rows))
