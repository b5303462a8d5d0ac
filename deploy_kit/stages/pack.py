"""A proved engine → a bundle that runs, explains and verifies itself without deploykit."""

import dataclasses
import functools
import re
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from deploy_kit import engines
from deploy_kit.accuracy import tasks
from deploy_kit.accuracy.scores import confidence
from deploy_kit.base.errors import BuildError, InputError, RequestError
from deploy_kit.context import Context
from deploy_kit.delivery import golden, manifest, runtimes, signature, writer
from deploy_kit.delivery.manifest import (
    GoldenRecord,
    Latency,
    Manifest,
    PackedCheck,
    PackedEngine,
    PackedImages,
    PackedSource,
    Scores,
)
from deploy_kit.delivery.verification import golden_tensors
from deploy_kit.devices import inference
from deploy_kit.graph import onnx_bounds, onnx_file
from deploy_kit.images import ImageSet, ImageSource
from deploy_kit.machine.environment import library_version
from deploy_kit.records.artifacts import Artifact, CheckpointFacts, Preprocess, ReferenceLogits
from deploy_kit.records.measurements import Environment, Measurement
from deploy_kit.records.results import ParityReport

_BUILD_AGAIN = (
    "of its ONNX file: deploykit build model.onnx --engine NAME, then deploykit pack model.onnx --images FOLDER"
)
_SAY_INPUT = "export the checkpoint again with --input, --mean and --std"


@dataclass(frozen=True, kw_only=True)
class ProvedEngine:
    """An engine with all that is known of it.

    Attributes:
        engine: The engine.
        graph: The graph that it was built from.
        checkpoint: The checkpoint that it comes from.
        reference: The checkpoint's logits that it was compared with.
        parity: Result of the check.
        measurement: Its latency; None where it was not measured.
    """

    engine: Artifact
    graph: Artifact
    checkpoint: CheckpointFacts
    reference: ReferenceLogits
    parity: ParityReport
    measurement: Measurement | None


@dataclass(frozen=True, kw_only=True)
class PackTable:
    """How a bundle is written.

    Attributes:
        out: Folder to write, or a file that ends in ``.zip``.
        name: Name of the bundle; empty for the checkpoint's, the variant's and the engine's together.
        n_golden: Number of golden images.
        sign: PEM file with the private key to sign with; None for no signature.
        allow_undecided: Pack an engine, too, whose limits the check shows neither to be kept nor broken.
        triton: Whether to pack a model repository for Triton, which holds the engine a second time.
    """

    out: Path
    name: str = ""
    n_golden: int = golden.N
    sign: Path | None = None
    allow_undecided: bool = False
    triton: bool = True


def run(
    proved: ProvedEngine,
    table: PackTable,
    context: Context,
    *,
    images: ImageSource,
    calibration: ImageSource | None = None,
) -> Manifest:
    """Pack an engine; the golden outputs are computed where the context is.

    Args:
        proved: The engine.
        table: How.
        context: Machine that computes the golden outputs, and store that holds the engine.
        images: Check set; a few of its images are packed.
        calibration: Calibration set, where one was used.

    Returns:
        The bundle's manifest.

    Raises:
        RequestError: The engine is not accepted.
        UnknownNameError: Engines of this kind cannot be packed.
        InputError: How images become the input is not known; or the bundle cannot be put there.
        BuildError: The engine gives no usable outputs.
    """
    engine = proved.engine
    runtime = runtimes.CATALOGUE.get(str(engine.engine))
    verify_request(table)
    verify_accepted(engine, proved.parity, table)
    tasks.expect_rows(proved.reference.task, engine.label, "a bundle")
    if not isinstance(engine.preprocess, Preprocess):
        raise InputError(f"{engine.label}: how images become the input of this model is not known", hint=_SAY_INPUT)
    lacking = "the graph that it was built from" if runtime.packs_graph and engine == proved.graph else ""
    lacking = lacking or ("a passport that states its inputs and outputs" if not engine.inputs else "")
    if lacking:
        raise InputError(f"{engine.label}: {lacking} is not with the file", hint=_BUILD_AGAIN)
    context.report("pack", f"{engine.label}: golden outputs")
    source, graph = context.store.path(engine), context.store.path(proved.graph)
    runtime.verify(source)
    image_set = images.open(engine.preprocess)
    with np.load(context.store.root / proved.reference.path, allow_pickle=False) as data:
        reference = data["logits"]
    places = golden.chosen(image_set, reference, table.n_golden)
    pixels = golden.pixels_of(image_set, places, engine.preprocess)
    logits = _answers(engine, source, golden_tensors(pixels, engine.preprocess), context)
    described = _manifest(proved, table, context, image_set, calibration, reference, len(places))
    context.report("pack", f"writing {table.out}")
    parts = writer.BundleParts(
        manifest=described,
        runtime=runtime,
        engine=source,
        graph=graph,
        images=pixels,
        logits=logits,
        triton=table.triton,
    )
    sign = None if table.sign is None else functools.partial(signature.sign, private_key=table.sign)
    return writer.write_bundle(parts, table.out, sign)


