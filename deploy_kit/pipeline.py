"""The straight line from a checkpoint to a report. One target that fails does not take the others with it."""

import contextlib
import dataclasses
import datetime
import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from deploy_kit import engines
from deploy_kit.analysis import compare, diagnosis, doctor, latency_rows, recommendation
from deploy_kit.base.errors import (
    DeployKitError,
    DeviceError,
    InputError,
    LinkLostError,
    MissingPackageError,
    StageError,
    nearest,
)
from deploy_kit.base.progress import ProgressCallback, ProgressEvent, no_progress
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.context import Context
from deploy_kit.delivery.manifest import Manifest
from deploy_kit.devices import links
from deploy_kit.graph import passes
from deploy_kit.images import ImageSource
from deploy_kit.machine.environment import library_version
from deploy_kit.parallel import ONE_PROCESS, Workers
from deploy_kit.quantization.variant_choice import fit_recipe
from deploy_kit.recipe import BuildEntry, CheckTable, QuantizeTable, Recipe, dump_recipe, parse_recipe
from deploy_kit.records.artifacts import Artifact, BareInput, Device, Exported, ReferenceLogits
from deploy_kit.records.difference import NetworkDifference
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.measurements import Bench, Measurement, NotRun
from deploy_kit.records.mixed_precision import Mix
from deploy_kit.records.parity import Diagnosis
from deploy_kit.records.recommendation import Budgets
from deploy_kit.records.results import EngineRow, ParityReport, Report, Simplified, StageTime, Thumbnail
from deploy_kit.records.slimming import Slimmed, SlimSearch
from deploy_kit.stages import bench, build, check, export, pack, quantize, reference, simplify, slim
from deploy_kit.stages.report import layer_breakdown, thumbnails
from deploy_kit.store import Store

T = TypeVar("T")


@dataclass(kw_only=True)
class Run:
    """One deployment on its way: what all stages share, and what has been found so far.

    Attributes:
        recipe: What to do.
        host: This machine: exports, simplifies and quantizes.
        target: The device: builds, checks and measures.
        times: How long each stage took.
        remarks: What a reader must know beside the numbers.
        n_steps: Number of stages that it will take; 0 where only some are taken.
        turn: Stage's name → context in which the stage works, e.g. one that waits for the machine.
        sources: Image sets by name and reading, each opened once; runs side by side may share them.
    """

    recipe: Recipe
    host: Context
    target: Context
    times: list[StageTime] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    n_steps: int = 0
    turn: Callable[[str], AbstractContextManager[object]] = contextlib.nullcontext
    sources: dict[ImageSource, ImageSource] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """The store that keeps every result."""
        return self.host.store

    @property
    def check_images(self) -> ImageSource:
        """The check set, opened once for all stages."""
        return self._images(self.recipe.check.images, self.recipe.check)

    @property
    def calibration_images(self) -> ImageSource | None:
        """The calibration set, opened once for all stages; None where the recipe names none."""
        table = self.recipe.quantize
        return None if table.calibration is None else self._images(table.calibration, table)

    @property
    def slim_images(self) -> ImageSource | None:
        """The set that slimming refits weights to; the calibration set where the recipe names no other."""
        table = self.recipe.slim
        own = table is not None and table.images
        return self._images(own, self.recipe.quantize) if own else self.calibration_images

    @property
    def distill_images(self) -> ImageSource | None:
        """The set that the slimmed network is trained on; None where the recipe names none."""
        name = self.recipe.slim.distill if self.recipe.slim else None
        return self._images(name, self.recipe.quantize) if name else None

    def _images(self, name: str, table: CheckTable | QuantizeTable) -> ImageSource:
        masks = table.masks if isinstance(table, CheckTable) else None
        named = ImageSource(name=name, skip_bad=table.skip_bad, orientation=table.orientation, masks=masks)
        return self.sources.setdefault(named, named)

    def timed(self, stage: str, name: str, work: Callable[[], tuple[T, bool]]) -> T:
        """Do the work of one stage and note how long it took."""
        if self.n_steps:
            step = f"step {min(len(self.times) + 1, self.n_steps)} of {self.n_steps}"
            self.host.on_progress(ProgressEvent(stage=stage, text=f"{name} ({step})"))
        with self.turn(stage):
            begun = time.perf_counter()
            result, reused = work()
        self.times.append(
            StageTime(stage=stage, name=name, seconds=round(time.perf_counter() - begun, 3), reused=reused)
        )
        return result


