"""ONNX → ONNX that carries its precision: the recipe's schemes, each in a worker process of its own."""

import json
from pathlib import Path

from deploy_kit import codec, graph, images, lint, schemes
from deploy_kit.devices import Connection
from deploy_kit.environment import library_versions
from deploy_kit.errors import InputError, QuantizeError
from deploy_kit.recipe import Variant
from deploy_kit.records import Artifact
from deploy_kit.results import QuantizedBlock
from deploy_kit.schemes import BLOCKS_KEY, KEPT_KEY
from deploy_kit.store import Key, Store, sha256_of
from deploy_kit.watch import Event, Watch, silent

VERSION = "4"


def run(
    lean: Artifact,
    variant: Variant,
    calibration: str | None,
    *,
    store: Store,
    link: Connection,
    watch: Watch = silent,
) -> tuple[Artifact, bool]:
    """Give a graph the precision of one variant.

    Args:
        lean: A float32 graph.
        variant: Scheme and options.
        calibration: Image set, for schemes that calibrate.
        store: Keeps the result.
        link: Runs the scheme.
        watch: Hears of progress.

    Returns:
        The typed graph, and whether the store had it.

    Raises:
        RecipeError: An option does not fit the scheme.
        InputError: The scheme calibrates and no real images are given.
        QuantizeError: The scheme failed.
    """
    scheme = schemes.CATALOGUE.get(variant.scheme)
    options = codec.from_json(scheme.options, variant.options, f"scheme '{variant.scheme}'")
    if lean.precision != "fp32":
        raise QuantizeError(f"{lean.path}: expected a float32 graph, found {lean.precision}")
    used = calibration if scheme.calibrates or (scheme.observes and calibration != images.SYNTHETIC) else None
    digest = _calibration_digest(scheme, variant, used, lean) if scheme.calibrates or used else ""
    versions = tuple(row for row in library_versions() if row[0] in scheme.libraries)
    key = Key(
        stage="quantize",
        name=variant.name,
        inputs=(lean.sha256, digest),
        options=[variant.scheme, options],
        versions=(("stage", VERSION), *versions),
    )

    def make(folder: Path, home: str) -> Artifact:
        watch(Event(stage="quantize", text=f"{variant.name}: scheme {variant.scheme}"))
        file = folder / "model.onnx"
        with link.worker() as worker:
            spent = worker.ask(
                "quantize",
                lean.path,
                scheme=variant.scheme,
                source=str(store.path(lean)),
                target=str(file),
                options=codec.to_json(options),
                calibration=used,
                preprocess=codec.to_json(lean.preprocess),
            )
        model = graph.load(file)
        if graph.precision(model) != scheme.precision:
            raise QuantizeError(
                f"scheme '{variant.scheme}' promised {scheme.precision}, its graph carries {graph.precision(model)}"
            )
        graph.embed(model, lean.preprocess)
        graph.save(model, file)
        images_used = (("calibration", used), ("images", str(spent["n"]))) if used else ()
        needs = tuple(("needs", f"{what} ({why})") for what, why in lint.needs(model))
        kept = json.loads(model.metadata_props.get(KEPT_KEY, "[]"))
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
                *((("kept in fp32", ", ".join(kept)),) if kept else ()),
                *needs,
                ("peak_memory_mib", str(spent["peak_memory_mib"])),
                *versions,
            ),
        )

    return store.produce(Artifact, key, make)


def explained(onnx_file: Path) -> tuple[QuantizedBlock, ...]:
    """Read what INT8 made of each dense block from a file's metadata; empty where its scheme does not say."""
    text = graph.load(onnx_file).metadata_props.get(BLOCKS_KEY)
    rows = json.loads(text) if text else []
    return tuple(codec.from_json(QuantizedBlock, row, BLOCKS_KEY) for row in rows)


def _calibration_digest(scheme: schemes.Scheme, variant: Variant, calibration: str | None, lean: Artifact) -> str:
    if calibration is None or calibration == images.SYNTHETIC:
        raise InputError(
            f"scheme '{variant.scheme}' needs images to calibrate with, and noise would give wrong ranges",
            hint="give a few hundred real ones: --calibration FOLDER (or an npz file)",
        )
    return images.open_set(calibration, lean.preprocess).digest
