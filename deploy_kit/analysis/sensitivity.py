"""What each layer group costs in accuracy and saves in time when it is quantized: trials, each kept in the store.

Accuracy: the group alone is quantized, everything else stays in float. A group's noise is then measured by itself; left
out of an otherwise quantized graph it would be the small difference of two large noises. Time: the layers of the float
engine and of the INT8 engine, each put where it stands in its graph.

One pass over the calibration images serves all trials: a worker plans once and writes a graph for each.
"""

import contextlib
import functools
import itertools
import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit import engines
from deploy_kit.accuracy import metrics
from deploy_kit.context import Context
from deploy_kit.devices import engine_parts, inference, links, task_comparison
from deploy_kit.devices.engine_parts import OutputsRequest
from deploy_kit.devices.links import Connection, Worker
from deploy_kit.graph import layer_names, onnx_file
from deploy_kit.images import ImageSource
from deploy_kit.images.arrays import write_npy
from deploy_kit.measure import layer_profile
from deploy_kit.parallel import ONE_PROCESS
from deploy_kit.quantization import schemes
from deploy_kit.recipe import Variant
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, ReferenceLogits
from deploy_kit.records.layer_times import UNKNOWN_REGION, LayerProfile, Trace
from deploy_kit.records.mixed_precision import GroupSize, GroupSizes, GroupTime, GroupTimes, Trial
from deploy_kit.store import Key

VERSION = "2"
N_IMAGES = 256
"""Images that a group's cost is measured on: SQNR and divergence are averages over all logits and need no more."""
_STAGE = "sensitivity"


@dataclass(frozen=True, kw_only=True)
class TrialSubject:
    """What is tried.

    Attributes:
        simplified: The float graph.
        variant: Scheme and options; its own `keep` stays in float in every trial.
        calibration: Image set that the scheme calibrates with.
        tuning: Image set that trials are judged on.
        reference: The checkpoint's own logits on the tuning images.
        engine: Engine that the graph is for.
    """

    simplified: Artifact
    variant: Variant
    calibration: ImageSource
    tuning: ImageSource
    reference: ReferenceLogits
    engine: str

    @property
    def evaluated_in(self) -> str:
        """The engine that computes the logits: the target where it opens ONNX files, else ONNX Runtime."""
        return self.engine if engines.CATALOGUE.get(self.engine).profile is not None else "onnxruntime"

    @property
    def float_type(self) -> str:
        """The type of what stays in float."""
        return str(getattr(self.options, "rest", "fp32"))

    @property
    def options(self) -> Any:
        """The scheme's own record of its options, with what was not said."""
        scheme = schemes.CATALOGUE.get(self.variant.scheme)
        return codec.from_json(scheme.options, self.variant.options, f"scheme '{self.variant.scheme}'")

    @property
    def asked(self) -> tuple[str, ...]:
        """Coordinates of what stays in float in every trial."""
        return tuple(self.variant.options.get("keep", ()))