@contextlib.contextmanager
def open_run(
    recipe: Recipe,
    store: Store,
    device: Device,
    on_progress: ProgressCallback = no_progress,
    *,
    lasting: bool = True,
    workers: Workers = ONE_PROCESS,
) -> Iterator[Run]:
    """Put a recipe in force in a store, and open this machine and the device for single stages.

    A stage that fails leaves the recipe in force as it was before: what was said to it is not said to the next one.

    Args:
        recipe: What to do.
        store: Keeps every result.
        device: Where to build, check and measure.
        on_progress: Called with progress events.
        lasting: Whether the recipe stays in force afterwards; if not, the earlier one is, also after success.
        workers: Where what needs no particular machine is computed.
    """
    earlier = store.in_force()
    store.recipe = recipe.model_dump(mode="json")
    with links.connect_device(links.LOCAL) as here, links.connect_device(device) as there:
        host = Context(store=store, connection=here, on_progress=on_progress, workers=workers)
        try:
            yield Run(recipe=recipe, host=host, target=dataclasses.replace(host, connection=there))
        except DeployKitError:
            lasting = False
            raise
        finally:
            if earlier is not None and not lasting:
                store.stand_by(earlier)


def deploy(
    recipe: Recipe,
    device: Device,
    store: Store,
    on_progress: ProgressCallback = no_progress,
    *,
    fresh: bool = False,
    workers: Workers = ONE_PROCESS,
    on_export: Callable[[Exported], object] = lambda source: None,
) -> Report:
    """Take one recipe from checkpoint to report on one device.

    Args:
        recipe: What to do.
        device: Where to build, check and measure.
        store: Keeps every result; what it has is not made again.
        on_progress: Called with progress events.
        fresh: Measure latency again, even if the store has it.
        workers: Where what needs no particular machine is computed.
        on_export: Called with the export before the long work; what it raises ends the run.

    Returns:
        The report; a target that failed has its reason in its row.

    Raises:
        DeployKitError: The recipe is not possible here, or the checkpoint could not be exported and simplified.
    """
    with links.connect_device(links.LOCAL) as here, links.connect_device(device) as there:
        doctor.require(recipe, there)
        _require_place(recipe, device)
        _require_an_engine(recipe, there)
        recipe, remarks = fit_recipe(recipe, there.environment.isa)
        store.recipe = store.recipe or recipe.model_dump(mode="json")
        host = Context(store=store, connection=here, on_progress=on_progress, workers=workers)
        run = Run(
            recipe=recipe, host=host, target=dataclasses.replace(host, connection=there), n_steps=_n_steps(recipe),
            remarks=list(remarks),
        )  # fmt: skip
        quantize.require_calibration(recipe.quantize.variants, run.calibration_images)
        ready = prepared(run, on_export)
        quantized, absent = quantized_graphs(run, ready.graph)
        rows = [
            built_and_checked(run, entry, name, quantized, absent, ready.logits)
            for entry in recipe.build.engines
            for name in entry.variants
        ]
        rows = measured_rows(run, rows, fresh=fresh)
        return assemble(run, ready.source, ready.logits, ready.simple, rows, tuple(quantized.values()))


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What all variants and engines of a deployment begin with.

    Attributes:
        source: The exported checkpoint.
        logits: The checkpoint's own logits on the check set.
        simple: The simplified graph.
        graph: The graph that is quantized: the slimmed one where the recipe slims, else the simplified one.
    """

    source: Exported
    logits: ReferenceLogits
    simple: Simplified
    graph: Artifact


def prepared(run: Run, on_export: Callable[[Exported], object] = lambda source: None) -> Prepared:
    """Export, simplify and slim, and compute the checkpoint's own logits; what is wrong with images is said first."""
    others = dict.fromkeys((run.calibration_images, run.slim_images, run.distill_images))
    for images in (run.check_images, *filter(None, others)):
        images.read()
    source = exported(run)
    on_export(source)
    for used in others:
        run.remarks += check.overlap(used, run.check_images, source.onnx.preprocess)
    logits = reference_logits(run, source)
    low = diagnosis.low_score_remarks(logits, run.recipe.check.limits.values())
    for remark in low:  # now, since what follows takes long and is probably in vain
        run.host.on_progress(ProgressEvent(stage="export", text=remark, stays=True))
    simple = simplified(run, source)
    graph = float_graph(run, simple)
    cause = diagnosed(run, source, logits)
    run.remarks += cause.words if cause else low
    return Prepared(source=source, logits=logits, simple=simple, graph=graph)


