"""The sections of the page: what each measures, and how it is shown. In the order of the page."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks import (
    accuracy,
    agreement,
    calibration,
    end_to_end,
    frames,
    loop,
    ours,
    plans,
    races,
    relatives,
    rewrites,
    roofline,
    slimmed,
    stock,
    subjects,
)
from benchmarks.accuracy import Accuracies
from benchmarks.agreement import Agreement, Net
from benchmarks.calibration import Costs
from benchmarks.candidates import Candidate, Ours
from benchmarks.end_to_end import EndToEnd
from benchmarks.loop import Loop
from benchmarks.race import Plan
from benchmarks.race import run as race
from benchmarks.records import Races
from benchmarks.relatives import Relatives
from benchmarks.rewrites import Rewrites
from benchmarks.roofline import Roofline
from benchmarks.slimmed import SlimmedNets, SlimPlan
from benchmarks.subjects import CALIBRATION, Subject
from benchmarks.workshop import Workshop

ALL = {candidate.name: candidate for candidate in (*stock.CANDIDATES, *ours.CANDIDATES, *ours.SIMULATED)}
_BASELINES = tuple(filter(None, (name for pair in stock.BASELINES.values() for name in pair)))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says.

    Attributes:
        only: Names of candidates; empty takes all. The baselines of their engines always run.
        plan: How races are run.
        checkpoint: A trained DenseNet in place of the seeded one; None for that.
        size: Side of the input in px that it was trained at, for accuracy.
        quick: Measure as little as shows that it works.
        images: Image set that slimming refits weights to.
        shares: Shares of the multiply-accumulates that it leaves.
    """

    only: tuple[str, ...]
    plan: Plan
    checkpoint: Path | None = None
    size: int = 224
    quick: bool = False
    images: str = CALIBRATION
    shares: tuple[float, ...] = slimmed.SHARES

    def candidates(self, keep: Callable[[Candidate], bool] = lambda one: not one.simulated) -> tuple[Candidate, ...]:
        """Choose candidates: those named, their baselines, and of all these the ones to `keep` (the timed)."""
        named = [ALL[name] for name in self.only or ALL]
        engines = {candidate.engine for candidate in named}
        base = [ALL[name] for name in _BASELINES if ALL[name].engine in engines]
        chosen = {candidate.name for candidate in (*named, *base)}
        return tuple(candidate for name, candidate in ALL.items() if name in chosen and keep(candidate))

    def files(self) -> dict[str, Ours]:
        """Return each INT8 file of ours that a chosen candidate runs, by name."""
        chosen = [candidate.file for candidate in self.candidates()]
        return {name: file for name, file in ours.quantized().items() if file in chosen}

    def subject(self, workshop: Workshop) -> Subject:
        """Return the net that latency is measured on, at 224×224 px."""
        if self.checkpoint is not None:
            return subjects.trained(self.checkpoint, 224)
        return subjects.seeded("densenet121", workshop.folder)


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One section.

    Attributes:
        title: The section's heading.
        about: A sentence for ``--help`` and the page.
        record: What `measure` gives.
        measure: Does the work.
        render: Shows it as Markdown.
        page: Which page it is a section of.
    """

    title: str
    about: str
    record: type[Any]
    measure: Callable[[Asked, Workshop], Any]
    render: Callable[[Any], str]
    page: Literal["benchmarks", "accuracy"] = "benchmarks"


def _latency(asked: Asked, workshop: Workshop) -> Races:
    one = race("Batch 1", asked.subject(workshop), asked.candidates(), workshop, asked.plan)
    return Races(races=(one,))


def _batch8(asked: Asked, workshop: Workshop) -> Races:
    subject = asked.subject(workshop).batched(8)
    plan = replace(asked.plan, rounds=max(3, asked.plan.rounds // 2), runs=max(2, asked.plan.runs // 2))
    return Races(races=(race("Batch 8", subject, asked.candidates(_deployable), workshop, plan),))


def _streams(asked: Asked, workshop: Workshop) -> Races:
    plan = replace(asked.plan, streams=2, runs=max(2, asked.plan.runs // 2))
    one = race("Two streams", asked.subject(workshop), asked.candidates(_deployable), workshop, plan)
    return Races(races=(one,))


def _family(asked: Asked, workshop: Workshop) -> Races:
    chosen = asked.candidates(lambda one: _deployable(one) and (one.ours or one.name in _BASELINES))
    nets = [subjects.seeded(name, workshop.folder) for name in ("densenet169", "densenet201")]
    return Races(races=tuple(race(net.name.split(",")[0], net, chosen, workshop, asked.plan) for net in nets))


def _demo(asked: Asked, workshop: Workshop) -> Races:
    plan = replace(asked.plan, runs=5 * asked.plan.runs)  # a run takes a third of a millisecond
    return Races(races=(race("Demo", subjects.demo(), asked.candidates(), workshop, plan),))


def _engines(asked: Asked, workshop: Workshop) -> Races:
    chosen = tuple(one for one in ours.CANDIDATES if one.name.partition("@")[0] in races.EVERYWHERE)
    return Races(races=(race("Every engine", asked.subject(workshop), chosen, workshop, asked.plan),))


def _frames(asked: Asked, workshop: Workshop) -> Races:
    return Races(races=(frames.measure(asked.subject(workshop), workshop, asked.plan),))


def _roofline(asked: Asked, workshop: Workshop) -> Roofline:
    return roofline.measure(
        asked.subject(workshop), asked.candidates(lambda one: one.int8 and not one.simulated), workshop, asked.plan
    )


def _accuracy(asked: Asked, workshop: Workshop) -> Accuracies:
    nets = [subjects.demo()]
    if asked.checkpoint is not None:
        nets.append(subjects.trained(asked.checkpoint, asked.size))
    sizes = (asked.plan.calibration_images,) if asked.quick else (16, 64, 512)
    chosen = asked.candidates(lambda one: one.engine != "torch")
    by_net = ((net, sizes if number == 0 else sizes[-1:]) for number, net in enumerate(nets))
    return Accuracies(nets=tuple(accuracy.measure(net, chosen, its, workshop) for net, its in by_net))


def _rewrites(asked: Asked, workshop: Workshop) -> Rewrites:
    names = ("densenet121",) if asked.quick else tuple(f"densenet{n}" for n in (121, 169, 201, 161))
    nets = tuple(subjects.seeded(name, workshop.folder) for name in names)
    return rewrites.measure(nets, ours.REWRITES, workshop, asked.plan)


def _calibration(asked: Asked, workshop: Workshop) -> Costs:
    return calibration.measure(asked.subject(workshop), ours.PORTABLE, 32 if asked.quick else 512, workshop)


def _end_to_end(asked: Asked, workshop: Workshop) -> EndToEnd:
    n = asked.plan.calibration_images if asked.quick else 128
    return end_to_end.measure(asked.subject(workshop), asked.files(), n, workshop)


def _agreement(asked: Asked, workshop: Workshop) -> Agreement:
    demo, large = subjects.demo(), asked.subject(workshop)
    if asked.quick:
        nets = (
            Net(subject=demo, runs=40, rounds=6, short_rounds=6),
            Net(subject=large, runs=4, rounds=6, short_rounds=6),
        )
    else:
        rounds = max(asked.plan.rounds, 20)
        nets = (
            Net(subject=demo, runs=400, rounds=rounds, short_rounds=10 * rounds),
            Net(subject=large, runs=10, rounds=rounds, short_rounds=3 * rounds),
        )
    return agreement.measure(nets, workshop, asked.plan.threads)


def _loop(asked: Asked, workshop: Workshop) -> Loop:
    return loop.measure()


def _slim(asked: Asked, workshop: Workshop) -> SlimmedNets:
    chosen = tuple(ALL[pair[0]] for pair in stock.BASELINES.values() if pair and pair[0])
    shares = (1.0, 0.7) if asked.quick else (1.0, *(share for share in asked.shares if share < 1))

    def planned(subject: Subject, raced: Subject) -> SlimPlan:
        return SlimPlan(subject=subject, raced=raced, shares=shares, images=asked.images, stock=chosen)

    nets = [planned(subjects.demo(), subjects.demo())]
    if asked.checkpoint is not None:
        nets.append(planned(subjects.trained(asked.checkpoint, asked.size), subjects.trained(asked.checkpoint, 224)))
    return slimmed.measure(tuple(nets), workshop, asked.plan)


def _relatives(asked: Asked, workshop: Workshop) -> Relatives:
    names = tuple(relatives.NETWORKS)[: 1 if asked.quick else None]
    return relatives.measure(tuple(ALL[name] for name in relatives.FILES), workshop, asked.plan, names)


def _plans(asked: Asked, workshop: Workshop) -> plans.Plans:
    nets = plans.subjects_of(asked.subject(workshop), workshop, quick=asked.quick)
    return plans.measure(nets, workshop)


def _deployable(candidate: Candidate) -> bool:
    return candidate.engine != "torch" and not candidate.simulated


def _shown(found: Races) -> str:
    return "\n\n".join(races.render(one) for one in found.races)


def _races(title: str, about: str, measure: Callable[[Asked, Workshop], Races]) -> Mode:
    return Mode(title=title, about=about, record=Races, measure=measure, render=_shown)


MODES = {
    "latency": _races("Latency", "DenseNet-121, one image a run", _latency),
    "batch8": _races("Throughput, batch 8", "DenseNet-121, eight images a run", _batch8),
    "streams": _races("Throughput, two streams", "DenseNet-121, two images at a time", _streams),
    "family": _races("DenseNet-169 and 201", "one image a run", _family),
    "engines": Mode(
        title="Every engine",
        about="DenseNet-121, one image a run, float32 and INT8 of each engine",
        record=Races,
        measure=_engines,
        render=lambda found: races.render_engines(found.races[0]),
    ),
    "demo": _races("The demo", "the bundled DenseNet-BC-40, one image a run", _demo),
    "relatives": Mode(
        title="DenseNet's relatives",
        about="RDNet, VoVNet, DPN, CSP-ResNet and BlurDenseNet of timm: INT8 by deploykit, ONNX Runtime and NNCF",
        record=Relatives,
        measure=_relatives,
        render=relatives.render,
    ),
    "frames": Mode(
        title="Frame to class",
        about="the INT8 file of DenseNet-121 with its normalization in numpy, in OpenVINO's own, in the graph",
        record=Races,
        measure=_frames,
        render=lambda found: frames.render(found.races[0]),
    ),
    "roofline": Mode(
        title="Distance to the machine's limit",
        about="INT8 files of DenseNet-121 against the INT8 matrix peak",
        record=Roofline,
        measure=_roofline,
        render=roofline.render,
    ),
    "accuracy": Mode(
        title="Accuracy",
        about="the demo on 10,000 test images, by calibration size; with --checkpoint that net too",
        record=Accuracies,
        measure=_accuracy,
        render=accuracy.render,
        page="accuracy",
    ),
    "slim": Mode(
        title="Fewer multiply-accumulates",
        about="the demo slimmed to several shares, INT8 against INT8; with --checkpoint that net too",
        record=SlimmedNets,
        measure=_slim,
        render=slimmed.render,
    ),
    "rewrites": Mode(
        title="Exact rewrites in float",
        about="DenseNet-121, 169, 201 and 161, stock export against simplified graph",
        record=Rewrites,
        measure=_rewrites,
        render=rewrites.render,
    ),
    "calibration": Mode(
        title="Cost of calibration",
        about="seconds and memory by method, beside ONNX Runtime's own calibrators",
        record=Costs,
        measure=_calibration,
        render=calibration.render,
        page="accuracy",
    ),
    "end_to_end": Mode(
        title="From checkpoint to parity",
        about="whole commands, with the memory of all their processes",
        record=EndToEnd,
        measure=_end_to_end,
        render=end_to_end.render,
    ),
    "agreement": Mode(
        title="Agreement with the runtimes' own tools",
        about="the demo and DenseNet-121: onnxruntime_test and benchmark_app, in turns with deploykit's loop",
        record=Agreement,
        measure=_agreement,
        render=agreement.render,
    ),
    "loop": Mode(
        title="Cost of the bench loop",
        about="a session that does nothing, in µs an iteration",
        record=Loop,
        measure=_loop,
        render=loop.render,
    ),
    "tensorrt": Mode(
        title="TensorRT-RTX plans",
        about="DenseNet-121 to 264 and the demo in fp32, fp16 and int8, built without a GPU and not run",
        record=plans.Plans,
        measure=_plans,
        render=plans.render,
    ),
}
