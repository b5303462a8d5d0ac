"""What exact graph rewrites buy in float: the stock export against the simplified graph, on the whole family."""

from dataclasses import dataclass

import numpy as np

from benchmarks import exact, page, race, ratios
from benchmarks.candidates import Candidate, Ours, Stock
from benchmarks.page import NONE
from benchmarks.race import Plan
from benchmarks.records import Entry, Race
from benchmarks.subjects import CALIBRATION, Subject
from benchmarks.workshop import Workshop
from deploy_kit import images
from deploy_kit.accuracy import metrics
from deploy_kit.devices import inference
from deploy_kit.graph import onnx_file

_IMAGES = 8
# Column → engine and its options.
_WAYS = {
    "fp32@ort": ("onnxruntime", {}),
    "fp32@ov": ("openvino", {}),
    "bf16@ov": ("openvino", {"inference_precision": "bf16"}),
}


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """One pass list on one net.

    Attributes:
        name: Name of the pass list; ``stock`` for the export itself.
        passes: In order.
        macs: Multiply-accumulates of one image.
        nodes: Number of nodes in the graph.
        difference: Largest |difference| to the stock export's logits in float64, relative to the largest.
        differences: (way, the same with both on this way); of the stock export, to its own logits in float64.
    """

    name: str
    passes: tuple[str, ...]
    macs: int
    nodes: int
    difference: float
    differences: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Net:
    """One net: its graphs, and their race."""

    graphs: tuple[Rewrite, ...]
    race: Race


@dataclass(frozen=True, kw_only=True)
class Rewrites:
    """The nets of the section."""

    nets: tuple[Net, ...]


def measure(nets: tuple[Subject, ...], lists: dict[str, tuple[str, ...]], workshop: Workshop, plan: Plan) -> Rewrites:
    """Compare the pass lists with the stock export on each net."""
    return Rewrites(nets=tuple(_net(subject, lists, workshop, plan) for subject in nets))


def render(found: Rewrites) -> str:
    """Show one row a net and pass list."""
    headings = ("net", "graph", "nodes", "MMAC", "in float64", *(f"{way}: speed, difference" for way in _WAYS))
    rows = [_row(net, one) for net in found.nets for one in net.graphs]
    lists = {one.name: one.passes for net in found.nets for one in net.graphs if one.passes}
    text = (
        "Speed is stock / rewritten on the same engine and precision. A difference is the largest of a logit, relative "
        f"to the largest logit of the stock export: in float64 (ONNX's reference evaluator, one image) it is what the "
        f"rewrites change, for folded weights are rounded to float32 once more; on an engine ({_IMAGES} images, both "
        "on the same engine and precision) its own rounding comes on top. The stock row gives that rounding alone: "
        "stock on the engine against stock in float64, one image. "
        + " ".join(f"`{name}`: {', '.join(passes)}." for name, passes in lists.items())
    )
    return f"{page.table(headings, rows)}\n\n{text}"


def _net(subject: Subject, lists: dict[str, tuple[str, ...]], workshop: Workshop, plan: Plan) -> Net:
    files: dict[str, Stock | Ours] = {"stock": Stock(recipe="raw")}
    files |= {name: Ours(passes=passes) for name, passes in lists.items()}
    candidates = tuple(
        Candidate(name=f"{name} {way}", file=file, engine=engine, options=options)
        for name, file in files.items()
        for way, (engine, options) in _WAYS.items()
    )
    logits = {candidate.name: _logits(candidate, subject, workshop) for candidate in candidates}
    used = images.open_set(CALIBRATION, subject.preprocess).first(1)
    image = np.concatenate(list(used.batches(subject.preprocess, 1)))
    truth = exact.logits(workshop.file(files["stock"], subject, 0), image)
    graphs = []
    for name, file in files.items():
        path = workshop.file(file, subject, 0)
        model, rewritten = onnx_file.load(path), isinstance(file, Ours)
        wanted = {way: logits[f"stock {way}"] if rewritten else truth for way in _WAYS}
        differences = tuple(
            (way, metrics.relative_difference(wanted[way], logits[f"{name} {way}"][: len(wanted[way])]))
            for way in _WAYS
        )
        graphs.append(
            Rewrite(
                name=name,
                passes=file.passes if isinstance(file, Ours) else (),
                macs=onnx_file.macs(model),
                nodes=onnx_file.nodes(model),
                difference=metrics.relative_difference(truth, exact.logits(path, image)) if rewritten else 0.0,
                differences=differences,
            )
        )
    return Net(graphs=tuple(graphs), race=race.run(subject.name, subject, candidates, workshop, plan))


def _logits(candidate: Candidate, subject: Subject, workshop: Workshop) -> np.ndarray:
    path = workshop.file(candidate.file, subject, 0)
    target = inference.InferenceTarget(engine=candidate.engine, path=path, options=candidate.options)
    used = images.open_set(CALIBRATION, subject.preprocess).first(_IMAGES)
    return inference.infer_all(workshop.connection, target, used, subject.preprocess).logits


def _row(net: Net, one: Rewrite) -> tuple[str, ...]:
    entries = {entry.name: entry for entry in net.race.entries}
    cells = []
    for way, difference in one.differences:
        cells.append(_cell(entries[f"stock {way}"], entries[f"{one.name} {way}"], difference))
    exactly = f"{one.difference:.1e}" if one.passes else NONE
    return (net.race.subject.split(",")[0], one.name, str(one.nodes), f"{one.macs / 1e6:.0f}", exactly, *cells)


def _cell(base: Entry, entry: Entry, difference: float) -> str:
    if entry is base:
        return f"{NONE}, {difference:.1e}"
    if not (base.samples_ms and entry.samples_ms):
        return base.why or entry.why
    return f"{page.ratio(ratios.interval(base.samples_ms, entry.samples_ms))}, {difference:.1e}"