def verify_request(table: PackTable) -> None:
    """Refuse what cannot be written or signed, before any work.

    Raises:
        InputError: The place, the name or the key.
        RequestError: The number of golden images.
    """
    writer.verify_target(table.out)
    if table.name:
        manifest.verify_name(table.name, str(table.out))
    if not 1 <= table.n_golden <= golden.MAX_N:
        raise RequestError(f"golden images: expected 1 to {golden.MAX_N}, found {table.n_golden}")
    if table.sign is not None:
        signature.verify_private_key(table.sign)


def verify_accepted(engine: Artifact, parity: ParityReport, table: PackTable) -> None:
    """Refuse an engine that is not accepted.

    Raises:
        RequestError: It is rejected; or undecided, and that is not allowed.
    """
    verdict = parity.verdict
    if verdict.word == "rejected":
        raise RequestError(f"{engine.label}: {verdict.text}; not packed", hint="pack an engine that keeps its limits")
    if verdict.word == "undecided" and not table.allow_undecided:
        raise RequestError(
            f"{engine.label}: {verdict.text}; not packed",
            hint="check it on more images (--images), or pack it knowingly: --allow-undecided",
        )


def _answers(engine: Artifact, file: Path, tensors: np.ndarray, context: Context) -> np.ndarray:
    """Run the golden images through the engine: (n, K) float32."""
    options = inference.options_of(engine)
    target = inference.InferenceTarget(engine=str(engine.engine), path=file, options=options)
    with inference.loaded_engine(context.connection, target) as opened:
        logits = opened.ask(tensors, len(tensors))
    if not np.isfinite(logits).all() or not logits.any():
        raise BuildError(f"{engine.label}: its outputs on the golden images are not finite, or all zero")
    return logits


def _manifest(
    proved: ProvedEngine,
    table: PackTable,
    context: Context,
    image_set: ImageSet,
    calibration: ImageSource | None,
    reference: np.ndarray,
    n_golden: int,
) -> Manifest:
    engine, preprocess = proved.engine, proved.engine.preprocess
    assert isinstance(preprocess, Preprocess)
    there, classes = context.connection.environment, class_names(context.store.path(proved.graph), image_set, reference)
    manifest.verify_classes(classes, str(table.out))
    return Manifest(
        schema_version=manifest.SCHEMA_VERSION,
        name=table.name or _default_name(proved),
        precision=engine.precision,
        engine=_packed_engine(proved, context),
        inputs=engine.inputs,
        outputs=engine.outputs,
        preprocess=preprocess,
        orientation=image_set.orientation,
        scores=_scores(proved.parity, reference),
        classes=classes,
        checkpoint=PackedSource(
            name=PurePath(proved.checkpoint.name).name,
            sha256=proved.checkpoint.sha256,
            architecture=proved.checkpoint.title,
            parameters=proved.checkpoint.parameters,
        ),
        calibration=_calibrated(proved.graph, preprocess, calibration),
        images=PackedImages(name=_plain(image_set.name), n=image_set.n, sha256=image_set.digest),
        check=_checked(proved.parity),
        latency=_latency(proved.measurement),
        golden=GoldenRecord(
            file=golden.FILE,
            n=n_golden,
            images=_plain(image_set.name),
            tolerance=golden.tolerance_of(engine.precision),
            computed_on=", ".join(f"{what} {value}" for what, value in _machine(there)),
        ),
        # Folders of the machine and what a run happened to take are not of the bundle.
        made_by=dataclasses.replace(
            proved.graph.made_by, calibration="", n_images="", calibration_sha256="", peak_memory_mib=""
        ),
        deploykit=library_version("deploykit"),
    )


