"""ONNX → ONNX with fewer multiply-accumulates: channels between two convolutions removed, what follows refitted.

Never on by default: the result is another network than the checkpoint's, and says so in its passport and in its file.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from deploy_kit import engines
from deploy_kit.base.errors import InputError, RecipeError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.context import Context
from deploy_kit.graph import layer_names, onnx_file
from deploy_kit.graph.onnx_artifact import onnx_artifact
from deploy_kit.images import ImageSet, ImageSource, calibration_checks
from deploy_kit.machine.environment import describe_machine, versions_of
from deploy_kit.measure import layer_profile
from deploy_kit.recipe import SlimTable, targets
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, Preprocess
from deploy_kit.records.layer_times import Trace
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.slimming import ChannelCurve, ChannelCurves, Price, Slimmed, SlimmedLayer
from deploy_kit.slimming import allocation, prices

VERSION = "3"
_LIBRARIES = ("torch", "onnx", "onnx-ir", "numpy")
_FILE = "sensitivities.npz"
_MINUTES = 10.0
_ROUNDS = 3


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
    kept, price = tuple(curve.channels for curve in curves.curves), None
    if table.macs < 1:
        price = priced(simplified, table, curves, context, images=used)
        kept = allocation.allocate(curves, table.macs, table.step, price)
    whole = kept == tuple(curve.channels for curve in curves.curves)
    if learned is not None and whole:
        raise InputError(
            f"slim: at {table.macs:g} of the multiply-accumulates nothing is removed, and there is nothing to distil",
            hint="ask for less, e.g. --macs 0.6, or leave out --distill",
        )
    minutes = table.distill_minutes or _MINUTES
    words = "" if price is None else price.words  # two prices may choose the same channels: each record says its own

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
            price=words,
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
        options=[table.macs, list(kept), words, *([minutes] if learned is not None else [])],
        versions=(("stage", VERSION), *versions_of(*_LIBRARIES)),
    )


def priced(
    simplified: Artifact, table: SlimTable, curves: ChannelCurves, context: Context, *, images: ImageSet
) -> Price:
    """Measure what layers cost on the table's target, once for every budget; multiply-accumulates where that cannot be.

    INT8 graphs with three numbers of channels at all places are profiled in turns; of a layer group's times the least
    of the rounds' medians counts, as other programs only ever add to it.

    Args:
        simplified: The float graph.
        table: Names the target.
        curves: Its places.
        context: Where.
        images: Images of which a few calibrate.
    """
    by_macs, target = Price.of_macs(curves), table.target
    if target is None:
        return by_macs
    layout = targets.find_target(targets.target_of(target)).int8
    why = "" if layout else f"'{target}' takes no int8"
    if not why and engines.CATALOGUE.get(target).profile is None:
        why = f"'{target}' does not time its layers"
    if not why:
        with context.connection.worker() as worker:
            why = str(worker.ask("why_unavailable", simplified.path, engine=target)["why"])
    if why:
        context.report("slim", f"layers are priced by their multiply-accumulates: {why}")
        return by_macs
    size, machine = simplified.inputs[0].shape[0], describe_machine()
    counts = prices.widths(curves, table.step)

    def make(folder: Path, home: str) -> Price:
        context.report("slim", f"timing layers in INT8 on {target}")
        with tempfile.TemporaryDirectory(dir=folder) as graphs:
            files = [Path(graphs) / f"{n}.onnx" for n in counts]
            answer = _asked(
                "slim_times",
                simplified,
                images,
                context,
                engine=target,
                scheme=f"int8_{layout}",
                kept=[[curve.kept(min(n, curve.channels)) for curve in curves.curves] for n in counts],
                targets=[str(file) for file in files],
                inputs=str(Path(graphs) / "image.npy"),
                batch=size if isinstance(size, int) else 1,
                options={},
                rounds=_ROUNDS,
                runs=layer_profile.RUNS,
            )
            timed = {n: _least(file, rows) for n, file, rows in zip(counts, files, answer["traces"], strict=True)}
        where = f"{target}, int8, {machine.cpu}, {machine.cores} cores"
        return prices.fitted(curves, timed, where)

    return context.produce(
        Price,
        make,
        stage="slim",
        name=f"times-{target}",
        inputs=(simplified.sha256, curves.sha256),
        options=["times", target, list(counts), machine.host, machine.cpu, machine.cores],
        versions=(("stage", VERSION), *versions_of(target, *_LIBRARIES)),
    )[0]


def _least(file: Path, traces: list[Any]) -> dict[str, float]:
    """Return the ms of each layer group: the least over the rounds of the sums of its layers' medians."""
    locations, least = layer_names.named_locations(onnx_file.load(file)), dict[str, float]()
    for trace in traces:
        sums = dict[str, float]()
        for layer in layer_profile.attribute_layers(codec.from_json(Trace, trace), locations).layers:
            sums[layer.region] = sums.get(layer.region, 0.0) + layer.median_ms
        least = {name: min(ms, least.get(name, ms)) for name, ms in sums.items()}
    return least


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
