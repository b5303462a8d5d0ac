"""The forward pass that a file states, as the witness of the network that was rebuilt from it.

The two share the file's tensors and nothing else. Where they disagree, facts that the graph's reading left open or got
wrong are tried until both agree; where none does, the file is refused with the first layer that reads something else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor, nn

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import probe
from deploy_kit.checkpoint.architecture.structure import ParsedStructure
from deploy_kit.checkpoint.contents import Answer, StatedForward
from deploy_kit.checkpoint.facts import Source
from deploy_kit.checkpoint.network import map_sizes
from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.checkpoint.network.equations import Equations
from deploy_kit.records.densenet import DenseNetSpec

# float32 through 264 layers, once as the graph has it and once as rebuilt; seen: 3e-6.
TOLERANCE = 1e-4
_APART = 1e-3
_MAX_CHANGES, _MAX_TRIED = 2, 400
_PRODUCTS, _PRODUCTS_OF_NOTHING = 2e10, 2e7  # what trying may compute: some ten seconds on two cores
_HINT = "it computes what this version does not rebuild: export it to ONNX with its own framework, and give that file"


@dataclass(frozen=True)
class GraphAnswers:
    """What a file's own graph answers.

    Attributes:
        outputs: Its outputs.
        features: What the first layer reads that the rebuilt network lacks: the features, where its head was left out.
    """

    outputs: tuple[Answer, ...]
    features: Tensor | None

    def difference(self, spec: DenseNetSpec, found: Tensor) -> float:
        """Measure how far a network's answers lie from the graph's.

        Args:
            spec: The network.
            found: (N, K) answers of the network; those of several heads side by side.

        Returns:
            The largest difference relative to the graph's largest answer; infinity where it gives none of such a shape.
        """
        if not spec.heads:
            values = [answer.value for answer in self.outputs]
            return _apart(values if self.features is None else [self.features], found)
        logits = [_activated(answer.logits, spec) for answer in self.outputs]
        if len(spec.heads) > 1 and len(logits) == 1:
            return _apart(logits, found)
        return max(_apart(logits, part) for part in torch.split(found, [head.classes for head in spec.heads], 1))


@dataclass(frozen=True, kw_only=True)
class Witness:
    """A stated forward pass beside the network rebuilt from the same file.

    Attributes:
        forward: The file's own forward pass.
        names: Canonical name → name in the file.
        where: The file, for messages.
    """

    forward: StatedForward
    names: Mapping[str, str]
    where: str

    @property
    def sides(self) -> tuple[int, ...] | None:
        """Sides of the input in px that the file states; None where it leaves one open."""
        sides = tuple(side for side in self.forward.shape[1:] if side is not None)
        return sides if sides and len(sides) == len(self.forward.shape) - 1 else None

    def answers(self, x: Tensor) -> "GraphAnswers":
        """Compute the graph's answers to (N, C, …) float32 inputs.

        Raises:
            CheckpointError: It cannot be followed, or does not fit the input.
        """
        features: list[Tensor] = []
        bodies = set(self.names.values())

        def note(name: str, read: Tensor) -> None:
            if name not in bodies and read.dim() == 2:
                features.append(read)

        return GraphAnswers(self.forward.answers(x, note), features[0] if features else None)

    def verify(self, spec: DenseNetSpec, x: Tensor, found: Tensor, model: DenseNet) -> float:
        """Compare answers with those of the file's own graph, and return how far they are off.

        Raises:
            CheckpointError: Too far; the message names the first layer that reads something else.
        """
        difference = self.answers(x).difference(spec, found)
        if not difference <= TOLERANCE:
            raise self.refusal(x, model, difference)
        return difference

    def refusal(self, x: Tensor, model: DenseNet, difference: float) -> CheckpointError:
        """Make the error of a network that its file's own graph contradicts."""
        off = f"{difference:.2g} of the largest logit off" if math.isfinite(difference) else "of another shape"
        return CheckpointError(
            f"{self.where}: {self.forward.source} gives other answers than the network rebuilt from it ({off}): "
            f"{self._first_deviation(x, model)}",
            hint=_HINT,
        )

    def _first_deviation(self, x: Tensor, model: DenseNet) -> str:
        """Name the first layer with weights that reads something else in the graph than in the rebuilt network."""
        reads = _inputs_of_layers(model, x)
        canonical = {file: name.rpartition(".")[0] for name, file in self.names.items()}
        seen: dict[str, int] = {}
        rows: list[tuple[str, bool]] = []

        def note(name: str, read: Tensor) -> None:
            layer = canonical.get(name)
            at = seen[name] = seen.get(name, -1) + 1
            known = reads.get(layer or "", [])
            same = at < len(known) and _same(read, known[at])
            rows.append((name.rpartition(".")[0], same))

        self.forward.answers(x, note)
        before = "the input"
        for layer, same in rows:
            if not same:
                return f"the first difference is in what '{layer}' reads, behind {before}"
            before = f"'{layer}'"
        missing = [layer for layer in reads if layer not in {canonical.get(name) for name in seen}]
        lacking = f"; it does not compute '{missing[0]}'" if missing else ""
        return f"the first difference is behind the last layer, {before}{lacking}"


