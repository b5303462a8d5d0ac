"""The sections of the page: what each measures, and how it is shown. In the order of the page."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import ours, races, stock, subjects
from benchmarks.candidates import Candidate
from benchmarks.race import Plan
from benchmarks.race import run as race
from benchmarks.records import Races
from benchmarks.subjects import Subject
from benchmarks.workshop import Workshop

ALL = {candidate.name: candidate for candidate in (*stock.CANDIDATES, *ours.CANDIDATES)}
_BASELINES = tuple(filter(None, (name for pair in stock.BASELINES.values() for name in pair)))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says.

    Attributes:
        only: Names of candidates; empty takes all. The baselines of their engines always run.
        plan: How races are run.
        checkpoint: A trained DenseNet in place of the seeded one; None for that.
        size: Side of the input in px that it was trained at, for accuracy.
    """

    only: tuple[str, ...]
    plan: Plan
    checkpoint: Path | None = None
    size: int = 224

    def candidates(self, keep: Callable[[Candidate], bool] = lambda _: True) -> tuple[Candidate, ...]:
        """Choose candidates: those named, their baselines, and of all these the ones to `keep`."""
        named = [ALL[name] for name in self.only or ALL]
        engines = {candidate.engine for candidate in named}
        base = [ALL[name] for name in _BASELINES if ALL[name].engine in engines]
        chosen = {candidate.name for candidate in (*named, *base)}
        return tuple(candidate for name, candidate in ALL.items() if name in chosen and keep(candidate))

    def subject(self, workshop: Workshop) -> Subject:
        """Give the net that latency is measured on, at 224×224 px."""
        if self.checkpoint is not None:
            return subjects.trained(self.checkpoint, 224)
        return subjects.seeded("densenet121", workshop.folder)


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One section.

    Attributes:
        title: Of the section.
        about: A sentence for ``--help`` and the page.
        record: What `measure` gives.
        measure: Does the work.
        render: Shows it as Markdown.
    """

    title: str
    about: str
    record: type[Any]
    measure: Callable[[Asked, Workshop], Any]
    render: Callable[[Any], str]


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
    chosen = asked.candidates(lambda candidate: candidate.ours or candidate.name in _BASELINES[:4])
    nets = [subjects.seeded(name, workshop.folder) for name in ("densenet169", "densenet201")]
    return Races(races=tuple(race(net.name.split(",")[0], net, chosen, workshop, asked.plan) for net in nets))


def _demo(asked: Asked, workshop: Workshop) -> Races:
    plan = replace(asked.plan, runs=5 * asked.plan.runs)  # a run takes a third of a millisecond
    return Races(races=(race("Demo", subjects.demo(), asked.candidates(), workshop, plan),))


def _deployable(candidate: Candidate) -> bool:
    return candidate.engine != "torch"


def _shown(found: Races) -> str:
    return "\n\n".join(races.render(one) for one in found.races)


MODES = {
    "latency": Mode(
        title="Latency", about="DenseNet-121, one image a run", record=Races, measure=_latency, render=_shown
    ),
    "batch8": Mode(
        title="Throughput, batch 8", about="DenseNet-121, eight images a run", record=Races, measure=_batch8,
        render=_shown,
    ),
    "streams": Mode(
        title="Throughput, two streams", about="DenseNet-121, two images at a time", record=Races, measure=_streams,
        render=_shown,
    ),
    "family": Mode(
        title="DenseNet-169 and 201", about="one image a run", record=Races, measure=_family, render=_shown
    ),
    "demo": Mode(
        title="The demo", about="the bundled DenseNet-BC-40, one image a run", record=Races, measure=_demo,
        render=_shown,
    ),
}  # fmt: skip
