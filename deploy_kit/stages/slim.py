"""ONNX → ONNX with fewer multiply-accumulates: channels between two convolutions removed, what follows refitted.

Never on by default: the result is another network than the checkpoint's, and says so in its passport and in its file.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from deploy_kit.base.errors import InputError, RecipeError
from deploy_kit.context import Context
from deploy_kit.graph.onnx_artifact import onnx_artifact
from deploy_kit.images import ImageSet, ImageSource, calibration_checks
from deploy_kit.machine.environment import versions_of
from deploy_kit.recipe import SlimTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, Preprocess
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.slimming import ChannelCurve, ChannelCurves, Slimmed, SlimmedLayer
from deploy_kit.slimming import allocation
from deploy_kit.store import sha256_of

VERSION = "3"
_LIBRARIES = ("torch", "onnx", "onnx-ir", "numpy")
_FILE = "sensitivities.npz"
_MINUTES = 10.0


def run(
    simplified: Artifact,
    table: SlimTable,
    context: Context,
    *,
    images: ImageSource | None,
    training: ImageSource | None = None,
) -> tuple[Slimmed, bool]:
    """Slim a graph to a share of its multiply-accumulates.

    Args:
        simplified: A float32 graph whose output are logits.
        table: The share, the images and the step.
        context: Where.
        images: Image set that the weights are refitted to; labels are not read.
        training: Image set to train on afterwards, to the original's answers; None for no training. Labels are not
            read.

    Returns:
        The graph and what was kept in it, and whether the store had it.

    Raises:
        InputError: There are no real images, the share is less than what can be left, or the graph is none that can be
            slimmed.
        SlimError: torch's answers differ from ONNX Runtime's.
    """
    used = _images(simplified, images)
    curves, _ = measured(simplified, context, images=images)
    if table.distill_minutes is not None and training is None:
        raise RecipeError(
            "slim.distill_minutes: is the time of slim.distill, and there is none", hint="name images: slim.distill"
        )
    learned = None if training is None else _images(simplified, training)
    if learned is not None:
        _expect_others(learned, used)
        _examined(learned, simplified, context)
    kept = tuple(curve.channels for curve in curves.curves)
    if table.macs < 1:
        kept = allocation.allocate(curves, table.macs, table.step)
    whole = kept == tuple(curve.channels for curve in curves.curves)
    if learned is not None and whole:
        raise InputError(
            f"slim: at {table.macs:g} of the multiply-accumulates nothing is removed, and there is nothing to distil",
            hint="ask for less, e.g. --macs 0.6, or leave out --distill",
        )
    minutes = table.distill_minutes or _MINUTES

    def make(folder: Path, home: str) -> Slimmed:
        file, begun = folder / "model.onnx", time.perf_counter()
        layers, answer = _unchanged(curves), dict[str, Any]()
        if whole:
            shutil.copyfile(context.store.path(simplified), file)
        else:
            answer = _asked(
                "slim",
                simplified,
                used,
                context,
                target=str(file),
                curves=codec.to_json(curves.curves),
                kept=list(kept),
                sensitivities=str(context.store.root / curves.path),
            )
            layers = tuple(codec.from_json(SlimmedLayer, row) for row in answer["layers"])
        trained = dict[str, Any]()
        if learned is not None:
            trained = _asked("distill", simplified, learned, context, target=str(file), seconds=60 * minutes)
        slimmed = Slimmed(
            onnx=_artifact(file, home, simplified, MadeBy()),
            macs_before=curves.macs,
            macs_after=int(answer.get("macs", curves.macs)),
            layers=layers,
            n_images=used.n if answer else 0,
            seconds=round(time.perf_counter() - begun, 1),
            peak_memory_mib=max(int(made.get("peak_memory_mib", 0)) for made in (answer, trained)),
            distilled=str(trained.get("words", "")),
        )
        made_by = MadeBy(
            passes=simplified.made_by.passes,  # what was applied holds for the slimmed graph as well
            calibration=used.name if answer else "",
            n_images=str(used.n) if answer else "",
            left_out=used.left_out if answer else "",
            slimmed=slimmed.words if answer else "",
            peak_memory_mib=str(slimmed.peak_memory_mib or ""),
            versions=versions_of(*_LIBRARIES),
        )
        return Slimmed(**vars(slimmed) | {"onnx": _artifact(file, home, simplified, made_by)})

    return context.produce(
        Slimmed,
        make,
        stage="slim",
        name=f"{table.macs:g}",
        inputs=(simplified.sha256, used.digest, curves.sha256, *((learned.digest,) if learned is not None else ())),
        options=[table.macs, table.step, *([minutes] if learned is not None else [])],
        versions=(("stage", VERSION), *versions_of(*_LIBRARIES)),
    )


def measured(simplified: Artifact, context: Context, *, images: ImageSource | None) -> tuple[ChannelCurves, bool]:
    """Measure what the removal of channels costs at each place of a graph: once for every budget.

    Args:
        simplified: A float32 graph whose output are logits.
        context: Where.
        images: Calibration images; labels are not read.

    Raises:
        InputError: There are no real images, or the graph is none that can be slimmed.
        SlimError: torch's answers differ from ONNX Runtime's.
    """
    used = _images(simplified, images)

    def make(folder: Path, home: str) -> ChannelCurves:
        _examined(used, simplified, context)
        begun = time.perf_counter()
        answer = _asked("slim_curves", simplified, used, context, target=str(folder / _FILE))
        return ChannelCurves(
            path=f"{home}/{_FILE}",
            sha256=sha256_of(folder / _FILE),
            macs=int(answer["macs"]),
            n_images=used.n,
            curves=tuple(codec.from_json(ChannelCurve, row) for row in answer["curves"]),
            refused=tuple((str(reason), int(n)) for reason, n in answer["refused"]),
            seconds=round(time.perf_counter() - begun, 1),
            peak_memory_mib=int(answer["peak_memory_mib"]),
        )

    return context.produce(
        ChannelCurves,
        make,
        stage="slim",
        name="curves",
        inputs=(simplified.sha256, used.digest),
        options=["curves"],
        versions=(("stage", VERSION), *versions_of(*_LIBRARIES)),
    )


def _asked(op: str, simplified: Artifact, images: ImageSet, context: Context, **more: Any) -> dict[str, Any]:
    """Let a worker process do it: its memory ends with it."""
    with context.connection.worker() as worker:
        return worker.ask(
            op,
            simplified.path,
            on_progress=context.on_progress,
            source=str(context.store.path(simplified)),
            calibration=images.name,
            preprocess=codec.to_json(simplified.preprocess),
            skip_bad=images.skip_bad,
            orientation=images.orientation,
            digest=images.digest,
            **more,
        )


def _images(simplified: Artifact, images: ImageSource | None) -> ImageSet:
    if simplified.precision != "fp32":
        raise InputError(
            f"{simplified.path}: expected a float32 graph, found {simplified.precision}",
            hint="slim before quantize: give the float32 file it was made from",
        )
    if simplified.preprocess != simplified.preprocess.normalized:
        raise InputError(
            f"{simplified.path}: takes pixels, and slim refits weights behind a float input",
            hint="slim the graph exported without --input-pixels, then: deploykit export SLIMMED.onnx --input-pixels",
        )
    if images is None or images.is_noise:
        raise InputError(
            "slim needs images to refit the weights to, and noise would give wrong ones",
            hint="give some thousand real ones, without labels: --calibration FOLDER (or an npz file)",
        )
    return images.open(simplified.preprocess)


def _examined(images: ImageSet, simplified: Artifact, context: Context) -> None:
    """Refuse images that would calibrate wrongly: weights are fitted to them."""
    assert isinstance(simplified.preprocess, Preprocess)  # of a bare input no image set but noise can be opened
    context.report("slim", f"checking the images of {images.name}")
    for remark in calibration_checks.require(images, calibration_checks.examine(images, simplified.preprocess)):
        context.report("slim", f"calibration: {remark}")


def _expect_others(learned: ImageSet, used: ImageSet) -> None:
    """Refuse to train on images that weights were refitted to: those held out of them could not tell a gain."""
    shared = len(set(learned.hashes) & set(used.hashes))
    if shared:
        raise InputError(
            f"{learned.name}: {shared} of {learned.n} images to distil on are ones that weights are refitted to",
            hint=f"give other images to --distill than {used.name}",
        )


def _unchanged(curves: ChannelCurves) -> tuple[SlimmedLayer, ...]:
    return tuple(
        SlimmedLayer(
            name=curve.name,
            channels=curve.channels,
            kept=curve.channels,
            macs_before=curve.macs,
            macs_after=curve.macs,
            predicted=0.0,
            seen=0.0,
        )
        for curve in curves.curves
    )


def _artifact(file: Path, home: str, simplified: Artifact, made_by: MadeBy) -> Artifact:
    return onnx_artifact(
        file,
        home,
        name="fp32",
        stage="slim",
        parent=simplified.sha256,
        preprocess=simplified.preprocess,
        made_by=made_by,
    )
