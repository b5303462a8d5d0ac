"""Quantization schemes: ONNX → ONNX that carries its precision in the graph. A scheme is a file that has its name."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import InputError
from deploy_kit.graph import onnx_file, passes
from deploy_kit.images import ImageSet
from deploy_kit.machine.environment import library_version, library_versions
from deploy_kit.quantization.int8.calibration_parts import NamedImages
from deploy_kit.quantization.int8.observation import CalibrationContext
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, BareInput, Precision, Preprocess

VERSION = "13"
"""Version of what the schemes write; to be raised where any of them writes another graph for the same options."""

KEPT_KEY = "deploykit.kept_fp32"
"""Metadata of a half-precision file: JSON list of the nodes that stayed in float32."""

BLOCKS_KEY = "deploykit.int8"
"""Metadata of an INT8 file: JSON list of `results.QuantizedBlock`."""

FLOAT_KEY = "deploykit.kept_float"
"""Metadata of an INT8 file: JSON list of the layer groups that stayed in float (`graph.layer_names`)."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Images for a scheme that observes ranges, streamed, as often as the scheme needs them.

    Attributes:
        n_batches: Number of batches.
        n_images: Number of images in all batches.
        input_name: Name of the graph's input.
        batches: Returns an iterator over (N, C, H, W) float32 batches of the graph's size, from the start.
        context: Where a scheme may keep statistics, and who is told about its progress.
    """

    n_batches: int
    n_images: int
    input_name: str
    batches: Callable[[], Iterator[np.ndarray]]
    context: CalibrationContext = field(default_factory=CalibrationContext)


@dataclass(frozen=True, kw_only=True)
class PlannedMix:
    """A graph whose images were observed once, to be written with any of its layer groups left in float.

    Attributes:
        groups: (name, multiply-accumulates of one image) of each layer group with weights, in graph order.
        write: (target file, names of layer groups that stay in float) → None; writes the target.
    """

    groups: tuple[tuple[str, int], ...]
    write: Callable[[Path, tuple[str, ...]], None]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One scheme of the catalogue.

    Attributes:
        package: Package that `apply` needs; where it is optional, the scheme's file must import without it.
        precision: Precision that the graph carries afterwards.
        options: Record class of its options, each with a default.
        calibrates: Whether `apply` needs images.
        apply: (source file, target file, options, calibration) → None; writes the target.
        libraries: Distributions whose versions decide the result; a third party's own is one of them.
        observes: Whether `apply` makes use of images where there are some.
        planned: (source file, options, calibration) → `PlannedMix`, from one pass over the images; None where the
            scheme cannot leave layer groups in float.
        simplifies: Whether `apply` runs the default graph passes before anything else.
    """

    package: str
    precision: Precision
    options: type[Any]
    calibrates: bool
    apply: Callable[[Path, Path, Any, Calibration | None], None]
    libraries: tuple[str, ...]
    observes: bool = False
    planned: Callable[[Path, Any, Calibration], PlannedMix] | None = None
    simplifies: bool = False

    @property
    def installed_libraries(self) -> tuple[tuple[str, str], ...]:
        """Versions of those of `libraries` that are installed."""
        known = tuple(row for row in library_versions() if row[0] in self.libraries)
        others = ((name, library_version(name)) for name in self.libraries if name not in dict(known))
        return (*known, *((name, text) for name, text in others if text))

    def key_versions(self, source: Artifact) -> tuple[tuple[str, str], ...]:
        """List what decides the result beside the source, the images and the options, for the key of the store.

        The default passes are left out where `simplify` has applied them to the source: others would change its hash.
        """
        versions = (("schemes", VERSION), *self.installed_libraries)
        if not self.simplifies:
            return versions
        applied = ", ".join(passes.default_passes())
        return versions if applied == source.made_by.passes else (*versions, ("passes", applied))


def stream(source: Path, image_set: ImageSet, preprocess: Preprocess | BareInput) -> Calibration:
    """Stream the images of a set as the graph in `source` takes them: in full batches of its own size.

    Raises:
        InputError: The graph's input is not what the preprocessing makes, or there are fewer images than one batch.
    """
    model = onnx_file.load(source)
    onnx_file.expect_input(model, preprocess, source)
    spec = onnx_file.specs(onnx_file.inputs(model))[0]
    size = spec.shape[0] if isinstance(spec.shape[0], int) else 1
    n_batches = image_set.n // size
    if not n_batches:
        raise InputError(f"{image_set.name}: {image_set.n} images, fewer than the graph's batch of {size}")
    used = image_set.first(n_batches * size)
    identity = codec.canonical_json([used.digest, type(preprocess).__name__, preprocess])
    return Calibration(
        n_batches=n_batches,
        n_images=used.n,
        input_name=spec.name,
        batches=lambda: used.batches(preprocess, size),
        context=CalibrationContext(
            digest=hashlib.sha256(identity.encode()).hexdigest(),
            images=NamedImages(
                source=used.name,
                preprocess=preprocess,
                reading=(used.skip_bad, used.orientation),
                hashes=used.hashes,
                batch=size,
            ),
        ),
    )


CATALOGUE: Catalogue[Scheme] = Catalogue(__name__, "SCHEME", "quantization scheme")
