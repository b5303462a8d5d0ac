"""What slimming buys: INT8 of a net with fewer multiply-accumulates against INT8 of the whole one, in one race.

Accuracy is measured at the size that a net was trained at, speed at its own size or, with a checkpoint, at 224×224 px:
the same weights, whose input alone is larger.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks import accuracy, ours, page, race, ratios
from benchmarks.accuracy import Score, Truth
from benchmarks.candidates import Candidate
from benchmarks.page import NONE
from benchmarks.race import Plan
from benchmarks.records import Race
from benchmarks.subjects import TEST, Subject
from benchmarks.workshop import Made, Workshop
from deploy_kit import images
from deploy_kit.devices import inference
from deploy_kit.graph import onnx_file
from deploy_kit.graph.onnx_artifact import onnx_artifact
from deploy_kit.images import ImageSource
from deploy_kit.machine.environment import library_version
from deploy_kit.recipe import SlimTable, Variant
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.made_by import MadeBy
from deploy_kit.stages import quantize, reference, slim
from deploy_kit.store import Key

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Shares of the multiply-accumulates; 1 is the whole net."""

_ENGINES = {"ort": "onnxruntime", "ov": "openvino"}


@dataclass(frozen=True, kw_only=True)
class SlimShare:
    """One share of one net.

    Attributes:
        asked: Share that was asked for.
        share: Share that is left.
        seconds: Duration of the refits.
        peak_mib: Peak memory of the refits, in MiB.
        scores: The float graph and INT8 on each engine, against the checkpoint.
    """

    asked: float
    share: float
    seconds: float
    peak_mib: int
    scores: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True)
class SlimmedNet:
    """One net.

    Attributes:
        subject: The net, at the size at which its accuracy was measured.
        images: Image set that weights were refitted to.
        n_images: Number of its images.
        shares: What became of it, the whole first.
        race: INT8 of all shares on all engines, and stock INT8.
    """

    subject: str
    images: str
    n_images: int
    shares: tuple[SlimShare, ...]
    race: Race


@dataclass(frozen=True, kw_only=True)
class SlimmedNets:
    """The nets of the section."""

    nets: tuple[SlimmedNet, ...]


@dataclass(frozen=True, kw_only=True)
class SlimPlan:
    """What is made of a net.

    Attributes:
        subject: The net, at the size at which it was trained.
        raced: The same net at the size at which it is timed.
        shares: Shares of the multiply-accumulates, the whole first.
        images: Image set that weights are refitted to.
        stock: Stock candidates that race along.
    """

    subject: Subject
    raced: Subject
    shares: tuple[float, ...]
    images: str
    stock: tuple[Candidate, ...]


def measure(plans: tuple[SlimPlan, ...], workshop: Workshop, plan: Plan) -> SlimmedNets:
    """Slim, score and race each net."""
    return SlimmedNets(nets=tuple(_net(one, workshop, plan) for one in plans))


def _net(one: SlimPlan, workshop: Workshop, plan: Plan) -> SlimmedNet:
    subject = one.subject
    lean = workshop.simplified(subject, ours.PASSES).onnx
    fitted = ImageSource(name=one.images)
    calibration = ImageSource(name=str(workshop.calibration(plan.calibration_images)))
    answers, _ = reference.run(
        subject.source, subject.preprocess, workshop.context, images=images.open_set(TEST, subject.preprocess)
    )
    with np.load(workshop.store.root / answers.path) as data:
        truth = Truth(logits=data["logits"], labels=data["labels"], sha256=answers.sha256)
    shares, made = [], []
    for asked in one.shares:
        sys.stderr.write(f"slim: {subject.name} to {asked:g}\n")
        small, _ = slim.run(lean, SlimTable(macs=asked), workshop.context, images=fitted)
        variant = Variant(name="int8", scheme="int8_portable", options=dict(ours.PORTABLE.options))
        typed, _ = quantize.run(small.onnx, variant, workshop.context, calibration=calibration)
        scores = [_scored(f"fp32-{asked:g}@ort", small.onnx, "onnxruntime", workshop, truth)]
        scores += [_scored(f"int8-{asked:g}@{key}", typed, engine, workshop, truth) for key, engine in _ENGINES.items()]
        timed = typed
        if one.raced.preprocess != subject.preprocess:
            larger = _resized(small.onnx, one.raced, workshop)
            timed, _ = quantize.run(larger, variant, workshop.context, calibration=calibration)
        made += [
            Made(candidate=_candidate(f"int8-{asked:g}@{key}", engine), path=workshop.store.path(timed))
            for key, engine in _ENGINES.items()
        ]
        shares.append(
            SlimShare(
                asked=asked,
                share=small.share,
                seconds=small.seconds,
                peak_mib=small.peak_memory_mib,
                scores=tuple(scores),
            )
        )
    made += [workshop.make(candidate, one.raced, plan.calibration_images) for candidate in one.stock]
    return SlimmedNet(
        subject=subject.name,
        images=Path(one.images).name,
        n_images=images.open_set(one.images, subject.preprocess).n,
        shares=tuple(shares),
        race=race.of_files(f"Slimmed, {one.raced.name}", one.raced, made, workshop.folder, plan),
    )


