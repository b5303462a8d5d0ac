"""ONNX → ONNX that carries its precision: the recipe's schemes, each in a worker process of its own."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_kit.base.errors import InputError, QuantizeError
from deploy_kit.base.lazy import present
from deploy_kit.context import Context
from deploy_kit.graph import lint, onnx_file
from deploy_kit.graph.onnx_artifact import onnx_artifact
from deploy_kit.images import ImageSet, ImageSource, calibration_checks
from deploy_kit.quantization import schemes
from deploy_kit.quantization.int8 import explain
from deploy_kit.quantization.schemes import BLOCKS_KEY, FLOAT_KEY, KEPT_KEY
from deploy_kit.recipe import Variant
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, Preprocess
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.results import FloatNodes, QuantizedBlock

if TYPE_CHECKING:
    import onnx_ir as ir


def run(
    simplified: Artifact, variant: Variant, context: Context, *, calibration: ImageSource | None
) -> tuple[Artifact, bool]:
    """Quantize a graph to the precision of one variant.

    Args:
        simplified: A float32 graph.
        variant: Scheme and options.
        context: Where.
        calibration: Image set for schemes that calibrate.

    Returns:
        The quantized graph, and whether the store had it.

    Raises:
        RecipeError: An option does not fit the scheme.
        InputError: The scheme calibrates and no real images are given, or some that would give wrong ranges.
        QuantizeError: The scheme failed.
    """
    scheme = schemes.CATALOGUE.get(variant.scheme)
    options = codec.from_json(scheme.options, variant.options, f"scheme '{variant.scheme}'")
    if simplified.precision != "fp32":
        raise InputError(
            f"{simplified.path}: expected a float32 graph, found {simplified.precision}",
            hint="give the float32 file it was made from",
        )
    used = _calibration_set(scheme, variant, calibration, simplified)
    digest = "" if used is None else used.digest
    if used is not None and used.left_out:
        context.report("quantize", used.left_out)

    def make(folder: Path, home: str) -> Artifact:
        remarks = examined(used, simplified, context)
        context.report("quantize", f"{variant.name}: scheme {variant.scheme}")
        file = folder / "model.onnx"
        with context.connection.worker() as worker:
            spent = worker.ask(
                "quantize",
                simplified.path,
                on_progress=context.on_progress,
                scheme=variant.scheme,
                source=str(context.store.path(simplified)),
                target=str(file),
                options=codec.to_json(options),
                calibration=used.name if used else None,
                preprocess=codec.to_json(simplified.preprocess),
                skip_bad=used is not None and used.skip_bad,
                orientation=used.orientation if used else None,
                digest=digest,
                store=str(context.store.root),
                on=context.workers.place,
            )
        model = onnx_file.load(file)
        onnx_file.carry_mark(onnx_file.load(context.store.path(simplified)), model)
        _verify_precision(model, variant, options)
        onnx_file.embed(model, simplified.preprocess)
        onnx_file.save(model, file)
        return onnx_artifact(
            file,
            home,
            name=variant.name,
            stage="quantize",
            parent=simplified.sha256,
            preprocess=simplified.preprocess,
            made_by=MadeBy(
                scheme=variant.scheme,
                options=codec.canonical_json(options),
                calibration=used.name if used else "",
                n_images=str(spent["n"]) if used else "",
                calibration_sha256=digest,
                calibration_remarks="; ".join(remarks),
                left_out=used.left_out if used else "",
                slimmed=simplified.made_by.slimmed,
                notes=tuple((str(name), str(value)) for name, value in spent["facts"]),
                float_groups=", ".join(onnx_file.metadata(model, FLOAT_KEY) or ()),
                float_nodes=", ".join(onnx_file.metadata(model, KEPT_KEY) or ()),
                needs=tuple(f"{requirement} ({why})" for requirement, why in lint.needs(model)),
                peak_memory_mib=str(spent["peak_memory_mib"]),
                versions=scheme.installed_libraries,
            ),
        )

    return context.produce(
        Artifact,
        make,
        stage="quantize",
        name=variant.name,
        inputs=(simplified.sha256, digest),
        options=[variant.scheme, options],
        versions=scheme.key_versions(simplified),
    )


def _verify_precision(model: "ir.Model", variant: Variant, options: object) -> None:
    """Refuse a graph that is not of the precision its scheme promises."""
    scheme, precision = schemes.CATALOGUE.get(variant.scheme), onnx_file.precision(model)
    kept_float = tuple(getattr(options, "keep", None) or ())
    if kept_float and precision == "fp32":
        raise InputError(
            f"{', '.join(kept_float)}: with this in float nothing is left to quantize",
            hint="build the float graph: deploykit build --variant fp32, or keep less",
        )
    if precision != scheme.precision:
        raise QuantizeError(f"scheme '{variant.scheme}' promised {scheme.precision}, its graph carries {precision}")


def _calibration_set(
    scheme: schemes.Scheme, variant: Variant, calibration: ImageSource | None, simplified: Artifact
) -> ImageSet | None:
    """Open the calibration images, where the scheme makes use of any."""
    if scheme.calibrates:
        return require_images(variant, calibration).open(simplified.preprocess)
    if scheme.observes and calibration is not None and not calibration.is_noise:
        return calibration.open(simplified.preprocess)
    return None


def explained(path: Path) -> tuple[QuantizedBlock, ...]:
    """Read what INT8 made of each dense block from a file's metadata; empty where its scheme does not say."""
    rows = onnx_file.metadata(onnx_file.load(path), BLOCKS_KEY) or []
    return tuple(codec.from_json(QuantizedBlock, row, BLOCKS_KEY) for row in rows)


def floating(path: Path) -> tuple[FloatNodes, ...]:
    """List what computes in float in a quantized file, with the reasons."""
    return explain.floating(onnx_file.load(path))


def require_calibration(variants: Iterable[Variant], calibration: ImageSource | None) -> None:
    """Refuse variants that no images are there to calibrate, before any work; those that cannot be made are passed by.

    Raises:
        InputError: There are no images, or they are noise.
    """
    for variant in variants:
        scheme = schemes.CATALOGUE.get(variant.scheme)
        if scheme.calibrates and present(scheme.package):
            require_images(variant, calibration)


def require_images(variant: Variant, calibration: ImageSource | None) -> ImageSource:
    """Return the calibration images, once they are ones that a scheme can calibrate with.

    Raises:
        InputError: There are none, or they are noise.
    """
    if calibration is None or calibration.is_noise:
        raise InputError(
            f"scheme '{variant.scheme}' needs images to calibrate with, and noise would give wrong ranges",
            hint="give a few hundred real ones: --calibration FOLDER (or an npz file)",
        )
    return calibration


def examined(images: ImageSet | None, simplified: Artifact, context: Context) -> tuple[str, ...]:
    """Refuse images that would give wrong ranges; return what else is to be known of them.

    Raises:
        InputError: Noise, constant images, mostly copies, or pixels or preprocessing in the wrong unit.
    """
    if images is None:
        return ()
    assert isinstance(simplified.preprocess, Preprocess)  # of a bare input no image set but noise can be opened
    context.report("quantize", f"checking the calibration images of {images.name}")
    remarks = calibration_checks.require(images, calibration_checks.examine(images, simplified.preprocess))
    for remark in remarks:
        context.report("quantize", f"calibration: {remark}")
    return remarks
