"""The walk from front to back: every layer whose inputs a removal has changed is refitted to its original output.

Both networks go through the calibration images side by side, one layer at a time. A layer is refitted to the original's
output on the inputs that the slimmed network gives it by then, so that it makes up for what happened before it as well;
then the images go on with its new weights. Activations that later layers read wait in files: memory does not grow with
the images. The 1×1 that makes a bottleneck's channels keeps its weights.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from deploy_kit.base.progress import ProgressCallback, ProgressEvent
from deploy_kit.graph import onnx_file, passes
from deploy_kit.graph.torch_graph import TorchGraph
from deploy_kit.images import ImageSet
from deploy_kit.records.artifacts import BareInput, Preprocess
from deploy_kit.records.slimming import ChannelCurve, SlimmedLayer, errors, left
from deploy_kit.slimming import bottlenecks, curves, ridge, slices, surgery
from deploy_kit.slimming.bottlenecks import Bottleneck
from deploy_kit.slimming.patches import PatchSampler

_STOPS = frozenset({"Add", "AveragePool", "Conv", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "MatMul", "MaxPool"})
"""Operators whose results are kept for later layers; everything else is computed again by each that reads it."""

_BATCH_BYTES, _KEPT_BYTES = 32 * 2**20, 256 * 2**20
_ROWS = 4096  # sums in float64 cost more than products of fewer


@dataclass(frozen=True, kw_only=True)
class SlimTask:
    """What is to be made.

    Attributes:
        source: The float32 ONNX file.
        target: File to write.
        curves: What removals cost, in graph order.
        kept: Number of channels to keep for each curve; 0 takes the whole layer out.
        sensitivities: F (O, O) of each.
    """

    source: Path
    target: Path
    curves: tuple[ChannelCurve, ...]
    kept: tuple[int, ...]
    sensitivities: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True)
class SlimResult:
    """What was made.

    Attributes:
        macs: Multiply-accumulates of the graph for one image that are left.
        layers: What became of each place.
    """

    macs: int
    layers: tuple[SlimmedLayer, ...]


def slim(
    task: SlimTask, images: ImageSet, preprocess: Preprocess | BareInput, on_progress: ProgressCallback
) -> SlimResult:
    """Remove channels, refit what follows, and write the graph.

    Args:
        task: What is to be made.
        images: Calibration images; labels are not read.
        preprocess: How images become the input.
        on_progress: Called with progress events.

    Returns:
        What was made.
    """
    model, narrowed = onnx_file.load(task.source), onnx_file.load(task.source)
    stay = [curve.kept(max(n, 1)) for curve, n in zip(task.curves, task.kept, strict=True)]
    places = surgery.narrow_all(narrowed, stay)
    emptied = tuple(place.reader for place, n in zip(places, task.kept, strict=True) if n == 0)
    walk = _Walk(model, narrowed, _changed(narrowed, places, task), {p.producer for p in places}, emptied)
    seen = walk.through(task, images, preprocess, on_progress)
    layers = tuple(
        SlimmedLayer(
            name=curve.name,
            channels=curve.channels,
            kept=n,
            macs_before=curve.macs,
            macs_after=after,
            predicted=error,
            seen=seen.get(curve.reader, 0.0),
        )
        for curve, n, after, error in zip(
            task.curves, task.kept, left(task.curves, task.kept), errors(task.curves, task.kept), strict=True
        )
    )
    slices.cut_out(narrowed, emptied)
    passes.apply_passes(narrowed, ("remove_unused",))
    done = onnx_file.reread(surgery.forget_shapes(narrowed))
    channels = {layer.name: (layer.channels, layer.kept) for layer in layers}
    surgery.mark(done, onnx_file.macs(model), onnx_file.macs(done), channels)
    onnx_file.save(done, task.target)
    return SlimResult(macs=onnx_file.macs(done), layers=layers)


def _changed(model: ir.Model, places: tuple[Bottleneck, ...], task: SlimTask) -> set[ir.Node]:
    """List the nodes whose inputs are not what they were in the original."""
    cut = {p.reader for p, c, n in zip(places, task.curves, task.kept, strict=True) if n < c.channels}
    values, nodes = set[ir.Value](), set[ir.Node]()
    for node in model.graph:
        if node in cut or any(value in values for value in node.inputs if value is not None):
            nodes.add(node)
            values.update(node.outputs)
    return nodes


class _Activations:
    """Activations in files: one for each value of each network, the batches one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._names = folder, dict[tuple[bool, str], int]()
        self._places: dict[tuple[bool, str], list[tuple[int, tuple[int, ...]]]] = {}

    def add(self, slim: bool, name: str, batch: torch.Tensor) -> None:
        key = slim, name
        self._names.setdefault(key, len(self._names))
        array = batch.contiguous().numpy()
        with self._path(key).open("ab") as file:
            self._places.setdefault(key, []).append((file.tell(), array.shape))
            file.write(array.data)  # `tofile` does not say why it cannot write

    def read(self, slim: bool, name: str, index: int) -> torch.Tensor:
        """Read a batch; where the slimmed network has none of its own, the original's is its own as well."""
        key = (slim, name) if (slim, name) in self._places else (False, name)
        at, shape = self._places[key][index]
        flat = np.fromfile(self._path(key), np.float32, int(np.prod(shape)), offset=at)
        return torch.from_numpy(flat.reshape(shape))

    def drop(self, name: str) -> None:
        for slim in (False, True):
            if self._places.pop((slim, name), None) is not None:
                self._path((slim, name)).unlink()

    def _path(self, key: tuple[bool, str]) -> Path:
        return self._folder / f"{self._names[key]}.bin"