def _n_steps(recipe: Recipe) -> int:
    """Count the stages of a deployment: a variant is quantized once, and an engine is built and checked."""
    n_engines = sum(len(entry.variants) for entry in recipe.build.engines)
    return 3 + len(recipe.quantize.variants) + 2 * n_engines + bool(n_engines)


def exported(run: Run) -> Exported:
    """Export the checkpoint."""
    recipe = run.recipe
    return run.timed(
        "export",
        recipe.source.checkpoint,
        lambda: export.run(recipe.source, recipe.export, run.host, images=run.check_images),
    )


def reference_logits(run: Run, source: Exported) -> ReferenceLogits:
    """Compute the checkpoint's own logits on the check set."""
    recipe, preprocess = run.recipe, source.onnx.preprocess
    return run.timed(
        "export",
        f"answers on {recipe.check.images}",
        lambda: reference.run(
            recipe.source,
            preprocess,
            run.host,
            images=run.check_images.open(preprocess),
            crops=recipe.check.crops,
            wish=reference.wish_of(recipe.check),
        ),
    )


def simplified(run: Run, source: Exported) -> Simplified:
    """Simplify the exported graph."""
    table = run.recipe.simplify
    return run.timed(
        "simplify",
        f"{len(passes.resolve_names(table.passes))} passes",
        lambda: simplify.run(source.onnx, table, run.host),
    )


def slimmed(run: Run, simple: Simplified) -> Slimmed | None:
    """Slim the simplified graph; None where the recipe does not ask for it."""
    table = run.recipe.slim
    if table is None:
        return None
    return run.timed(
        "slim",
        f"{table.macs:g} of the multiply-accumulates",
        lambda: slim.run(simple.onnx, table, run.host, images=run.slim_images, training=run.distill_images),
    )


def float_graph(run: Run, simple: Simplified) -> Artifact:
    """Return the graph that is quantized and built: the slimmed one where the recipe slims, else the simplified one."""
    small = slimmed(run, simple)
    return simple.onnx if small is None else small.onnx


def diagnosed(run: Run, source: Exported, logits: ReferenceLogits, *, always: bool = False) -> Diagnosis | None:
    """Return why the checkpoint itself scores low: where a limit asks for more top-1 than it has, or `always`."""
    limits = [table.min_top1 for table in run.recipe.check.limits.values() if table.min_top1 is not None]
    if not always and (logits.top1 is None or logits.top1 >= max(limits, default=0.0)):
        return None
    return run.timed(
        "diagnose",
        logits.images,
        lambda: diagnosis.diagnose(source.onnx, logits, run.host, images=run.check_images),
    )


def distinct(engines: list[Artifact]) -> tuple[Artifact, ...]:
    """Keep the newest engine of each label; newest first in, sorted by engine and name out."""
    newest = {engine.label: engine for engine in reversed(engines)}
    return tuple(sorted(newest.values(), key=lambda engine: (engine.engine or "", engine.name)))


def collect(run: Run, source: Exported) -> Report:
    """Put together what the store knows of an export of the checkpoint in force; measures nothing."""
    logits, simple = reference_logits(run, source), simplified(run, source)
    family = graphs_of(run.store, source)
    built = [engine for engine in run.store.all(Artifact, "build") if engine.parent in family]
    rows = list[EngineRow]()
    answers = (logits.images, logits.n, logits.top1)  # images and labels may have changed since a check
    for engine in distinct(built):
        found = run.store.newest(
            ParityReport,
            "check",
            where=lambda p, e=engine: (
                (p.artifact, p.label, p.images, p.n, p.top1_reference) == (e.sha256, e.label, *answers)  # type: ignore[misc]
            ),
        )
        run.remarks += () if found else _checked_elsewhere(run, engine)
        why = "" if found else check.why_unavailable(engine, run.target.connection)
        parity = found[0] if found else NotRun(artifact=engine.sha256, label=engine.label, why=why) if why else None
        row = EngineRow(label=engine.label, artifact=engine, parity=parity)
        measured = run.store.newest(
            Bench,
            "bench",
            where=lambda b, e=engine: any(m.artifact == e.sha256 for m in b.measurements),  # type: ignore[misc]
        )
        rows += latency_rows.with_measurement(row, measured[0], run.recipe.bench) if measured else (row,)
    rows, told = compare.compare_apart(rows)
    run.remarks += (
        *told,
        *latency_rows.unlike_remarks(rows),
        *diagnosis.low_score_remarks(logits, run.recipe.check.limits.values()),
    )
    used = {engine.parent for engine in built}
    return assemble(run, source, logits, simple, rows, tuple(a for a in family.values() if a.sha256 in used))