def _candidate(name: str, engine: str) -> Candidate:
    return Candidate(name=name, file=ours.PORTABLE, engine=engine)


def _scored(name: str, graph: Artifact, engine: str, workshop: Workshop, truth: Truth) -> Score:
    """Score a graph on the test images; the store keeps it."""
    key = Key(
        stage="score",
        name=name.replace("@", "-"),
        inputs=(graph.sha256, truth.sha256),
        options=[name, engine],
        versions=tuple((library, library_version(library)) for library in (engine, "deploykit")),
    )

    def make(folder: Path, home: str) -> Score:
        target = inference.InferenceTarget(engine=engine, path=workshop.store.path(graph), options={})
        used = images.open_set(TEST, graph.preprocess)
        found = inference.infer_all(workshop.connection, target, used, graph.preprocess).logits
        return accuracy.score(Score(name=name, ours=True, calibration_images=0), found, truth)

    return workshop.store.produce(Score, key, make)[0]


def _resized(graph: Artifact, subject: Subject, workshop: Workshop) -> Artifact:
    """Give a graph another size of input: the weights are the same, and a global pool ends the map."""

    def make(folder: Path, home: str) -> Artifact:
        model = onnx_file.load(workshop.store.path(graph))
        for node in model.graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = None
        model.graph.inputs[0].shape = ir.Shape([subject.batch, *subject.preprocess.shape])
        model = onnx_file.reread(model)
        onnx_file.embed(model, subject.preprocess)
        onnx_file.save(model, folder / "model.onnx")
        return onnx_artifact(
            folder / "model.onnx",
            home,
            name=graph.name,
            stage="resized",
            parent=graph.sha256,
            preprocess=subject.preprocess,
            made_by=MadeBy(passes=graph.made_by.passes, slimmed=graph.made_by.slimmed),
        )

    key = Key(stage="resized", name="model", inputs=(graph.sha256,), options=subject.preprocess, versions=())
    return workshop.store.produce(Artifact, key, make)[0]


def render(found: SlimmedNets) -> str:
    """Show a row for each share of each net."""
    return "\n\n".join(_shown(net) for net in found.nets)


def _shown(net: SlimmedNet) -> str:
    headings = (
        "share of MACs", "float: drop, pp", "INT8 on ort: drop, pp", "INT8 on ov: drop, pp", "ort: against whole INT8",
        "ov: against whole INT8", "refit",
    )  # fmt: skip
    run = net.race
    text = (
        f"Weights refitted to {net.n_images} images of {net.images}, which none of the 10,000 test images is among; a "
        f"drop with its 95 % interval is that of the same images. Latency: {run.subject}; {run.threads} threads, batch "
        f"{run.batch}, {run.recompiles} processes × {run.rounds} rounds × {run.runs} runs, all in turns."
    )
    rows = [_row(net, one) for one in net.shares]
    return f"### {net.subject}\n\n{text}\n\n{page.table(headings, rows)}\n\n{_against_stock(net)}"


def _row(net: SlimmedNet, one: SlimShare) -> tuple[str, ...]:
    drops = [f"{s.drop_pp:+.2f} [{s.low_pp:+.2f}, {s.high_pp:+.2f}]" for s in one.scores]
    whole = f"{net.shares[0].asked:g}"
    speeds = [_ratio(net.race, f"int8-{whole}@{key}", f"int8-{one.asked:g}@{key}") for key in _ENGINES]
    cost = f"{one.seconds:.0f} s, {one.peak_mib} MiB" if one.peak_mib else NONE
    return (f"{one.share:.2f}", *drops, *speeds, cost)


def _ratio(found: Race, base: str, name: str) -> str:
    samples = {entry.name: entry.samples_ms for entry in found.entries if entry.samples_ms}
    if base == name or base not in samples or name not in samples:
        return NONE
    return page.ratio(ratios.interval(samples[base], samples[name]))


def _against_stock(net: SlimmedNet) -> str:
    """Say how each share compares with the stock files that raced along."""
    stocked = [entry for entry in net.race.entries if not entry.ours and entry.samples_ms]
    lines = []
    for entry in stocked:
        key = next(key for key, engine in _ENGINES.items() if engine == entry.engine)
        speeds = ", ".join(
            f"{one.share:.2f}: {_ratio(net.race, entry.name, f'int8-{one.asked:g}@{key}')}" for one in net.shares
        )
        lines.append(f"Against {entry.name}, by share: {speeds}.")
    return " ".join(lines)