def settle(parsed: ParsedStructure, forward: StatedForward, where: str) -> tuple[ParsedStructure, Witness]:
    """Hold a network against the graph that its file states, and correct the facts in which they differ.

    Args:
        parsed: The network as found.
        forward: The file's own forward pass.
        where: The file, for messages.

    Raises:
        CheckpointError: No choice of facts gives the graph's answers, or it cannot be followed.
    """
    parsed = _repeated(parsed, forward, where)
    witness = Witness(forward=forward, names=parsed.names, where=where)
    x, answers = _input(parsed, witness)
    difference = _of_equations(parsed, parsed.spec, answers, x)
    if difference <= TOLERANCE:
        return _witnessed(parsed, {}, forward), witness
    spec = parsed.spec
    tried, limit = count(), _tries(parsed, x)
    for n in range(1, _MAX_CHANGES + 1):
        changes = probe.changes(parsed, n, [name for name, source in parsed.sources.items() if source.kind != "flag"])
        for change in changes:
            if next(tried) >= limit:
                break
            if _of_equations(parsed, probe.changed(spec, change), answers, x) <= TOLERANCE:
                return _witnessed(parsed, change, forward), witness
    with torch.device("meta"):
        model = DenseNet(spec)
    model.load_state_dict(parsed.tensors, strict=True, assign=True)
    raise witness.refusal(x, model.eval().requires_grad_(False), difference)


def _tries(parsed: ParsedStructure, x: Tensor) -> int:
    """Return how many choices of facts may be tried: thousands of a small network's passes, some of a large one's."""
    weights = sum(tensor.numel() for tensor in parsed.tensors.values())
    products = weights * math.prod(x.shape[2:]) * len(x) / 128  # as DenseNet-121 has them, whose maps shrink likewise
    return min(_MAX_TRIED, int(_PRODUCTS / (products + _PRODUCTS_OF_NOTHING)))


def _repeated(parsed: ParsedStructure, forward: StatedForward, where: str) -> ParsedStructure:
    """Take an input of fewer channels than the stem reads, which a graph may repeat."""
    channels = forward.shape[0] if forward.shape else None
    width = parsed.spec.in_channels
    if channels is None or channels == width:
        return parsed
    if channels < 1 or width % channels:
        raise CheckpointError(
            f"{where}: {forward.source} reads {channels} channels, its first convolution {width}", hint=_HINT
        )
    spec = replace(parsed.spec, in_channels=channels, input_repeats=width // channels)
    return replace(parsed, spec=spec)


def _input(parsed: ParsedStructure, witness: Witness) -> tuple[Tensor, GraphAnswers]:
    """Return seeded noise of a size that the graph takes, and its answers."""
    spec = parsed.spec
    usual = map_sizes.usual(spec)
    reduced = map_sizes.compared(spec)
    sizes: list[tuple[int, ...]] = [witness.sides] if witness.sides else [reduced] * (spec.map_side is None)
    if usual is not None and not witness.sides:
        sizes.append(usual[0])
    error: CheckpointError | None = None
    for sides in sizes or [reduced]:
        if len(sides) != spec.ndim:
            continue
        shape = (witness.forward.batch or 1, spec.in_channels, *sides)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        try:
            return x, witness.answers(x)
        except CheckpointError as failed:
            error = failed
    raise error or CheckpointError(f"{witness.where}: {witness.forward.source} takes an input of other axes")


def _of_equations(parsed: ParsedStructure, spec: DenseNetSpec, answers: GraphAnswers, x: Tensor) -> float:
    equations = Equations(spec, parsed.names, parsed.originals, channels_last=parsed.channels_last)
    try:
        found = torch.cat(equations.answers(x), 1)
    except RuntimeError:  # a stride or a pool that leaves no pixel, or a flattened map of another size
        return float("inf")
    return answers.difference(spec, found)


def _witnessed(parsed: ParsedStructure, change: Mapping[str, object], forward: StatedForward) -> ParsedStructure:
    """Apply a change; what was a guess is now known from the graph's answers."""
    proof = Source("graph", f"the answers of {forward.source}")
    sources = {name: proof if source.is_guess or name in change else source for name, source in parsed.sources.items()}
    texts = tuple((name, source.text) for name, source in sources.items())
    spec = replace(probe.changed(parsed.spec, dict(change)), sources=texts)
    return replace(parsed, spec=spec, sources=sources)


def _activated(logits: Tensor, spec: DenseNetSpec) -> Tensor:
    kind = spec.head_activation
    if kind == "sigmoid":
        return torch.sigmoid(logits)
    if kind == "none":
        return logits
    return torch.softmax(logits, 1) if kind == "softmax" else torch.log_softmax(logits, 1)


def _apart(wanted: Sequence[Tensor], found: Tensor) -> float:
    """Return the smallest difference to one of the graph's answers, relative to its largest value."""
    rows = [row.reshape(len(found), -1) for row in wanted if row.numel() == found.numel()]
    scales = [max(float(row.abs().max()), 1e-30) for row in rows]
    found = found.reshape(len(found), -1)
    apart = [float((row - found).abs().max()) / scale for row, scale in zip(rows, scales, strict=True)]
    return min((one for one in apart if one == one), default=float("inf"))


def _inputs_of_layers(model: DenseNet, x: Tensor) -> dict[str, list[Tensor]]:
    """Return what each layer with weights reads, by its name, call by call."""
    reads: dict[str, list[Tensor]] = {}

    def hook(name: str) -> object:
        return lambda module, inputs: reads.setdefault(name, []).append(inputs[0].clone())

    handles = [
        layer.register_forward_pre_hook(hook(name))  # type: ignore[arg-type]
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.Linear))
    ]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return reads


def _same(read: Tensor, known: Tensor) -> bool:
    """Return whether two maps are equal; one may have the border already that the other's convolution adds."""
    borders = [(a - b) // 2 for a, b in zip(read.shape[2:], known.shape[2:], strict=False)]
    if read.dim() == known.dim() and borders and min(borders) >= 0 and max(borders) > 0:
        for axis, border in enumerate(borders, start=2):
            read = read.narrow(axis, border, known.shape[axis])
    if read.numel() != known.numel():
        return False
    known = known.reshape(read.shape)
    return float((read - known).abs().max()) <= _APART * max(float(known.abs().max()), 1e-30)
