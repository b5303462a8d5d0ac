"""ONNX → ONNX that carries its precision: the recipe's schemes, each in a worker process of its own."""

import json
from pathlib import Path

from deploy_kit import images
from deploy_kit.base.errors import InputError, QuantizeError
from deploy_kit.base.progress import ProgressCallback, ProgressEvent, no_progress
from deploy_kit.devices.links import Connection
from deploy_kit.graph import lint
from deploy_kit.graph import onnx_file as graph
from deploy_kit.images import ImageSet, calibration_checks
from deploy_kit.quantization import schemes
from deploy_kit.quantization.schemes import BLOCKS_KEY, FLOAT_KEY, KEPT_KEY
from deploy_kit.recipe import Variant
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, Preprocess
from deploy_kit.records.results import QuantizedBlock
from deploy_kit.store import Key, Store, sha256_of


def run(
    lean: Artifact,
    variant: Variant,
    calibration: str | None,
    *,
    store: Store,
    connection: Connection,
    on_progress: ProgressCallback = no_progress,
    skip_bad: bool = False,
) -> tuple[Artifact, bool]:
    """Give a graph the precision of one variant.

    Args:
        lean: A float32 graph.
        variant: Scheme and options.
        calibration: Image set, for schemes that calibrate.
        store: Keeps the result.
        connection: Runs the scheme.
        on_progress: Called with progress, and of what calibration was done with.
        skip_bad: Leave out calibration images that cannot be read.

    Returns:
        The typed graph, and whether the store had it.

    Raises:
        RecipeError: An option does not fit the scheme.
        InputError: The scheme calibrates and no real images are given, or some that would give wrong ranges.
        QuantizeError: The scheme failed.
    """
    scheme = schemes.CATALOGUE.get(variant.scheme)
    options = codec.from_json(scheme.options, variant.options, f"scheme '{variant.scheme}'")
    if lean.precision != "fp32":
        raise InputError(
            f"{lean.path}: expected a float32 graph, found {lean.precision}",
            hint="give the float32 file it was made from",
        )
    used = calibration if scheme.calibrates or (scheme.observes and calibration != images.SYNTHETIC) else None
    image_set = calibration_set(variant, used, lean, skip_bad=skip_bad) if scheme.calibrates or used else None
    digest = "" if image_set is None else image_set.digest
    if image_set is not None and image_set.left_out:
        on_progress(ProgressEvent(stage="quantize", text=image_set.left_out))
    key = Key(
        stage="quantize",
        name=variant.name,
        inputs=(lean.sha256, digest),
        options=[variant.scheme, options],
        versions=scheme.key_versions(lean),
    )

    def make(folder: Path, home: str) -> Artifact:
        remarks = examined(image_set, lean, on_progress)
        on_progress(ProgressEvent(stage="quantize", text=f"{variant.name}: scheme {variant.scheme}"))
        file = folder / "model.onnx"
        with connection.worker() as worker:
            spent = worker.ask(
                "quantize",
                lean.path,
                on_progress=on_progress,
                scheme=variant.scheme,
                source=str(store.path(lean)),
                target=str(file),
                options=codec.to_json(options),
                calibration=used,
                preprocess=codec.to_json(lean.preprocess),
                skip_bad=skip_bad,
                digest=digest,
                store=str(store.root),
            )
        model = graph.load(file)
        kept_float = tuple(getattr(options, "keep", None) or ())
        if kept_float and graph.precision(model) == "fp32":
            raise InputError(
                f"{', '.join(kept_float)}: with this in float nothing is left to quantize",
                hint="build the float graph: deploykit build --variant fp32, or keep less",
            )
        if graph.precision(model) != scheme.precision:
            raise QuantizeError(
                f"scheme '{variant.scheme}' promised {scheme.precision}, its graph carries {graph.precision(model)}"
            )
        graph.embed(model, lean.preprocess)
        graph.save(model, file)
        images_used = (("calibration", used), ("images", str(spent["n"]))) if used else ()
        needs = tuple(("needs", f"{what} ({why})") for what, why in lint.needs(model))
        kept = json.loads(model.metadata_props.get(KEPT_KEY, "[]"))
        groups = json.loads(model.metadata_props.get(FLOAT_KEY, "[]"))
        return Artifact(
            kind="onnx",
            name=variant.name,
            path=f"{home}/model.onnx",
            sha256=sha256_of(file),
            size_bytes=file.stat().st_size,
            precision=scheme.precision,
            inputs=graph.specs(graph.inputs(model)),
            outputs=graph.specs(tuple(model.graph.outputs)),
            preprocess=lean.preprocess,
            stage="quantize",
            parent=lean.sha256,
            made_by=(
                ("scheme", variant.scheme),
                ("options", codec.canonical(options)),
                *images_used,
                *remarks,
                *((str(what), str(said)) for what, said in spent["facts"]),
                *((("layer groups kept in float", ", ".join(groups)),) if groups else ()),
                *((("kept in fp32", ", ".join(kept)),) if kept else ()),
                *needs,
                ("peak_memory_mib", str(spent["peak_memory_mib"])),
                *scheme.installed_libraries,
            ),
        )

    return store.produce(Artifact, key, make)


def explained(onnx_file: Path) -> tuple[QuantizedBlock, ...]:
    """Read what INT8 made of each dense block from a file's metadata; empty where its scheme does not say."""
    text = graph.load(onnx_file).metadata_props.get(BLOCKS_KEY)
    rows = json.loads(text) if text else []
    return tuple(codec.from_json(QuantizedBlock, row, BLOCKS_KEY) for row in rows)


def require_images(variant: Variant, calibration: str | None) -> str:
    """Give the image set, once it is one that a scheme can calibrate with.

    Raises:
        InputError: There is none, or it is noise.
    """
    if calibration is None or calibration == images.SYNTHETIC:
        raise InputError(
            f"scheme '{variant.scheme}' needs images to calibrate with, and noise would give wrong ranges",
            hint="give a few hundred real ones: --calibration FOLDER (or an npz file)",
        )
    return calibration


def calibration_set(variant: Variant, calibration: str | None, lean: Artifact, *, skip_bad: bool = False) -> ImageSet:
    """Open the images that a scheme calibrates with.

    Raises:
        InputError: There are none, or they are noise, or cannot be read.
    """
    return images.open_set(require_images(variant, calibration), lean.preprocess, skip_bad=skip_bad)


def examined(image_set: ImageSet | None, lean: Artifact, on_progress: ProgressCallback) -> tuple[tuple[str, str], ...]:
    """Refuse images that would give wrong ranges; give what else is to be known of them, for the passport.

    Raises:
        InputError: Noise, constant images, mostly copies, or pixels or preprocessing in the wrong unit.
    """
    if image_set is None:
        return ()
    assert isinstance(lean.preprocess, Preprocess)  # of a bare input no image set but noise can be opened
    on_progress(ProgressEvent(stage="quantize", text=f"looking at {image_set.name}"))
    remarks = calibration_checks.require(image_set, calibration_checks.examine(image_set, lean.preprocess))
    for remark in remarks:
        on_progress(ProgressEvent(stage="quantize", text=f"calibration: {remark}"))
    facts = (("calibration remarks", "; ".join(remarks)), ("left out", image_set.left_out))
    return tuple(fact for fact in facts if fact[1])