def _checked_elsewhere(run: Run, engine: Artifact) -> tuple[str, ...]:
    """Name the other images that an engine was checked on, and the command that reports them."""
    label = (engine.sha256, engine.label)
    other = run.store.newest(ParityReport, "check", where=lambda p: (p.artifact, p.label) == label)
    if other is None:
        return ()
    if other[0].images == run.recipe.check.images:
        return (f"{engine.label} was checked on {other[0].images} before its images or labels changed",)
    command = shlex.join(["deploykit", "report", "--images", other[0].images])
    return (f"{engine.label} was checked on {other[0].images}, not on {run.recipe.check.images}: {command}",)


def recipe_done(run: Run, source: Exported) -> Recipe:
    """Return the recipe in force with the variants and engines that the store has of an export: what single steps did.

    Of variants of one name, and of engines of one label, the newest is taken.
    """
    built = distinct([one for one in run.store.all(Artifact, "build") if one.parent in graphs_of(run.store, source)])
    graphs = {graph.sha256: graph for graph in graphs_of(run.store, source).values()}
    variants, names, entries = dict[str, dict[str, object]](), dict[str, str](), dict[tuple[str, str], list[str]]()
    for engine in built:
        graph = graphs[engine.parent]
        quantized = graph.stage == "quantize"
        names[engine.label] = graph.name if quantized else "fp32"
        if quantized:
            options = json.loads(graph.made_by.options or "{}")
            variants[graph.name] = {"name": graph.name, "scheme": graph.made_by.scheme, "options": options}
        entries.setdefault((engine.engine or "", engine.options), []).append(names[engine.label])
    data = run.recipe.model_dump(mode="json", exclude_none=True)
    data["quantize"]["variants"] = list(variants.values())
    data["build"]["engines"] = [
        {"engine": engine, "variants": made, "options": json.loads(options)}
        for (engine, options), made in entries.items()
    ]
    return parse_recipe(data)


def graphs_of(store: Store, source: Exported) -> dict[str, Artifact]:
    """List the graphs that were made of an export, simplified or quantized, by sha256."""
    simple = [one.onnx for one in store.all(Simplified, "simplify") if one.onnx.parent == source.onnx.sha256]
    parents = {one.sha256 for one in simple}
    simple += [one.onnx for one in store.all(Slimmed, "slim") if one.onnx.parent in parents]
    roots = {source.onnx.sha256, *(one.sha256 for one in simple)}
    quantized = [one for one in store.all(Artifact, "quantize") if one.parent in roots]
    return {one.sha256: one for one in (*simple, *quantized)}


def packed(run: Run, source: Exported, engine: Artifact, parity: ParityReport, table: pack.PackTable) -> Manifest:
    """Pack a checked engine of an export into a bundle."""
    graph = graphs_of(run.store, source)[engine.parent]
    measured = run.store.newest(
        Bench,
        "bench",
        where=lambda b: any((m.artifact, m.label) == (engine.sha256, engine.label) for m in b.measurements),
    )
    mine = [m for m in measured[0].measurements if m.artifact == engine.sha256] if measured else []
    proved = pack.ProvedEngine(
        engine=engine,
        graph=graph,
        checkpoint=source.checkpoint,
        reference=reference_logits(run, source),
        parity=parity,
        measurement=min(mine, key=lambda one: one.batch, default=None),
    )
    return pack.run(proved, table, run.target, images=run.check_images, calibration=run.calibration_images)