def class_names(graph: Path, image_set: ImageSet, logits: np.ndarray) -> tuple[str, ...]:
    """Return the names of the classes: those in the graph, else those of the image set; empty where neither fits."""
    own = onnx_file.classes(onnx_file.load(graph)) if onnx_bounds.is_onnx(graph) else ()
    found = (own, image_set.classes)
    return next((names for names in found if len(names) == logits.shape[1]), ())


def _packed_engine(proved: ProvedEngine, context: Context) -> PackedEngine:
    engine, graph = proved.engine, proved.graph
    runtime = runtimes.CATALOGUE.get(str(engine.engine))
    built_with = engine.built.version if engine.built else dict(engine.made_by.versions).get(_package(engine), "")
    need = runtime.needs(engine, context.store.path(graph), built_with)
    packed = writer.GRAPH if runtime.packs_graph else ""
    return PackedEngine(
        name=str(engine.engine),
        file=PurePath(engine.path).name,
        sha256=engine.sha256,
        package=_package(engine),
        built_with=built_with,
        minimum=need.minimum,
        exact=need.exact,
        minimum_source=need.source,
        options=inference.options_of(engine),
        built_for=engine.built,
        graph=packed,
        graph_sha256=graph.sha256 if onnx_bounds.is_onnx(context.store.path(graph)) else engine.parent,
        rebuild=f"deploykit build {packed} --engine {engine.engine}" if packed else "",
    )


def _default_name(proved: ProvedEngine) -> str:
    stem = PurePath(proved.checkpoint.name.removeprefix("bundled:")).name.split(".")[0]
    name = proved.engine.name.removeprefix(f"{stem}-")  # a delivered file has the checkpoint's in its own
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{stem}-{name}-{proved.engine.engine}").strip("-._")
    return text[:100] or "bundle"


def _package(engine: Artifact) -> str:
    return engines.CATALOGUE.get(str(engine.engine)).package


def _scores(parity: ParityReport, logits: np.ndarray) -> Scores:
    """Return how outputs become scores: what the network ends with decides, and whether an image has several labels."""
    if confidence.output_kind(logits) != "logits":
        return "none"
    several = parity.scores is not None and parity.scores.measure == "AUROC"
    return "sigmoid" if several or logits.shape[1] == 1 else "softmax"


def _calibrated(graph: Artifact, preprocess: Preprocess, calibration: ImageSource | None) -> PackedImages | None:
    """Describe the calibration images; their digest is the graph's, or where an earlier version made it, the set's."""
    made_by = graph.made_by
    if not made_by.calibration:
        return None
    digest = made_by.calibration_sha256
    if not digest and calibration is not None and calibration.name == made_by.calibration:
        digest = calibration.open(preprocess).digest
    return PackedImages(name=_plain(made_by.calibration), n=int(made_by.n_images or 0), sha256=digest)


def _checked(parity: ParityReport) -> PackedCheck:
    return PackedCheck(
        accuracy=parity.verdict,
        limits=parity.limits,
        sqnr_db=parity.sqnr_db,
        agreement=parity.agreement,
        top1_reference=parity.top1_reference,
        top1=parity.top1,
        drop=parity.drop,
        remarks=parity.remarks,
    )


def _latency(measured: Measurement | None) -> Latency | None:
    """Describe a measurement; None without one, and for one with too few samples for a median."""
    if measured is None:
        return None
    median, p90, p99 = (measured.percentile_ms(percent) for percent in (50, 90, 99))
    if median is None:
        return None
    return Latency(
        p50_ms=median,
        p90_ms=p90,
        p99_ms=p99,
        n=len(measured.samples_ms),
        batch=measured.batch,
        span=measured.span,
        scenario=measured.scenario,
        machine=_machine(measured.environment),
        invalid=measured.invalid,
        emulated=measured.emulated,
    )


def _machine(there: Environment) -> tuple[tuple[str, str], ...]:
    rows = (
        ("processor", f"{there.cpu} ({there.cores} cores)"),
        ("GPU", there.gpu),
        ("board", there.board),
        ("system", there.host),
        ("emulated by", there.emulated),
    )
    return tuple(row for row in rows if row[1])


def _plain(name: str) -> str:
    """Return the name of an image set without the folders of the machine that it lies on."""
    return PurePath(name.removeprefix("bundled:")).name
