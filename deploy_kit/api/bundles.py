"""Bundles: `pack` an engine, `verify` what somebody packed, `load` it to classify images."""

from pathlib import Path
from typing import Literal

from deploy_kit import pipeline
from deploy_kit.api import _step
from deploy_kit.api._step import PathLike, Progress, StoreLike
from deploy_kit.base.errors import DeviceError, RequestError
from deploy_kit.delivery import contents, verification
from deploy_kit.delivery.manifest import Manifest
from deploy_kit.delivery.predictor import Predictor
from deploy_kit.delivery.verification import Verification
from deploy_kit.devices import links
from deploy_kit.recipe import overrides
from deploy_kit.records.artifacts import Artifact, Device
from deploy_kit.records.measurements import NotRun
from deploy_kit.stages import check as check_stage
from deploy_kit.stages import pack as pack_stage
from deploy_kit.stages.pack import PackTable


def pack(
    engine: Artifact,
    out: PathLike,
    *,
    name: str = "",
    golden: int = 8,
    sign: PathLike | None = None,
    allow_undecided: bool = False,
    images: PathLike | None = None,
    skip_bad: bool = False,
    orientation: Literal["stored", "upright"] | None = None,
    device: Device | str = "local",
    store: StoreLike = None,
    on_progress: Progress = "auto",
) -> Manifest:
    """Pack an engine into a bundle that runs, explains and verifies itself without deploykit.

    The engine is checked first, unless the store has its check; what does not keep its limits is not packed.

    Args:
        engine: What `build` returned.
        out: Folder to write, or a file that ends in ``.zip``; an earlier bundle there is replaced.
        name: Name of the bundle; by default the checkpoint's, the variant's and the engine's together.
        golden: Number of check images that are packed to verify with.
        sign: PEM file with an elliptic-curve private key to sign with.
        allow_undecided: Pack an engine, too, whose limits the check shows neither to be kept nor broken.
        images: Images to check with; by default those of the recipe.
        skip_bad: Leave out images that cannot be read, and count them.
        orientation: Whether images with an EXIF orientation are read as they are ``stored`` or turned ``upright``.
        device: Machine that computes the golden outputs.
        store: Folder of results, see `export`.
        on_progress: See `export`.

    Returns:
        The bundle's manifest.

    Raises:
        RequestError: The engine is not accepted.
        DeviceError: The engine cannot run there.
        InputError: The bundle cannot be put there, or how images become the input is not known.
    """
    table = PackTable(
        out=Path(out), name=name, n_golden=golden, sign=_step.path_or_none(sign), allow_undecided=allow_undecided
    )
    pack_stage.verify_request(table)
    opened_store = _step.open_store(store)
    base = overrides.with_inputs(
        _step.recipe_of(engine, opened_store),
        images=_step.text_or_none(images),
        skip_bad=skip_bad,
        orientation=orientation,
    )
    with _step.opened(base, opened_store, on_progress, stage="pack", device=device) as step:
        run = step.run
        source = pipeline.exported(run)
        if engine.parent not in pipeline.graphs_of(opened_store, source):
            raise RequestError(f"{engine.label}: not built from what its recipe exports now", hint="build it again")
        reference = pipeline.reference_logits(run, source)
        parity, _ = check_stage.run(engine, run.recipe.check, run.target, reference=reference, images=run.check_images)
        if isinstance(parity, NotRun):
            raise DeviceError(
                f"{engine.label}: not run: {parity.why}", hint="pack on a machine that can run the engine"
            )
        return pipeline.packed(run, source, engine, parity, table)


def verify(path: PathLike, *, public_key: PathLike | None = None, device: Device | str = "local") -> Verification:
    """Verify a bundle: its files, its signature, the engine's version on a machine, and its outputs there.

    Args:
        path: The bundle: a folder or a zip.
        public_key: PEM file with the public key of whoever packed it; without one no signature is asked for.
        device: Machine to run the engine on.

    Returns:
        What was found; ``ok`` says whether all of it holds.

    Raises:
        InputError: Not a bundle, or one that was made to do harm.
        MissingPackageError: The engine's package is not on the machine.
        DeviceError: The machine has another version of it than the bundle needs.
    """
    with contents.opened(Path(path)) as bundle, links.connect_device(_step.find_device(device)) as connection:
        return verification.verify_bundle(bundle, connection, _step.path_or_none(public_key))


def load(
    path: PathLike,
    *,
    threads: int | None = None,
    orientation: Literal["stored", "upright"] | None = None,
    device: Device | str = "local",
) -> Predictor:
    """Load a bundle to classify images: ``load("best.zip").predict("photo.jpg").names[0]``.

    Images are prepared as those of the check were. The engine runs in a worker process of its own, which ends with
    ``close``, with a ``with`` block, or with the predictor.

    Args:
        path: The bundle: a folder or a zip.
        threads: Threads of one run (CPU engines); by default as it was built, every core.
        orientation: Whether files with an EXIF orientation are read as they are ``stored`` or turned ``upright``; by
            default as the check's images were, and where none of these had one such files are refused.
        device: Machine to run the engine on.

    Raises:
        InputError: Not a bundle, or not what was packed.
        MissingPackageError: The engine's package is not on the machine.
        DeviceError: The machine has another version of it than the bundle needs.
    """
    options = {} if threads is None else {"threads": threads}
    return Predictor(Path(path), _step.find_device(device), orientation=orientation, **options)