def assemble(
    run: Run,
    source: Exported,
    logits: ReferenceLogits,
    simple: Simplified,
    rows: list[EngineRow],
    quantized: tuple[Artifact, ...],
) -> Report:
    """Put the report together."""
    lineage = dict.fromkeys((source.onnx, simple.onnx, *quantized))
    built = [row.artifact for row in rows if row.artifact is not None]
    notes = [note for row in rows for note in engine_notes(row)]
    small = _thumbnails(run, source, rows)  # may add a remark
    made_by = (logits.made_by, *(graph.made_by for graph in quantized))
    notes += dict.fromkeys(note for one in made_by for note in _notes(one))
    used = {graph.sha256 for graph in lineage} | {graph.parent for graph in lineage}
    searches = {one.artifact: one for one in reversed(run.store.all(SlimSearch, "slim-search")) if one.artifact in used}
    slimmed = {s.onnx.sha256: s for s in run.store.all(Slimmed, "slim") if s.share < 1 and s.onnx.sha256 in used}
    notes += dict.fromkeys(one.words for one in searches.values())
    return Report(
        recipe=run.recipe.name,
        checkpoint=source.checkpoint,
        answers=logits,
        difference=source.difference,
        lineage=tuple(lineage),
        passes=simple.passes,
        rows=tuple(rows),
        environment=run.target.connection.environment,
        times=tuple(run.times),
        when=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        version=library_version("deploykit"),
        remarks=(*run.remarks, *notes),
        mixes=_mixes(run.store, {graph.sha256 for graph in lineage}),
        device=run.target.connection.device.name,
        recipe_yaml=dump_recipe(run.recipe),
        thumbnails=small,
        differences=differences_of(run.store, {graph.sha256 for graph in (*lineage, *built)}),
        recommendation=recommendation.recommend(rows, budgets_of(run.recipe), run.recipe.bench.percentiles),
        slim_searches=tuple(searches.values()),
        slimmed=tuple(slimmed.values()),
        parts=tuple(
            (engine.sha256, part.suffix, part.stat().st_size, sha256_of(part))
            for engine in {engine.sha256: engine for engine in built}.values()
            for part in run.store.files_of(engine)
        ),
    )


def engine_notes(row: EngineRow) -> list[str]:
    """List what a reader must know of an engine and its measurement: what it computes in, what else took time."""
    checks = (build.widened, build.saturating, layer_breakdown.split)
    notes = [note(row.artifact) for note in checks] if row.artifact is not None else []
    notes += [row.measurement.starved] if isinstance(row.measurement, Measurement) else []
    return [note for note in notes if note]


def differences_of(store: Store, files: set[str]) -> tuple[NetworkDifference, ...]:
    """List the newest difference of each artifact of the report, where somebody looked."""
    newest = {found.sha256[1]: found for found in reversed(store.all(NetworkDifference, "difference"))}
    return tuple(found for digest, found in newest.items() if digest in files)


def _thumbnails(run: Run, source: Exported, rows: list[EngineRow]) -> tuple[Thumbnail, ...]:
    """Show the images that changed their class; none where they cannot be read any more."""
    preprocess = source.onnx.preprocess
    if isinstance(preprocess, BareInput):
        return ()
    try:
        return thumbnails.thumbnails(run.check_images.open(preprocess), rows)
    except InputError as error:
        run.remarks.append(f"no pictures of the images that changed their class: {error}")
        return ()


def budgets_of(recipe: Recipe) -> Budgets:
    """Return what an engine may cost by a recipe; its limits on accuracy are in the verdicts already."""
    costs = recipe.recommend
    return Budgets(
        latency_ms=recipe.bench.latency_budget_ms,
        max_size_mb=costs.max_size_mb,
        max_energy_mj=costs.max_energy_mj,
        max_power_w=costs.max_power_w,
    )


def _notes(made_by: MadeBy) -> list[str]:
    """List what a reader must know of what made something: the images, and whether it is another network."""
    remarks, left_out = made_by.calibration_remarks, made_by.left_out
    notes = [f"{label}: {text}" for label, text in (("calibration remarks", remarks), ("left out", left_out)) if text]
    return [*notes, made_by.slimmed] if made_by.slimmed else notes


def _mixes(store: Store, graphs: set[str]) -> tuple[Mix, ...]:
    """List the newest decision behind each graph: two budgets may end in the same."""
    newest = {mix.artifact: mix for mix in reversed(store.all(Mix, "budget"))}
    return tuple(mix for mix in newest.values() if mix.artifact in graphs)


