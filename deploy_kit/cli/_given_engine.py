"""``check FILE``: a file given by the user, against a checkpoint, golden outputs, or labels alone."""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from deploy_kit import recipe
from deploy_kit.base import bundled
from deploy_kit.base.errors import RequestError
from deploy_kit.cli import _steps
from deploy_kit.cli._console import Console, pairs
from deploy_kit.cli._options import StepOptions
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.images import ImageSource
from deploy_kit.recipe import BuildEntry, overrides
from deploy_kit.records.artifacts import Artifact, Preprocess
from deploy_kit.records.measurements import NotRun
from deploy_kit.records.parity import LabelScore
from deploy_kit.records.results import ParityReport
from deploy_kit.records.verdict import NO_LIMIT
from deploy_kit.stages import adopt, check, reference
from deploy_kit.stages.report import accuracy
from deploy_kit.store import Store, sha256_of

LABELS = "labels"
T = TypeVar("T", ParityReport, LabelScore)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenEngine:
    """What is judged, and what by.

    Attributes:
        file: The engine's file.
        against: A checkpoint or ONNX file; ``labels`` for the labels of the images alone; None for the checkpoint that
            the file's passport names.
        golden: npz file with ``images`` and the expected ``logits``; then there is no other image set.
        engine: Name of its engine; None leaves it to the passport or the file's ending.
        source: Facts of the checkpoint, and the preprocessing, as keys of a recipe's source table.
        max_drop: Largest drop of accuracy in points.
        min_top1: Least top-1 accuracy in 0..1.
    """

    file: Path
    against: str | None
    golden: Path | None
    engine: str | None
    source: Mapping[str, Any]
    max_drop: float | None
    min_top1: float | None


def judge(given: GivenEngine, step: StepOptions, console: Console) -> ParityReport | LabelScore:
    """Judge a file on this machine or a device; no recipe in force is read or changed.

    Raises:
        RequestError: Nothing says what to compare with, or on which images.
        DeviceError: The engine cannot run there.
        DeployKitError: As `stages.adopt`, `stages.reference` and `stages.check`.
    """
    base = recipe.load_recipe(step.recipe or overrides.DEFAULT)
    images = _images(given, step)
    entry = BuildEntry(engine=given.engine, variants=()) if given.engine else None
    stated = overrides.source_table({**given.source, "checkpoint": str(given.file)}).preprocess
    table = overrides.with_inputs(base, crops=step.crops).check
    store, device = Store(step.store), links.find_device(step.device)
    with links.connect_device(links.LOCAL) as here, links.connect_device(device) as there:
        host = Context(store=store, connection=here, on_progress=console.on_progress)
        target = dataclasses.replace(host, connection=there)
        engine, _ = adopt.run(given.file, entry, target, preprocess=stated.record() if stated else None)
        assert isinstance(engine.preprocess, Preprocess)  # `adopt` takes no other
        if given.against == LABELS:
            return _found(check.by_labels(engine, target, images=images, min_top1=given.min_top1), engine)
        if given.golden is not None:  # its images have the network's size already
            engine = dataclasses.replace(engine, preprocess=dataclasses.replace(engine.preprocess, resize=None))
            logits, _ = reference.of_file(given.golden, images.open(engine.preprocess), host)
        else:
            source = overrides.source_table({**given.source, "checkpoint": _checkpoint(given, engine)})
            opened = images.open(engine.preprocess)
            logits, _ = reference.run(source, engine.preprocess, host, images=opened, crops=table.crops)
        limits = table.with_limits(engine.precision, max_drop=given.max_drop, min_top1=given.min_top1)
        return _found(check.run(engine, limits, target, reference=logits, images=images)[0], engine)


def drawn(checked: ParityReport | LabelScore) -> str:
    """Draw a check, against logits or on labels alone."""
    if isinstance(checked, ParityReport):
        return pairs(accuracy.lines(checked))
    five = f"; top-5 {100 * checked.top5:.2f} %" if checked.top5 is not None else ""
    interval = f"[{100 * checked.low:.2f}, {100 * checked.high:.2f}]"
    return pairs(
        [
            ("engine", checked.label),
            ("images", f"{checked.n} ({checked.images})"),
            ("top-1", f"{100 * checked.top1:.2f} % {interval}{five}"),
            ("compared with", "labels alone: what the checkpoint answers is not known"),
            ("limits", ", ".join(checked.verdict.limits) or NO_LIMIT),
            ("verdict", checked.verdict.text),
        ]
    )


def _found(found: T | NotRun, engine: Artifact) -> T:
    if isinstance(found, NotRun):
        raise _steps.not_run_error(engine.label, found.why)
    return found


def _images(given: GivenEngine, step: StepOptions) -> ImageSource:
    if given.golden is not None and (step.images or given.against):
        raise RequestError(
            "--golden has images and outputs of its own: --images and --against do not go with it",
            hint=f"deploykit check {shlex.quote(str(given.file))} --golden {shlex.quote(str(given.golden))}",
        )
    name = str(given.golden) if given.golden is not None else step.images
    if name is None:
        raise RequestError(
            f"{given.file}: no images to check on", hint="give --images FOLDER, or --golden golden.npz of a bundle"
        )
    data = overrides.with_inputs(
        recipe.load_recipe(overrides.DEFAULT), images=name, skip_bad=step.skip_bad, orientation=step.orientation
    ).check
    return ImageSource(name=data.images, skip_bad=data.skip_bad, orientation=data.orientation)


def _checkpoint(given: GivenEngine, engine: Artifact) -> str:
    """Return the checkpoint to compare with: the one given, or the one in the passport if it is here unchanged."""
    if given.against is not None:
        return given.against
    origin = engine.origin
    named = bundled.resolve_bundled("models", origin.checkpoint) if origin is not None else None
    if origin is not None and named is not None and named.is_file() and sha256_of(named) == origin.checkpoint_sha256:
        return origin.checkpoint
    made_of = f" (it was made of {origin.checkpoint}, sha256 {origin.checkpoint_sha256[:12]}…)" if origin else ""
    raise RequestError(
        f"{given.file}: nothing to compare with{made_of}",
        hint="--against CHECKPOINT, --golden golden.npz, or --against labels for the accuracy alone",
    )
