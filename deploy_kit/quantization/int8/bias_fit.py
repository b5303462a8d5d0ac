"""Biases fitted to the logits: they make up for what is off on average at the end, not behind each layer alone.

    minimal over all biases b:   Σ_images |y_i(b) - y_i|²        y_i: logits of the float graph, y_i(b): of the integers

torch computes the integer graph as it was written: weights are their integers, bounds lie on the grid, activations are
rounded and clipped. Rounding passes a gradient on as it is, clipping only inside the grid. Biases alone move, so the
graph keeps its form and its weights, and a few hundred images are enough: each gives as many equations as it has
logits. Every fourth batch is held out, and the biases stay as they were unless the error there, of the graph that is
written, is surely less.

Sources: Finkelstein et al., "Fighting Quantization Bias With Bias", 2019 (biases alone, the float network's answers as
the target); Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013 (the gradient).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import InputError
from deploy_kit.base.progress import ProgressCallback, ProgressEvent
from deploy_kit.graph import edit, torch_graph
from deploy_kit.graph.torch_graph import TorchGraph
from deploy_kit.quantization.int8 import equalize, method_choice, mixed_precision, portable
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.grids import Grid
from deploy_kit.quantization.int8.observation import ImageStream
from deploy_kit.quantization.int8.plan import Int8Plan

_MOST = 1024  # images
_STEPS, _BATCH = 64, 32  # twice the steps give the same logits within 0.1 dB
_RATE = 0.03  # of a step of what the node writes; 0.02 gives the same logits within 0.1 dB
_HELD_OUT = 4  # every fourth batch
_BYTES = 256 * 2**20  # of images, of logits, and of activations that wait for their gradient
_KEPT_BYTES = 8  # of each number that a node computes
_SEED = 0
_MOVERS = frozenset({"Concat", "Max", "Min", "MaxPool", "Identity"})  # what they write is on the grid already


def fit(plan: Int8Plan, write: Callable[[Int8Plan], ir.Model], images: ImageStream) -> str:
    """Fit the biases of a plan, and say what came of it.

    Args:
        plan: A plan in layout `portable`; what was fitted is added to `plan.fitted`.
        write: Writes a plan as a graph; leaves the plan's model as it is.
        images: The calibration images: four batches at least.
    """
    whole = mixed_precision.keep_in_float(plan, ())
    written = write(whole)
    batches = _spread(images, whole.model)
    judged = batches[_HELD_OUT - 1 :: _HELD_OUT]
    fitted = np.concatenate([batch for at, batch in enumerate(batches) if at % _HELD_OUT != _HELD_OUT - 1])
    torch_graph.keep_freed_memory()
    try:
        with _one_thread():
            net = _IntegerNet(whole, written)
            wanted, target = (net.float_logits(part) for part in (fitted, np.concatenate(judged)))
            found = net.fit(fitted, wanted, images.context.on_progress) if target.any() else {}
    except (InputError, RuntimeError):  # RuntimeError: a form that torch reads otherwise than ONNX, as of shapes
        return "not fitted to the logits, as torch does not compute this graph"
    if not found or not all(np.isfinite(by).all() for by in found.values()):
        return "not fitted to the logits, as nothing brings the integer graph nearer to them"
    before = method_choice.logits(written, judged)
    plan.fitted.update(found)
    after = method_choice.logits(write(whole), judged)
    scores = " → ".join(f"{metrics.sqnr_db(target, logits):.1f}" for logits in (before, after))
    where = f"{scores} dB on {len(target)} images held out"
    errors = [np.square(logits - target).sum(1) for logits in (before, after)]
    if not method_choice.surely_less(errors[1], errors[0]):
        plan.fitted.clear()
        return f"not fitted to the logits, as that gains no more than chance would: {where}"
    return f"fitted to the logits of {len(fitted)} images: {where}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread: the sums, and the biases, are then the same whatever the number of cores.

    Two threads on two busy cores took 16 to 24 s for what one did in 3 s (the demo, 12 steps).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _spread(images: ImageStream, model: ir.Model) -> list[np.ndarray]:
    """Keep batches that are spread over all, as many as fit in memory with their logits."""
    first = next(images.batches())
    logits = 8 * len(first) * _size(model.graph.outputs[0])
    most = max(_HELD_OUT, min(_MOST // len(first), _BYTES // max(first.nbytes, logits)))
    every = -(-(images.n // len(first)) // most)
    return [batch for at, batch in enumerate(images.batches()) if at % every == 0]


class _Rounding(torch.autograd.Function):
    """Rounds and clips to a grid; the gradient is that of the clipping."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        scale = float(np.float32(grid.scale))
        raw = torch.round(x / scale) + grid.zero
        whole = raw.clamp(grid.low, grid.high)
        context.save_for_backward(whole == raw)
        return (whole - grid.zero) * scale

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (inside,) = context.saved_tensors
        return torch.mul(gradient, inside), None