def _require_an_engine(recipe: Recipe, there: links.Connection) -> None:
    """Refuse a recipe all of whose engines are optional and absent, before any work.

    Raises:
        MissingPackageError: They are absent here.
        DeviceError: They are absent on the device.
    """
    names = [entry.engine for entry in recipe.build.engines]
    cures = dict.fromkeys(there.lacks(engines.CATALOGUE.get(name).package) for name in names)
    if not names or "" in cures:
        return
    where, words = there.device.name, f"none of its engines is installed: {', '.join(dict.fromkeys(names))}"
    if there.device.link == links.LOCAL.link:
        raise MissingPackageError(f"recipe '{recipe.name}': {words}", hint="; or ".join(cures))
    raise DeviceError(f"recipe '{recipe.name}': on '{where}' {words}", hint=f"on {where}: {'; or '.join(cures)}")


def _require_place(recipe: Recipe, device: Device) -> None:
    """Refuse a recipe of which nothing can compute where the device does: all left out would look like a yes."""
    if all(build.misplaced(entry, device) for entry in recipe.build.engines):
        raise DeviceError(
            f"recipe '{recipe.name}': '{device.name}' computes on {device.accelerator}, which none of its engines can",
            hint="add an engine that can, or put 'device: cpu' into the options of one",
        )


def quantized_graphs(run: Run, simple: Artifact) -> tuple[dict[str, Artifact], dict[str, EngineRow]]:
    """Make every variant; for those that are not there, return the row that says why."""
    quantized, absent = {"fp32": simple}, dict[str, EngineRow]()
    for variant in run.recipe.quantize.variants:
        lack = doctor.missing(doctor.scheme_package(variant.scheme))
        if lack:
            absent[variant.name] = EngineRow(label=variant.name, artifact=None, left_out=lack)
            continue
        try:
            quantized[variant.name] = run.timed(
                "quantize",
                variant.name,
                lambda variant=variant: quantize.run(  # type: ignore[misc]  # mypy loses the default's type
                    simple, variant, run.host, calibration=run.calibration_images
                ),
            )
        except StageError as error:
            absent[variant.name] = EngineRow(label=variant.name, artifact=None, failed=error.reason)
    return quantized, absent


def built_and_checked(
    run: Run,
    entry: BuildEntry,
    name: str,
    quantized: dict[str, Artifact],
    absent: dict[str, EngineRow],
    logits: ReferenceLogits,
) -> EngineRow:
    label = f"{quantized[name].name if name in quantized else name} · {entry.engine}"
    if name in absent:
        return dataclasses.replace(absent[name], label=label)
    lack = doctor.missing_there(engines.CATALOGUE.get(entry.engine).package, run.target.connection)
    lack = lack or build.misplaced(entry, run.target.connection.device)
    if lack:
        return EngineRow(label=label, artifact=None, left_out=lack)
    engine: Artifact | None = None
    try:
        built = engine = run.timed("build", label, lambda: build.run(quantized[name], entry, run.target))
        parity: ParityReport | NotRun = run.timed(
            "check",
            label,
            lambda: check.run(built, run.recipe.check, run.target, reference=logits, images=run.check_images),
        )
    except LinkLostError:
        raise  # no other target can do better
    except (StageError, DeviceError) as error:
        return EngineRow(label=label, artifact=engine, failed=error.reason)
    return EngineRow(label=label, artifact=engine, parity=parity)


def measured_rows(run: Run, rows: list[EngineRow], *, fresh: bool) -> list[EngineRow]:
    """Measure every engine that is there, in turns."""
    there = tuple(row.artifact for row in rows if row.artifact is not None and not row.failed)
    if not there:
        return rows
    part = run.recipe.bench
    measured = run.timed(
        "bench",
        f"{len(there)} engines",
        lambda: bench.run(there, part, run.target, fresh=fresh),
    )
    timed = [m.label for m in measured.measurements]
    if part.baseline and latency_rows.default_baseline(part, timed) not in timed:
        run.remarks.append(
            f"no speed-ups: the baseline '{part.baseline}' was not measured; {nearest(part.baseline, timed)}"
        )
    run.remarks += [*latency_rows.not_faster_remarks(rows, measured), *latency_rows.unsteady_remarks(measured)]
    joined = [
        each for row in rows for each in ((row,) if row.failed else latency_rows.with_measurement(row, measured, part))
    ]
    run.remarks += latency_rows.unlike_remarks(joined)
    return joined
