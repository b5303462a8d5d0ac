"""The curve of every place: what it costs to remove 1, 2, … of its channels. One pass serves every budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from deploy_kit.base.errors import InputError, SlimError
from deploy_kit.base.lazy import need
from deploy_kit.base.progress import ProgressCallback, ProgressEvent
from deploy_kit.graph import onnx_file
from deploy_kit.graph.torch_graph import TorchGraph
from deploy_kit.images import ImageSet
from deploy_kit.records.artifacts import BareInput, Preprocess
from deploy_kit.records.slimming import ChannelCurve
from deploy_kit.slimming import bottlenecks, group_obs, sensitivity, slices
from deploy_kit.slimming.bottlenecks import Bottleneck
from deploy_kit.slimming.patches import PatchSampler, covariance_of, squares, with_one
from deploy_kit.slimming.slices import Cut

_GRADIENT_BYTES, _FORWARD_BYTES = 400 * 2**20, 32 * 2**20
_LARGEST_BATCH = 32
_AGREES = 1e-3  # of the largest output; float32 sums in another order differ by 1e-6 to 1e-5
_N_ROWS = 8192  # they rank channels; what is kept is fitted to twice as many


@dataclass(frozen=True, kw_only=True)
class MeasuredCurves:
    """What one pass gives.

    Attributes:
        macs: Multiply-accumulates of the graph for one image.
        curves: A curve for each place, in graph order.
        sensitivities: F (O, O) float64 of each.
        refused: (reason, number) of convolutions whose channels cannot be removed.
    """

    macs: int
    curves: tuple[ChannelCurve, ...]
    sensitivities: tuple[np.ndarray, ...]
    refused: tuple[tuple[str, int], ...]


def measure(
    path: Path, images: ImageSet, preprocess: Preprocess | BareInput, on_progress: ProgressCallback
) -> MeasuredCurves:
    """Measure the curves of a graph.

    Args:
        path: A float32 ONNX file whose output are logits.
        images: Calibration images; labels are not read.
        preprocess: How images become the input.
        on_progress: Called with progress events.

    Raises:
        InputError: The graph has no place where channels can be removed, or an operator that is not covered.
        SlimError: torch's answers differ from ONNX Runtime's, or an activation is not finite.
    """
    model = onnx_file.load(path)
    onnx_file.expect_input(model, preprocess, path)
    onnx_file.expect_classes(model, path)
    places, refused = bottlenecks.find_bottlenecks(model)
    if not places:
        why = "; ".join(f"{n}: {reason}" for reason, n in refused) or "it has no convolutions"
        raise InputError(f"{path}: no convolution whose channels can be removed ({why})", hint="leave slimming out")
    size = onnx_file.specs(onnx_file.inputs(model))[0].shape[0]
    first = next(images.batches(preprocess, size if isinstance(size, int) else 1))
    graph = verified(model, path, first)
    largest, total = activation_bytes(model)
    few = images.spread(sensitivity.N_IMAGES)
    costs = sensitivity.sensitivities(
        graph,
        tuple(place.reader for place in places),
        few.batches(preprocess, _batch(_GRADIENT_BYTES, total)),
        _told(on_progress, "gradients", few.n),
    )
    cuts = slices.offered([place.reader.outputs[0] for place in places])
    ends = _ends(cuts)
    covariances, of_ends = _covariances(
        graph,
        (tuple(place.reader for place in places), tuple(ends)),
        images,
        preprocess,
        _batch(_FORWARD_BYTES, largest),
        _told(on_progress, "inputs", images.n),
    )
    gone = _gone(ends, of_ends, costs)
    curves = []
    for index, (place, cost) in enumerate(zip(places, costs, strict=True)):
        text = "slim: which channels go first"
        on_progress(ProgressEvent(stage="slim", text=text, done=index, total=len(places)))
        covariance, covariances[index] = covariances[index], torch.empty(0)
        curve = _curve(graph, place, covariance.double(), cost)
        curves.append(
            replace(curve, gone=gone[index], **_reads(places, index, cuts[index])) if index in gone else curve
        )
    return MeasuredCurves(
        macs=onnx_file.macs(model),
        curves=tuple(curves),
        sensitivities=tuple(cost.numpy() for cost in costs),
        refused=refused,
    )


def verified(model: ir.Model, path: Path, images: np.ndarray) -> TorchGraph:
    """Return the graph once torch computes of a few images what ONNX Runtime does.

    Args:
        model: The graph as loaded from `path`.
        path: Its file.
        images: (N, C, …) float32, of the graph's own batch size.

    Raises:
        InputError: The graph is not covered.
        SlimError: The two differ.
    """
    ort = need("onnxruntime", by="slim")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: images})[0]
    try:
        graph = TorchGraph(model)
        with torch.no_grad():
            found = graph.forward(images).numpy()
    except InputError as error:
        raise InputError(f"slim: {error}", hint=error.hint or "leave slimming out") from error
    difference = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-30))
    if not difference <= _AGREES:
        raise SlimError(
            f"{path}: torch's answers differ from ONNX Runtime's by {difference:.2g} of the largest: slim cannot use it"
        )
    return graph


def activation_bytes(model: ir.Model) -> tuple[int, int]:
    """Return the bytes of the largest float32 activation of one image, and of all together."""
    sizes = []
    for node in model.graph:
        shape = node.outputs[0].shape
        product = 4
        for size in (shape or ())[1:]:
            product *= size if isinstance(size, int) else 1
        sizes.append(product)
    return max(sizes), sum(sizes)


def _batch(budget: int, each: int) -> int:
    return max(1, min(_LARGEST_BATCH, budget // max(each, 1)))


def _told(on_progress: ProgressCallback, what: str, total: int) -> Callable[[int], None]:
    text = f"slim: {what} of {total} images"
    return lambda done: on_progress(ProgressEvent(stage="slim", text=text, done=done, total=total))


def _ends(cuts: Sequence[tuple[Cut, ...]]) -> dict[ir.Value, list[tuple[int, range]]]:
    """List by the widest concatenation that layers end in: which layers, in graph order, and their channels of it."""
    ends: dict[ir.Value, list[tuple[int, range]]] = {}
    for index, found in enumerate(cuts):
        if found:
            value, channels = slices.widest(found)
            ends.setdefault(value, []).append((index, channels))
    return ends


def _gone(
    ends: Mapping[ir.Value, list[tuple[int, range]]], covariances: Sequence[torch.Tensor], costs: Sequence[torch.Tensor]
) -> dict[int, tuple[float, ...]]:
    """Predict the divergence without each layer: what nothing before it in its concatenation says about it.

    With L Lᵀ the covariance of all channels, those of a layer in rows l, L[l, p:] L[l, p:]ᵀ is their covariance given
    the first p channels (Schur complement): what the refitted readers cannot make up for linearly.
    """
    found = {}
    for (_, members), covariance in zip(ends.items(), covariances, strict=True):
        own = {channel for _, channels in members for channel in channels}
        order = [channel for channel in range(len(covariance)) if channel not in own]
        begins = [len(order)]
        for _, channels in members:
            order += channels
            begins.append(len(order))
        lower = group_obs.factored(covariance[order][:, order].double(), group_obs.DAMPING)
        for n, (index, _) in enumerate(members):
            rows = lower[begins[n] : begins[n + 1]]
            given = (rows[:, begin:] @ rows[:, begin:].T for begin in begins[: n + 1])
            found[index] = tuple(max(float(0.5 * (costs[index] * rest).sum()), 0.0) for rest in given)
    return found


def _reads(places: Sequence[Bottleneck], index: int, cuts: Sequence[Cut]) -> dict[str, Any]:
    """Return the facts of a curve on who reads a layer's output, and what they need for it."""
    producers = {place.producer: number for number, place in enumerate(places)}
    producer = places[index].producer
    readers, beyond = set[int](), 0
    for cut in cuts:
        if cut.node in producers:
            readers.add(producers[cut.node])
        elif cut.reads:
            beyond += onnx_file.macs_of(cut.node) * len(cut.channels) // bottlenecks.inputs_of(cut.node)
    return {
        "producer_macs": onnx_file.macs_of(producer),
        "inputs": bottlenecks.inputs_of(producer),
        "outputs": bottlenecks.shape_of(places[index].reader.inputs[1])[0],
        "readers": tuple(sorted(readers)),
        "beyond": beyond,
    }