@dataclass(kw_only=True)
class TrialRunner:
    """Trials of one subject. A context manager: it ends the worker that plans.

    Attributes:
        subject: What is tried.
        context: Keeps each trial, and runs graphs on the target.
        host: Connection to this machine, which plans and writes graphs.
        made: Number of trials that the store did not have.
    """

    subject: TrialSubject
    context: Context
    host: Connection
    made: int = 0
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _writer: Worker | None = None
    _sizes: GroupSizes | None = None

    def __enter__(self) -> "TrialRunner":
        return self

    def __exit__(self, *details: object) -> None:
        self._open.close()

    def groups(self) -> tuple[GroupSize, ...]:
        """Return the groups that can be chosen."""
        found, _ = self.context.store.produce(GroupSizes, self._key("groups", []), lambda folder, home: self._planned())
        return found.groups

    @property
    def always(self) -> tuple[str, ...]:
        """The groups that stay in float in every trial as a whole."""
        names = [group.name for group in self.groups()]
        return tuple(name for name in names if any(f"{name}.".startswith(f"{a}.") for a in self.subject.asked))

    def trial(self, kept: tuple[str, ...], *, n: int | None = None) -> Trial:
        """Leave groups in float and hold the logits against the checkpoint's.

        Args:
            kept: Coordinates; in any order.
            n: Take the first n images only.

        Raises:
            EngineCrashError: Native code died.
            DeployKitError: The scheme or the engine refused.
        """
        return next(self.trials((kept,), n=n))

    def trials(self, several: Sequence[tuple[str, ...]], *, n: int | None = None) -> Iterator[Trial]:
        """Make trials in their order; the context's workers, where it has some, run graphs and parts side by side.

        Args:
            several: Coordinates of what each leaves in float, as `trial` takes them.
            n: Take the first n images only.

        Raises:
            DeployKitError: As `trial`.
        """
        n = min(n or self.subject.reference.n, self.subject.reference.n)
        store, wanted = self.context.store, [self._ordered(kept) for kept in several]
        keys = {
            kept: self._key("trial", [kept, n, self.subject.evaluated_in], of_machine=True)
            for kept in dict.fromkeys(wanted)
        }
        found = self._found([kept for kept, key in keys.items() if store.kept(Trial, key) is None], n)

        def made(kept: tuple[str, ...]) -> Trial:
            self.made += 1
            return next(trial for trial in found if trial.kept == kept)

        with contextlib.closing(found):
            for kept in wanted:
                yield store.produce(Trial, keys[kept], lambda folder, home, kept=kept: made(kept))[0]  # type: ignore[misc]

    def times(self) -> GroupTimes:
        """Profile the engine with everything in float and with everything in INT8."""
        why = self._why_unavailable()
        if why:
            return GroupTimes(source="", groups=(), rest=GroupTime(name=UNKNOWN_REGION, float_ms=0, int8_ms=0), why=why)

        def make(folder: Path, home: str) -> GroupTimes:
            everything = tuple(group.name for group in self.groups())
            self.context.report("quantize", f"profiling {self.subject.engine}: float and int8")
            return _paired(self._profile(folder, everything), self._profile(folder, self._ordered(())))

        key = self._key("times", [self.subject.engine, self._ordered(())], of_machine=True)
        return self.context.store.produce(GroupTimes, key, make)[0]

    def _ordered(self, kept: tuple[str, ...]) -> tuple[str, ...]:
        """Return what stays in float in graph order, what always does included; coordinates of parts come last."""
        wanted = {*kept, *self.subject.asked}
        known = [group.name for group in self.groups()]
        return (*(name for name in known if name in wanted), *sorted(wanted - set(known)))

    def _planned(self) -> GroupSizes:
        if self._writer is None or self._sizes is None:
            subject = self.subject
            self.context.report("quantize", f"{subject.variant.name}: observing the calibration images once")
            self._writer = self._open.enter_context(self.host.worker())
            answer = self._writer.ask(
                "plan",
                subject.simplified.path,
                scheme=subject.variant.scheme,
                source=str(self.context.store.path(subject.simplified)),
                options=dict(subject.variant.options),
                calibration=subject.calibration.name,
                preprocess=codec.to_json(subject.simplified.preprocess),
                skip_bad=subject.calibration.skip_bad,
                orientation=subject.calibration.orientation,
                store=str(self.context.store.root),
                on=self.context.workers.place,
            )
            rows = tuple(GroupSize(name=name, macs=macs) for name, macs in answer["groups"])
            self._sizes = GroupSizes(groups=rows)
        return self._sizes

    def _written(self, folder: Path, kept: tuple[str, ...]) -> Path:
        self._planned()
        assert self._writer is not None
        file = folder / "model.onnx"
        self._writer.ask("mix", self.subject.simplified.path, keep=list(kept), target=str(file))
        return file

    def _found(self, several: Sequence[tuple[str, ...]], n: int) -> Generator[Trial, None, None]:
        """Write each graph and run it when its trial is asked for; on workers, a few ahead."""
        if not several:
            return
        with self.context.store.aside() as folder:
            here = self.context.connection
            many = len(several) > 1 or n > engine_parts.SIZE
            if not self._task and many and self.context.workers is not ONE_PROCESS and here.device == links.LOCAL:
                yield from self._spread(several, n, folder)
                return
            for kept in several:
                file = self._written(folder, kept)
                if self._task:
                    yield self._in_task(file, kept, n)
                else:
                    preprocess = self.subject.simplified.preprocess
                    images = self.subject.tuning.open(preprocess).first(n)
                    yield self._judged(kept, inference.infer_all(here, self._target(file), images, preprocess).logits)
                file.unlink()

    def _spread(self, several: Sequence[tuple[str, ...]], n: int, folder: Path) -> Iterator[Trial]:
        """Run the graphs on the context's workers, in parts of the images."""
        here, preprocess = self.context.connection, self.subject.simplified.preprocess
        images = self.subject.tuning.open(preprocess).first(n)
        running = deque[tuple[tuple[str, ...], Path, int]]()

        def requests() -> Iterator[OutputsRequest]:
            opened = None
            for index, kept in enumerate(several):
                file = self._written(folder, kept).rename(folder / f"{index}.onnx")
                if opened is None:
                    with inference.loaded_engine(here, self._target(file)) as opened:
                        pass
                parts = engine_parts.requests(
                    self._target(file), images, preprocess, label=self.subject.variant.name, batch=opened.batch,
                    processor=(here.environment.cpu, here.environment.isa), settings=opened.settings,
                )  # fmt: skip
                running.append((kept, file, len(parts)))
                yield from parts

        answers = self.context.workers.map(engine_parts.answer, requests())
        for first in answers:
            kept, file, n_parts = running.popleft()
            yield self._judged(kept, np.concatenate([first, *itertools.islice(answers, n_parts - 1)]))
            file.unlink()

    def _target(self, file: Path) -> inference.InferenceTarget:
        return inference.InferenceTarget(engine=self.subject.evaluated_in, path=file, options={})

    @property
    def _task(self) -> str:
        return self.subject.reference.task

    def _in_task(self, file: Path, kept: tuple[str, ...], n: int) -> Trial:
        """Compare in a task whose outputs are streamed."""
        subject, root = self.subject, self.context.store.root
        preprocess = subject.simplified.preprocess
        whole = task_comparison.case_of(root, subject.reference, subject.tuning.open(preprocess), preprocess)
        case = task_comparison.first_of(whole, n)
        with inference.loaded_engine(self.context.connection, self._target(file)) as opened:
            each = opened.each(case.images, preprocess, 4 * math.prod(case.settings.shape))
            arrays = task_comparison.compare_outputs(each, case, subject.variant.name)
        return Trial(
            kept=kept,
            n=n,
            sqnr_db=task_comparison.tensor_measures(arrays).sqnr_db,
            kl=None,
            agreement=float(arrays["alike"].sum() / arrays["of"].sum()),
            lost=0,
            gained=0,
            labelled=case.labelled,
            drop=task_comparison.drop_of(arrays, case.scoring),
        )

    def _judged(self, kept: tuple[str, ...], found: np.ndarray) -> Trial:
        n, (logits, labels) = len(found), self._truth
        wanted = logits[:n]
        agreement = metrics.top1_agreement(wanted, found)
        lost, gained = round(n * (1 - agreement)), 0
        if labels is not None:
            before, after = metrics.top1_hits(wanted, labels[:n]), metrics.top1_hits(found, labels[:n])
            lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        return Trial(
            kept=kept,
            n=n,
            sqnr_db=metrics.sqnr_db(wanted, found),
            kl=metrics.kl_divergence(wanted, found),
            agreement=agreement,
            lost=lost,
            gained=gained,
            labelled=labels is not None,
        )

    @functools.cached_property
    def _truth(self) -> tuple[np.ndarray, np.ndarray | None]:
        reference = self.subject.reference
        with np.load(self.context.store.root / reference.path, allow_pickle=False) as data:
            return data["logits"], data["labels"] if reference.top1 is not None else None

    def _profile(self, folder: Path, kept: tuple[str, ...]) -> LayerProfile:
        subject, file, inputs = self.subject, self._written(folder, kept), folder / "image.npy"
        size = subject.simplified.inputs[0].shape[0]
        image_set = subject.tuning.open(subject.simplified.preprocess)
        batch = next(image_set.batches(subject.simplified.preprocess, size if isinstance(size, int) else 1))
        write_npy(inputs, batch)
        with self.context.connection.worker() as worker:
            answer = worker.ask(
                "profile",
                subject.simplified.path,
                engine=subject.engine,
                path=self.context.connection.send(file),
                options={},
                inputs=self.context.connection.send(inputs),
                runs=layer_profile.RUNS,
            )
        found = layer_profile.attribute_layers(
            codec.from_json(Trace, answer["trace"]), layer_names.named_locations(onnx_file.load(file))
        )
        file.unlink()
        inputs.unlink()
        return found

    def _why_unavailable(self) -> str:
        """Return why there are no layer times; empty if there are."""
        name = self.subject.engine
        if engines.CATALOGUE.get(name).profile is None:
            return f"engine '{name}' does not time its layers: multiply-accumulates stand in for ms"
        with self.context.connection.worker() as worker:
            why = str(worker.ask("why_unavailable", self.subject.simplified.path, engine=name)["why"])
        return f"{why}: multiply-accumulates stand in for ms" if why else ""

    def _key(self, what: str, options: list[Any], *, of_machine: bool = False) -> Key:
        subject = self.subject
        scheme = schemes.CATALOGUE.get(subject.variant.scheme)
        # With the defaults: other defaults are another graph. What stays in float is said in `options`.
        own = codec.to_json(subject.options)
        own.pop("keep", None)
        return Key(
            stage=_STAGE,
            name=f"{what}-{subject.variant.name}",
            inputs=(subject.simplified.sha256, self._calibration_digest, subject.reference.sha256),
            options=[what, subject.variant.scheme, own, *options],
            versions=(
                ("stage", VERSION),
                *scheme.key_versions(subject.simplified),
                *(self._machine if of_machine else ()),
            ),
        )

    @functools.cached_property
    def _machine(self) -> tuple[tuple[str, str], ...]:
        there = self.context.connection.environment
        return (("cpu", there.cpu), ("isa", " ".join(there.isa)), *there.versions)

    @functools.cached_property
    def _calibration_digest(self) -> str:
        return self.subject.calibration.open(self.subject.simplified.preprocess).digest


def _paired(floats: LayerProfile, integers: LayerProfile) -> GroupTimes:
    """Put the layers of both engines beside each other by group."""
    names = [name for name in dict.fromkeys((*floats.regions, *integers.regions)) if name != UNKNOWN_REGION]
    return GroupTimes(
        source=floats.source,
        groups=tuple(_time(name, floats, integers) for name in names),
        rest=_time(UNKNOWN_REGION, floats, integers),
    )


def _time(name: str, floats: LayerProfile, integers: LayerProfile) -> GroupTime:
    def spent(profile: LayerProfile) -> float:
        return sum(layer.median_ms for layer in profile.layers if layer.region == name)

    return GroupTime(name=name, float_ms=spent(floats), int8_ms=spent(integers))