class _IntegerNet:
    """The integer graph in torch, its biases free."""

    def __init__(self, plan: Int8Plan, written: ir.Model) -> None:
        """Read what was written into a copy of the plan's graph.

        Raises:
            InputError: torch does not compute an operator of the graph.
        """
        self._float = TorchGraph(plan.model)
        copy = mixed_precision.copied(plan)
        self._grids, self._steps, held = dict[ir.Node, Grid](), dict[str, float](), dict[str, ir.Node]()
        for node in copy.model.graph:
            name, grid = str(node.outputs[0].name), copy.grids.get(node.outputs[0])
            numbers = portable.numbers(written, node)
            if grid is not None and node.op_type not in _MOVERS:
                self._grids[node] = grid
            if grid is not None and grouping.bound(node) is not None:
                limits = grid.real(grid.quantize(edit.array(node.inputs[1])))
                equalize.replace(copy.model, node, 1, limits)
            elif numbers is not None:
                _take(copy.model, node, *numbers)
                result = copy.grids.get((grouping.fused_relu(node) or node).outputs[0])
                held[name], self._steps[name] = node, 0.0 if result is None else result.scale
        self._graph = TorchGraph(copy.model)
        self._biases = {name: str(value.name) for name, node in held.items() if (value := node.inputs[2])}
        self._input = next((copy.grids[v] for v in copy.model.graph.inputs if v in copy.grids), None)
        self._part = max(
            1, min(_BATCH, _BYTES // (_KEPT_BYTES * sum(_size(node.outputs[0]) for node in copy.model.graph)))
        )

    def float_logits(self, images: np.ndarray) -> np.ndarray:
        """Compute the logits (N, K) float64 of the float graph."""
        with torch.no_grad():
            parts = [self._float.forward(images[at : at + _BATCH]) for at in range(0, len(images), _BATCH)]
        return torch.cat(parts).flatten(1).double().numpy()

    def fit(self, images: np.ndarray, target: np.ndarray, on_progress: ProgressCallback) -> dict[str, np.ndarray]:
        """Return what to add to the bias (outputs,) of each node, by the name of its output.

        Args:
            images: (N, C, …) float32.
            target: (N, K) logits of the float graph.
            on_progress: Called with progress events.
        """
        if not self._biases:
            return {}
        wanted = torch.from_numpy(target.astype(np.float32))
        with torch.no_grad():
            off = float((self._logits(images[:_BATCH]) - wanted[:_BATCH]).square().mean().sqrt())
        # Logits have no grid: their error is the step of the biases that make them.
        steps = {name: step or off for name, step in self._steps.items()}
        start = {name: self._graph.constants[held] for name, held in self._biases.items()}
        moved = {name: torch.zeros_like(bias, requires_grad=True) for name, bias in start.items()}
        optimizer = torch.optim.Adam(moved.values(), lr=_RATE, betas=(0.9, 0.99))
        slowing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
        order = _order(len(images))
        for step in range(_STEPS):
            chosen = order[step * _BATCH : (step + 1) * _BATCH]
            optimizer.zero_grad()
            for at in range(0, _BATCH, self._part):
                part = np.sort(chosen[at : at + self._part])
                for name, held in self._biases.items():
                    self._graph.constants[held] = start[name] + moved[name] * steps[name]
                error = (self._logits(images[part]) - wanted[part]).square().sum() / _BATCH
                error.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            slowing.step()
            on_progress(
                ProgressEvent(stage="quantize", text="biases: fitting to the logits", done=step + 1, total=_STEPS)
            )
        return {name: (by.detach().double() * steps[name]).numpy() for name, by in moved.items()}

    def _logits(self, images: np.ndarray) -> torch.Tensor:
        read = images if self._input is None else self._input.real(self._input.quantize(images)).astype(np.float32)
        return self._graph.forward(read, behind=self._round).flatten(1)

    def _round(self, node: ir.Node, result: torch.Tensor) -> torch.Tensor:
        grid = self._grids.get(node)
        return result if grid is None else torch.as_tensor(_Rounding.apply(result, grid))  # type: ignore[no-untyped-call]


def _size(value: ir.Value) -> int:
    """Count the numbers of an activation for one image."""
    return math.prod(size for size in list(value.shape or ())[1:] if isinstance(size, int))


def _order(n: int) -> np.ndarray:
    """Draw images (steps · batch,), each as often as the others; the draw is seeded."""
    draw, rounds = np.random.default_rng(_SEED), -(-_STEPS * _BATCH // n)
    return np.concatenate([draw.permutation(n) for _ in range(rounds)])


def _take(model: ir.Model, node: ir.Node, weights: np.ndarray, bias: np.ndarray) -> None:
    """Give a node the weights (outputs, …) and the bias (outputs,) that were written for it."""
    if node.op_type == "BatchNormalization":  # its slope is the scale of ±127, and exact
        slope, _ = edit.affine(node)
        equalize.replace(model, node, 2, bias + slope * edit.array(node.inputs[3]))
        return
    across = node.op_type == "Gemm" and not node.attributes.get_int("transB")
    equalize.replace(model, node, 1, weights.T if across else weights)
    equalize.replace(model, node, 2, bias)