def _covariances(
    graph: TorchGraph,
    what: tuple[tuple[ir.Node, ...], tuple[ir.Value, ...]],
    images: ImageSet,
    preprocess: Preprocess | BareInput,
    size: int,
    done: Callable[[int], None],
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Accumulate the covariances float32 of what convolutions read, and of the channels of values."""
    convolutions, values = what
    sources = {next(node for node, _ in value.uses()): value for value in values}
    samplers = {
        node: PatchSampler(node, images.n, _N_ROWS, taps=node not in sources) for node in (*convolutions, *sources)
    }
    moments, shifts = dict[ir.Node, torch.Tensor](), dict[ir.Node, torch.Tensor]()

    def visit(node: ir.Node, x: torch.Tensor) -> None:
        if node in samplers:
            rows = samplers[node].rows(x)
            # A covariance is the same about any point; near the mean float32 loses least of it.
            shift = shifts.setdefault(node, rows.mean(0))
            part = squares(with_one(rows - shift))
            moments[node] = moments[node].add_(part) if node in moments else part

    n = 0
    with torch.no_grad():
        for batch in images.batches(preprocess, size):
            graph.forward(batch, visit)
            n += len(batch)
            done(n)
    for node, total in moments.items():
        if not torch.isfinite(total).all():
            where = str(node.outputs[0].name)
            raise SlimError(
                f"slim: what '{where}' is made from is not finite on these images", hint=sensitivity.NOT_FINITE
            )
    first, second = ([covariance_of(moments.pop(node)) for node in part] for part in (convolutions, tuple(sources)))
    return first, second


def _curve(graph: TorchGraph, place: Bottleneck, covariance: torch.Tensor, cost: torch.Tensor) -> ChannelCurve:
    reader = place.reader
    assert reader.inputs[1] is not None
    weights = graph.constants[str(reader.inputs[1].name)].flatten(1).T.double()
    order, errors = group_obs.removal_order(covariance, weights.contiguous(), cost, place.channels)
    return ChannelCurve(
        name=place.name,
        reader=str(reader.outputs[0].name),
        macs=place.macs,
        order=tuple(order),
        errors=tuple(errors),
    )
