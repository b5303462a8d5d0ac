"""A bounded sample of the patches that convolutions on integers read, each as long as a row of the weights.

Pixels are gathered inside an augmented copy of the float graph, so whole tensors never leave the runtime.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from deploy_kit.base.lazy import need
from deploy_kit.graph import receptive_window
from deploy_kit.graph.receptive_window import Window
from deploy_kit.quantization.int8.grids import Grid

N_PATCHES = 2048
"""Patches of each convolution, over all images; fewer where there are fewer pixels. 1024 to 8192 give the same logits
within 0.5 dB, on the demo and on DenseNet-121 at 64×64."""

N_IMAGES = 32
"""Images that patches are taken from, spread over all; 16 to 512 give the same logits within 0.5 dB, too."""

_BYTES = 256 * 2**20  # of patches in memory; further convolutions wait for another pass over the images
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class SampledInput:
    """The input of one convolution or Gemm, to be sampled.

    Attributes:
        node: The convolution or Gemm.
        value: Name of its input.
        grid: Grid of its input.
        window: Geometry of the pixels that it reads; None for a Gemm.
        width: Length of a patch.
    """

    node: ir.Node
    value: str
    grid: Grid
    window: Window | None
    width: int


@dataclass(frozen=True, kw_only=True)
class Patches:
    """The sampled patches of one input, channels first, then taps; padding is 0.

    Attributes:
        entry: The input.
        read: (M, width) float32: the values that the integers stand for.
        mean: (width,) float64: mean of the float values at the same places.
    """

    entry: SampledInput
    read: np.ndarray
    mean: np.ndarray


def sampled_inputs(node: ir.Node, grid: Grid, width: int) -> SampledInput | None:
    """Describe the input of a node to sample; None where the node is grouped or its sizes are not known."""
    source, window = node.inputs[0], receptive_window.window_of(node) if node.op_type == "Conv" else None
    assert source is not None
    assert source.name is not None
    if node.op_type == "Conv" and (window is None or node.attributes.get_int("group", 1) != 1):
        return None
    return SampledInput(node=node, value=source.name, grid=grid, window=window, width=width)


def sample_patches(
    model: onnx.ModelProto, inputs: list[SampledInput], batches: Callable[[], Iterator[np.ndarray]], n_images: int
) -> Iterator[Patches]:
    """Sample patches of inputs, as many from each image; the draw is seeded.

    Args:
        model: A float32 graph; not changed.
        inputs: Inputs in graph order.
        batches: Returns an iterator over the images, (N, C, …) float32, from the start.
        n_images: Number of images.

    Yields:
        The patches of each input.
    """
    rest = list(inputs)
    while rest:
        sizes = np.cumsum([entry.width * N_PATCHES for entry in rest])
        n = max(int(np.searchsorted(sizes, _BYTES, side="right")), 1)
        patches = _pass(model, rest[:n], batches(), n_images)
        for entry in rest[:n]:
            parts = patches.pop(entry.node)
            whole = np.concatenate([integers for integers, _ in parts]).astype(np.float32)
            read = (whole - np.float32(entry.grid.zero)) * np.float32(entry.grid.scale)
            yield Patches(entry=entry, read=read, mean=np.sum([total for _, total in parts], axis=0) / len(read))
        rest = rest[n:]


def _pass(
    model: onnx.ModelProto, inputs: list[SampledInput], batches: Iterator[np.ndarray], n_images: int
) -> dict[ir.Node, list[tuple[np.ndarray, np.ndarray]]]:
    """Run the images once; returns the integers (M, width) and the sum (width,) of the floats of each batch by node."""
    ort = need("onnxruntime", by="calibration")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    augmented = _augmented(model, inputs).SerializeToString()
    session = ort.InferenceSession(augmented, options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    generators = [_generator(entry) for entry in inputs]
    found: dict[ir.Node, list[tuple[np.ndarray, np.ndarray]]] = {entry.node: [] for entry in inputs}
    for at, batch in enumerate(batches):
        every = max(1, n_images // max(N_IMAGES, len(batch)))  # one batch in so many: folders are sorted by class
        if at % every:
            continue
        n = -(-N_PATCHES // (len(batch) * -(-(n_images // len(batch)) // every)))
        places, inside = zip(*(_draw(e.window, n, g) for e, g in zip(inputs, generators, strict=True)), strict=True)
        feeds = {_at(i): place.reshape(-1) for i, place in enumerate(places) if inputs[i].window is not None}
        parts = session.run([_out(i) for i in range(len(inputs))], {feed: batch, **feeds})
        for entry, part, within in zip(inputs, parts, inside, strict=True):
            integers = _rows(_integers(part, entry.grid), within, entry.grid.zero)
            found[entry.node].append((integers, _rows(part, within, 0).sum(0, dtype=np.float64)))
    return found


def _generator(entry: SampledInput) -> np.random.Generator:
    """Seed the draw of a node by its name, so that it does not depend on what else is sampled."""
    return np.random.default_rng([_SEED, zlib.crc32(str(entry.node.outputs[0].name).encode())])


def _draw(window: Window | None, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw output pixels; returns what `Window.read` returns for them."""
    if window is None:
        return np.empty((0, 0), np.int64), np.empty((0, 0), bool)
    return window.read(np.sort(generator.permutation(window.n_outputs)[:n]))


def _integers(part: np.ndarray, grid: Grid) -> np.ndarray:
    """Quantize in float32, as the runtime does."""
    whole = np.rint(part / np.float32(grid.scale)) + np.float32(grid.zero)
    return np.clip(whole, grid.low, grid.high).astype(np.int8 if grid.signed else np.uint8)


def _rows(part: np.ndarray, inside: np.ndarray, zero: int) -> np.ndarray:
    """Arrange (N, C, M·taps) as (N·M, C·taps); padding holds the integer of 0."""
    if part.ndim == 2:
        return part
    n, channels = part.shape[:2]
    split = np.where(inside, part.reshape(n, channels, *inside.shape), part.dtype.type(zero))
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3)).reshape(n * len(inside), -1)


def _out(i: int) -> str:
    return f"patches.{i}"


def _at(i: int) -> str:
    return f"patches.{i}.at"


def _augmented(model: onnx.ModelProto, inputs: list[SampledInput]) -> onnx.ModelProto:
    """Copy the graph; its outputs become the pixels whose places are fed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.initializer.append(helper.make_tensor("patches.shape", onnx.TensorProto.INT64, [3], [0, 0, -1]))
    for i, entry in enumerate(inputs):
        if entry.window is None:
            copy.graph.node.append(helper.make_node("Identity", [entry.value], [_out(i)]))
        else:
            flat = f"{_out(i)}.flat"
            copy.graph.input.append(helper.make_tensor_value_info(_at(i), onnx.TensorProto.INT64, [None]))
            copy.graph.node.append(helper.make_node("Reshape", [entry.value, "patches.shape"], [flat]))
            copy.graph.node.append(helper.make_node("Gather", [flat, _at(i)], [_out(i)], axis=2))
        copy.graph.output.append(helper.make_tensor_value_info(_out(i), onnx.TensorProto.FLOAT, None))
    return copy
