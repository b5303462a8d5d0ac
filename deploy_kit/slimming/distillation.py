"""Label-free distillation: the weights of a slimmed network trained to the original network's answers.

    loss = T² · KL(softmax(z / T) ‖ softmax(ẑ / T)),   T = 2,   z, ẑ: logits of original and slimmed network

(Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015). Statistics of BNs stay as they are;
their factors and offsets, and weights and biases of convolutions and Gemms, are trained by Adam at a rate that falls
to 0 with the time. One image in ten is held out: the weights of the least divergence on those are kept, and where the
training gains nothing there, the weights that it began with.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch.nn.functional import kl_div, log_softmax

from deploy_kit.accuracy.metrics import kl_divergence
from deploy_kit.base.errors import InputError
from deploy_kit.base.progress import ProgressCallback, ProgressEvent
from deploy_kit.graph import onnx_file
from deploy_kit.graph.torch_graph import TorchGraph
from deploy_kit.images import ImageSet
from deploy_kit.records.artifacts import BareInput, Preprocess
from deploy_kit.slimming import curves

LEAST = 100
"""Images that are needed: fewer than ten held out tell nothing."""

_TEMPERATURE = 2.0
_RATE = 3e-5  # of Adam; 3e-4 made DenseNet-121 worse than it was
_EVERY, _MOST_HELD_OUT = 10, 512
_LOOKS, _PATIENCE = 16, 4  # times that held-out images are computed, and how many of them may gain nothing in a row
_BATCH, _BATCH_BYTES = 32, 2**30  # of all activations, which gradients need
_TRAINED = {"Conv": (1, 2), "Gemm": (1, 2), "BatchNormalization": (1, 2)}  # operator → inputs that are weights


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """What the training did.

    Attributes:
        steps: Number of steps.
        seen: Number of images that went through a step, repeated ones counted again.
        n_images: Number of images that it drew from.
        before: Mean divergence in nats on the images held out, before.
        after: The same of the weights that were kept; `before` where the training gained nothing.
        seconds: How long it took.
        device: ``cpu`` or ``cuda``.
    """

    steps: int
    seen: int
    n_images: int
    before: float
    after: float
    seconds: float
    device: str

    @property
    def words(self) -> str:
        """What became of it, as part of a sentence."""
        gained = f"divergence of held-out images {self.before:.2g} → {self.after:.2g}"
        return f"distilled on {self.n_images:,} images, {self.steps:,} steps: {gained}"


def distill(
    source: Path,
    slimmed: Path,
    images: ImageSet,
    preprocess: Preprocess | BareInput,
    seconds: float,
    on_progress: ProgressCallback,
) -> Distilled:
    """Train the weights of a slimmed file, which is written again.

    The order of the images is drawn with a fixed seed. How far it gets in the time depends on the machine, and so do
    the weights.

    Args:
        source: The original float32 graph.
        slimmed: The slimmed one.
        images: Training images; labels are not read.
        preprocess: How images become the input.
        seconds: Most time to take.
        on_progress: Called with progress events.

    Raises:
        InputError: Too few images.
    """
    if images.n < LEAST:
        raise InputError(
            f"{images.name}: {images.n} images, and distilling takes {LEAST} at least",
            hint="give some thousand, without labels: --distill FOLDER (or an npz file)",
        )
    begun = time.perf_counter()
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = onnx_file.load(slimmed)
    training = _Training(TorchGraph(onnx_file.load(source)), TorchGraph(model), images, preprocess, where)
    best = before = training.held_out()
    weights, idle, looked = training.weights(), 0, 0.0
    batch = max(4, min(_BATCH, _BATCH_BYTES // curves.activation_bytes(model)[1]))
    for at in order(training.trained_on, batch):
        spent = (time.perf_counter() - begun) / seconds
        if spent >= looked + 1 / _LOOKS:
            looked, found = spent, training.held_out()
            text = f"distilling: held-out divergence {before:.2g} → {min(best, found):.2g}"
            on_progress(ProgressEvent(stage="slim", text=text, done=round(100 * min(spent, 1)), total=100))
            idle = 0 if found < best else idle + 1
            if found < best:
                best, weights = found, training.weights()
        if spent >= 1 or idle == _PATIENCE:
            break
        training.step(at, _RATE * (1 - spent))
    if best < before:
        for name, array in weights.items():
            value = model.graph.initializers[name]
            value.const_value = ir.Tensor(array, name=name)
        onnx_file.save(model, slimmed)
    return Distilled(
        steps=training.steps,
        seen=training.seen,
        n_images=images.n,
        before=before,
        after=best,
        seconds=round(time.perf_counter() - begun, 1),
        device=where.type,
    )


class _Training:
    """Both networks and the images; the original's answers are kept once they are computed."""

    def __init__(
        self,
        original: TorchGraph,
        small: TorchGraph,
        images: ImageSet,
        preprocess: Preprocess | BareInput,
        where: torch.device,
    ) -> None:
        self.steps = self.seen = 0
        self._original, self._small, self._where = original, small, where
        self._images, self._preprocess = images, preprocess
        for graph in (original, small):
            for name, tensor in graph.constants.items():
                if tensor.is_floating_point():  # shapes are read by the processor
                    graph.constants[name] = tensor.to(where)
        names = dict[str, None]()
        for node in small.nodes:
            for index in _TRAINED.get(node.op_type, ()):
                value = node.inputs[index] if len(node.inputs) > index else None
                if value is not None and value.is_initializer():
                    names[str(value.name)] = None
        self._trained = {name: small.constants[name].detach().clone().requires_grad_() for name in names}
        small.constants |= self._trained
        self._adam = torch.optim.Adam(list(self._trained.values()), lr=_RATE)
        self._out = list(range(_EVERY - 1, images.n, _EVERY))[:_MOST_HELD_OUT]
        self.trained_on = sorted(set(range(images.n)) - set(self._out))
        self._answers: dict[int, torch.Tensor] = {}

    def step(self, at: list[int], rate: float) -> None:
        """Make one step on these images."""
        x = self._input(at)
        wanted = self._wanted(at, x)
        found = self._small.forward(x).flatten(1)
        loss = _TEMPERATURE**2 * kl_div(
            log_softmax(found / _TEMPERATURE, 1), log_softmax(wanted / _TEMPERATURE, 1), reduction="batchmean",
            log_target=True,
        )  # fmt: skip
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch types it for itself alone
        self._adam.step()
        self.steps, self.seen = self.steps + 1, self.seen + len(at)

    def held_out(self) -> float:
        """Compute the mean divergence in nats on the images held out."""
        wanted, found = [], []
        with torch.no_grad():
            for begin in range(0, len(self._out), _BATCH):
                at = self._out[begin : begin + _BATCH]
                x = self._input(at)
                wanted.append(self._wanted(at, x).cpu().numpy())
                found.append(self._small.forward(x).flatten(1).cpu().numpy())
        return kl_divergence(np.concatenate(wanted), np.concatenate(found))

    def weights(self) -> dict[str, np.ndarray]:
        """Copy the trained weights."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._trained.items()}

    def _input(self, at: list[int]) -> torch.Tensor:
        batches = list(self._images.take(at).batches(self._preprocess, len(at)))
        return torch.from_numpy(np.concatenate(batches)).to(self._where)

    def _wanted(self, at: list[int], x: torch.Tensor) -> torch.Tensor:
        if any(index not in self._answers for index in at):
            with torch.no_grad():
                self._answers |= dict(zip(at, self._original.forward(x).flatten(1).cpu(), strict=True))
        return torch.stack([self._answers[index] for index in at]).to(self._where)


def order(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    """Draw batches of indices without an end, epoch after epoch, each in an order of its own; the same in every run."""
    random, drawn, size = np.random.default_rng(0), list[int](), min(size, len(indices))
    while True:
        if len(drawn) < size:
            drawn = [indices[at] for at in random.permutation(len(indices))]
        yield drawn[:size]
        drawn = drawn[size:]