class _Walk:
    """Both networks, node by node: `_nodes[0]` of the original and `_nodes[1]` of the slimmed stand at one index."""

    def __init__(
        self,
        model: ir.Model,
        narrowed: ir.Model,
        changed: set[ir.Node],
        producers: set[ir.Node],
        emptied: tuple[ir.Node, ...],
    ) -> None:
        self._emptied = frozenset(emptied)
        self._nodes = tuple(model.graph), tuple(narrowed.graph)
        self._changed = {index for index, node in enumerate(self._nodes[1]) if node in changed}
        stops = {i for i, node in enumerate(self._nodes[1]) if node.op_type in _STOPS and node not in producers}
        self._stops = sorted(stops)
        self._refits = {
            i
            for i in stops & self._changed
            if bottlenecks.refittable(self._nodes[1][i]) and bottlenecks.width(self._nodes[1][i]) <= bottlenecks.WIDEST
        }
        for index in self._refits:
            surgery.own_parameters(narrowed, self._nodes[1][index])
        self._graphs = TorchGraph(model), TorchGraph(narrowed)
        maker = {str(node.outputs[0].name): index for index, node in enumerate(self._nodes[0])}
        self._cones = {stop: self._cone(stop, maker, stops) for stop in self._stops}
        self._last = {name: stop for stop in self._stops for name in self._cones[stop][1]}
        self._largest = curves.activation_bytes(model)[0]

    def through(
        self, task: SlimTask, images: ImageSet, preprocess: Preprocess | BareInput, on_progress: ProgressCallback
    ) -> dict[str, float]:
        """Walk; returns the weighted error of each reader, by its output."""
        cost = {c.reader: torch.from_numpy(f) for c, f in zip(task.curves, task.sensitivities, strict=True)}
        seen, last = dict[str, float](), max(self._refits, default=-1)
        with tempfile.TemporaryDirectory(dir=task.target.parent) as folder, torch.no_grad():
            held = _Activations(Path(folder))
            size = max(1, min(32, _BATCH_BYTES // self._largest))
            numbers = list[tuple[int, int]]()
            for batch in images.batches(preprocess, size):
                numbers.append((sum(n for _, n in numbers), len(batch)))
                held.add(False, self._graphs[0].input, torch.from_numpy(batch))
            for stop in self._stops:
                if stop > last:
                    break
                name = str(self._nodes[0][stop].outputs[0].name)
                text = f"slim: refitting {images.n} images"
                on_progress(ProgressEvent(stage="slim", text=text, done=stop, total=len(self._nodes[0])))
                error = self._pass(stop, held, numbers, images.n, cost.get(name))
                if error is not None:
                    seen[name] = error
                for source in [s for s, at in self._last.items() if at == stop]:
                    held.drop(source)
        return seen

    def _cone(self, stop: int, maker: dict[str, int], stops: set[int]) -> tuple[list[int], list[str]]:
        """Return the nodes in front of a stop that are computed again, and the kept values that they begin with."""
        inside, sources = set[int](), dict[str, None]()
        rest = [str(v.name) for v in self._nodes[0][stop].inputs if v is not None]
        while rest:
            name = rest.pop()
            if name in self._graphs[0].constants:
                continue
            index = maker.get(name)
            if index is None or index in stops:
                sources[name] = None
            elif index not in inside:
                inside.add(index)
                rest += [str(v.name) for v in self._nodes[0][index].inputs if v is not None]
        return sorted(inside), list(sources)

    def _inputs(self, slim: bool, stop: int, held: _Activations, index: int) -> list[torch.Tensor | None]:
        cone, sources = self._cones[stop]
        values = {name: held.read(slim, name, index) for name in sources}
        graph, nodes = self._graphs[slim], self._nodes[slim]
        graph.run(values, (nodes[i] for i in cone))
        names = [None if v is None else str(v.name) for v in nodes[stop].inputs]
        return [None if n is None else values.get(n, graph.constants.get(n)) for n in names]

    def _pass(
        self,
        stop: int,
        held: _Activations,
        numbers: list[tuple[int, int]],
        n_images: int,
        cost: torch.Tensor | None,
    ) -> float | None:
        """Compute one stop of both networks for all images; refit it where it is to be."""
        nodes, name = (self._nodes[0][stop], self._nodes[1][stop]), str(self._nodes[0][stop].outputs[0].name)
        fit = _Fit(nodes[1], n_images) if stop in self._refits else None
        kept, size = list[list[torch.Tensor | None]](), 0
        for index, (first, n) in enumerate(numbers):
            y = self._graphs[0].compute(nodes[0], self._inputs(False, stop, held, index))
            if name in self._last:
                held.add(False, name, y)
            if stop not in self._changed:
                continue
            inputs = self._inputs(True, stop, held, index)
            if fit is None:
                held.add(True, name, self._graphs[1].compute(nodes[1], inputs))
                continue
            x = inputs[0]
            assert x is not None
            fit.add(x, y, torch.arange(first, first + n))
            if index == len(kept) and size + x.nbytes <= _KEPT_BYTES:
                kept, size = [*kept, [x]], size + x.nbytes
        if fit is None:
            return None
        fit.finish()
        error = self._refitted(fit, nodes[1], cost)
        if name in self._last:
            for index in range(len(numbers)):
                inputs = kept[index] if index < len(kept) else self._inputs(True, stop, held, index)
                held.add(True, name, self._graphs[1].compute(nodes[1], [inputs[0], *self._parameters(nodes[1])]))
        return error

    def _parameters(self, node: ir.Node) -> list[torch.Tensor]:
        return [self._graphs[1].constants[str(value.name)] for value in node.inputs[1:3] if value is not None]

    def _refitted(self, fit: "_Fit", node: ir.Node, cost: torch.Tensor | None) -> float | None:
        """Give a node its new weights; returns the error that is left, weighted by `cost`."""
        before = self._parameters(node)[0]
        turned = node.op_type == "Gemm" and not node.attributes.get_int("transB", 0)
        rows = (before if turned else before.flatten(1).T).double()
        everything = fit.fitted + fit.held_out
        if node in self._emptied:
            weights, shifted = torch.zeros_like(rows), everything.across[-1] / everything.n
        else:
            weights, shifted = ridge.refit(fit.fitted, fit.held_out, everything, rows)
        bias = shifted - weights.T @ fit.shift
        new = (weights if turned else weights.T).reshape(before.shape).float().contiguous()
        surgery.set_parameters(node, new.numpy(), bias.numpy())
        for value, tensor in zip(node.inputs[1:3], (new, bias.float()), strict=True):
            assert value is not None
            self._graphs[1].constants[str(value.name)] = tensor
        if cost is None:
            return None
        left = everything.residual(weights, shifted)
        return max(float(0.5 * (cost * left).sum()), 0.0)


class _Fit:
    """The moments of one layer, of the images to fit to and of those held out: rows are multiplied many at a time.

    Inputs are taken about the mean of the first of them, `shift`, where float32 loses least of their products.
    """

    def __init__(self, node: ir.Node, n_images: int) -> None:
        self._sampler = PatchSampler(node, n_images)
        self._enough = n_images >= 2 * ridge.EVERY
        width, n_outputs = bottlenecks.width(node), bottlenecks.shape_of(node.inputs[2])[0]
        self.fitted, self.held_out = (ridge.RowMoments.empty(width, n_outputs) for _ in range(2))
        self.shift = torch.zeros(width, dtype=torch.float64)
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def add(self, x: torch.Tensor, y: torch.Tensor, numbers: torch.Tensor) -> None:
        """Add a batch: inputs of the slimmed network, outputs of the original, numbers of the images."""
        rows = self._sampler.rows(x)
        wanted = self._sampler.outputs(y)
        out = (numbers % ridge.EVERY == ridge.EVERY - 1).repeat_interleave(len(rows) // len(numbers))
        self._waiting.append((rows, wanted, out & self._enough))
        if sum(len(waits) for waits, _, _ in self._waiting) >= _ROWS:
            self.finish()

    def finish(self) -> None:
        """Add the rows that wait."""
        if self._waiting:
            rows, wanted, out = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting = []
            if not self.fitted.n:
                self.shift = rows.mean(0).double()
            rows = rows - self.shift.float()
            self.fitted.add(rows[~out], wanted[~out])
            self.held_out.add(rows[out], wanted[out])
