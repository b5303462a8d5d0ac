"""Checkpoint → ONNX, re-run and compared before it is kept.

A file that is ONNX already is brought into normal form: its own float answers stand for the checkpoint's.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from deploy_kit import checkpoint
from deploy_kit.accuracy import metrics
from deploy_kit.base import bundled
from deploy_kit.base.errors import ExportError, InputError, StageError, no_such_file
from deploy_kit.base.lazy import need
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.checkpoint import Checkpoint
from deploy_kit.checkpoint.formats.folders import folder_refusal
from deploy_kit.checkpoint.network import map_sizes
from deploy_kit.checkpoint.stated_options import (
    probe_digest,
    sidecar_digests,
    stated_of_graph,
    stated_options,
    stated_preprocess,
)
from deploy_kit.context import Context
from deploy_kit.devices import inference
from deploy_kit.devices.links import Connection
from deploy_kit.graph import adoption, onnx_bounds, onnx_file, pixel_input, sums_of_two
from deploy_kit.graph.onnx_artifact import onnx_artifact
from deploy_kit.images import SYNTHETIC, ImageSet, ImageSource, files, open_set
from deploy_kit.machine.environment import versions_of
from deploy_kit.recipe import ExportTable, SourceTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import BareInput, CheckpointFacts, Exported, Preprocess
from deploy_kit.records.made_by import MadeBy

VERSION = "6"
_LIBRARIES = ("torch", "onnx", "onnxscript", "onnx-ir")
_VERIFIED_IMAGES, _WITNESSED_IMAGES, _ADOPTED_IMAGES = 32, 3, 4
_MAPS_VERIFIED = 4  # an output of 21×512×512 takes 22 MB
_OF_ONNX = frozenset({"input", "preprocess", "input_pixels", "output"})
# float32 against float64 through 264 layers; seen: 2e-6.
_REBUILT = 1e-4
_DYNAMIC_BATCHES = (1, 3)


def run(source: SourceTable, table: ExportTable, context: Context, *, images: ImageSource) -> tuple[Exported, bool]:
    """Export a checkpoint.

    Args:
        source: The checkpoint, its preprocessing where the file does not carry it, and what shapes cannot say.
        table: How.
        context: Where.
        images: Image set whose first images the ONNX file is verified on; another set later exports nothing again.

    Returns:
        The graph with its facts, and whether the store had it.

    Raises:
        CheckpointError: The checkpoint cannot be read, or leaves a question open.
        InputError: The input's size is not known, or the preprocessing does not fit the checkpoint.
        ExportError: torch cannot export it, or the ONNX file disagrees with the checkpoint.
    """
    path = require_checkpoint(source)
    digest = sha256_of(path)
    versions = versions_of(*_LIBRARIES)
    said = class_names_beside(path)

    def make(folder: Path, home: str) -> Exported:
        from deploy_kit.checkpoint.network import to_onnx

        context.report("export", f"reading {path.name}")
        if onnx_bounds.is_onnx(path):
            return _adopt(path, digest, source, table, said, folder, home, context)
        network = checkpoint.read_checkpoint(path, checkpoint.stated_facts(source))
        preprocess, remarks = map_sizes.input_of(
            network.spec,
            source.input,
            path,
            stated=source.preprocess,
            carried=network.preprocess,
            beside=network.sides,
        )
        sample = images.open(preprocess).first(_VERIFIED_IMAGES if network.spec.decoder is None else _MAPS_VERIFIED)
        for _ in sample.batches(preprocess.normalized, _VERIFIED_IMAGES):
            pass  # images that do not fit are refused before the exporter takes its time
        context.report("export", f"torch's {table.exporter} exporter, opset {table.opset}")
        file = folder / "model.onnx"
        classes = network.classes or _fitting(said, network.spec.classes) or None
        graph = to_onnx.write_onnx(network.model, preprocess, table, file, classes=classes)
        if table.input_pixels:
            graph = onnx_file.load(file)
            preprocess = pixel_input.take_pixels(graph, preprocess)
            onnx_file.save(graph, file)
        context.report("export", "re-running the file in ONNX Runtime")
        difference, verified, answers = _verify(network, file, sample, preprocess, table, context.connection)
        rebuilt = _verify_rebuilt(network, sample, preprocess)
        witnessed = _verify_witness(network, sample, preprocess, answers)
        return Exported(
            checkpoint=_facts(network, source.checkpoint, path, digest, (*remarks, witnessed, rebuilt)),
            onnx=onnx_artifact(
                file,
                home,
                name="exported",
                stage="export",
                parent=digest,
                preprocess=preprocess,
                made_by=MadeBy(exporter=table.exporter, opset=str(table.opset), versions=versions),
                model=graph,
            ),
            difference=difference,
            verified_on=verified,
        )

    return context.produce(
        Exported,
        make,
        stage="export",
        name=path.name.split(".")[0],
        inputs=(digest, *probe_digest(source), *onnx_file.data_digests(path), *sidecar_digests(path)),
        options=[
            table.model_dump(exclude={"input_pixels"}),
            stated_preprocess(source),
            stated_options(source),
            *([said] if said else []),
            *(["input_pixels"] if table.input_pixels else []),
        ],
        versions=(("stage", VERSION), *versions),
    )


def require_checkpoint(source: SourceTable) -> Path:
    """Return the path of a checkpoint or ONNX file, once a file is there.

    Raises:
        InputError: There is none, or it is a folder.
        UnknownNameError: No such checkpoint is bundled.
    """
    path = bundled.resolve_bundled("models", source.checkpoint)
    if path.is_dir():
        raise folder_refusal(path)
    if not path.exists():
        begins = "" if path.is_absolute() else f"; it begins in the folder in which deploykit is started: {Path.cwd()}"
        raise no_such_file(path, hint=f"check the path{begins}")
    return path


def class_names_beside(path: Path) -> tuple[str, ...]:
    """Read the names of the classes beside a checkpoint: ``best.classes.txt`` for ``best.pth``, else ``classes.txt``.

    Returns:
        The names in the order of the outputs; empty where there is no such file.

    Raises:
        InputError: It cannot be read, or names a class twice.
    """
    own = path.with_name(f"{path.name.split('.')[0]}.{files.CLASSES}")
    return files.read_class_names(own) if own.is_file() else files.class_names(path.parent)


def _fitting(names: tuple[str, ...], n: int | str) -> tuple[str, ...]:
    """Return names that are as many as the outputs; others are of another network in the same folder."""
    return names if len(names) == n else ()


def facts_of(source: SourceTable) -> CheckpointFacts:
    """Read the facts of a checkpoint or ONNX file that is not exported.

    Raises:
        CheckpointError: It cannot be read, or leaves a question open.
        InputError: It is not a whole ONNX file.
    """
    path = bundled.resolve_bundled("models", source.checkpoint)
    digest = sha256_of(path)
    if onnx_bounds.is_onnx(path):
        return _facts_of_onnx(source, path, digest, onnx_file.parameters(onnx_file.load(path)))
    return _facts(checkpoint.read_checkpoint(path, checkpoint.stated_facts(source)), source.checkpoint, path, digest)


def verify_applicable(checkpoint: Path, given: Iterable[str]) -> None:
    """Refuse what would change nothing: a file that is ONNX already is no checkpoint, and a checkpoint no ONNX file.

    Args:
        checkpoint: Checkpoint or ONNX file.
        given: Keys of the recipe's source and export tables that were given for this export.

    Raises:
        InputError: The file is ONNX, and a key is about the way from a checkpoint to ONNX; or the other way round.
    """
    if not checkpoint.is_file():
        return
    if not onnx_bounds.is_onnx(checkpoint):
        if "output" in given:
            raise InputError(
                f"{checkpoint}: is no ONNX file: 'output' would change nothing",
                hint="of a checkpoint with several heads choose one with --head NAME; --out FILE says where to write",
            )
        return
    useless = [key for key in given if key not in _OF_ONNX]
    if useless:
        keys = ", ".join(f"'{key}'" for key in useless)
        raise InputError(
            f"{checkpoint}: is an ONNX file and is taken as it is: {keys} would change nothing",
            hint="leave them out; for another graph export the checkpoint itself",
        )


def _adopt(
    path: Path,
    digest: str,
    source: SourceTable,
    table: ExportTable,
    said: tuple[str, ...],
    folder: Path,
    home: str,
    context: Context,
) -> Exported:
    """Take an ONNX file in normal form, once it fits its preprocessing; in front of it what takes pixels, if asked."""
    adopted = adoption.adopt(path, stated_of_graph(source))
    model = adopted.model
    preprocess = map_sizes.input_of_graph(model, path, source.input, stated=source.preprocess)
    onnx_file.expect_input(model, preprocess, path)
    replaced = map_sizes.in_place_of(onnx_file.preprocess(model), preprocess)
    onnx_file.embed(model, preprocess)
    output = onnx_file.specs(tuple(model.graph.outputs))[0].shape
    if not onnx_file.classes(model) and output and (names := _fitting(said, output[-1])):
        model.metadata_props[onnx_file.CLASSES_KEY] = codec.canonical_json(names)
    sums_of_two.note(model)
    file = folder / "model.onnx"
    onnx_file.save(model, file)
    context.report("export", "re-running the file in ONNX Runtime")
    difference, verified = _verify_adopted(adopted, file, path, preprocess, table, context.connection)
    if table.input_pixels:
        preprocess = pixel_input.take_pixels(model, preprocess)
        onnx_file.save(model, file)
    remarks = (
        *adopted.changes,
        *((map_sizes.UNKNOWN,) if isinstance(preprocess, BareInput) else ()),
        *replaced,
        *onnx_file.unfit(model),
    )
    facts = _facts_of_onnx(source, path, digest, onnx_file.parameters(model), remarks)
    onnx = onnx_artifact(
        file,
        home,
        name="exported",
        stage="export",
        parent=digest,
        preprocess=preprocess,
        made_by=MadeBy(exporter=model.producer_name or "unknown"),
    )
    return Exported(checkpoint=facts, onnx=onnx, difference=difference, verified_on=verified)


def _verify_adopted(
    adopted: adoption.Adopted,
    file: Path,
    path: Path,
    preprocess: Preprocess | BareInput,
    table: ExportTable,
    connection: Connection,
) -> tuple[float, str]:
    """Run a graph that was adopted, and compare it with the file as it was given."""
    try:
        found = _run_noise(file, preprocess, connection)
    except StageError as error:
        raise InputError(
            f"{path}: ONNX Runtime cannot compute it: {error}",
            hint="no engine of deploykit can, then: export it again, and run it once where it is made",
        ) from error
    if not np.isfinite(found).all() or not found.any():
        said = "all zero" if np.isfinite(found).all() else "not finite"
        raise InputError(
            f"{path}: its outputs are {said} on seeded noise: nothing can be compared",
            hint="its weights are untrained, wiped or damaged: export it again with those of the training",
        )
    if adopted.before is None and adopted.tolerance is not None:
        return 0.0, "taken with the changes above, not compared: ONNX Runtime cannot run the file as given"
    if adopted.before is None:
        return 0.0, "taken with the changes above, which move no number" if adopted.changes else "taken as it is"
    with temporary_folder() as folder:
        given = folder / "given.onnx"
        given.write_bytes(adopted.before.SerializeToString())
        wanted = _run_noise(given, preprocess, connection).reshape(found.shape)
    difference, limit = metrics.relative_difference(wanted, found), adopted.tolerance or table.tolerance
    if not difference <= limit:
        raise ExportError(
            f"{path}: in normal form ({'; '.join(adopted.changes)}) it differs from the file as it was given by "
            f"{difference:.2g} of the largest output, at most {limit:g} is rounding",
            hint="export it again with operator set 13 or higher and float32; the file was not kept",
        )
    return difference, f"{difference:.1g} of the largest output off the file as given, on {len(found)} noise tensors"


def _run_noise(file: Path, preprocess: Preprocess | BareInput, connection: Connection) -> np.ndarray:
    target = inference.InferenceTarget(engine="onnxruntime", path=file, options={"optimize": False})
    return inference.infer_all(
        connection, target, open_set(SYNTHETIC, preprocess).first(_ADOPTED_IMAGES), preprocess
    ).logits


def _verify(
    network: Checkpoint,
    file: Path,
    sample: ImageSet,
    preprocess: Preprocess | BareInput,
    table: ExportTable,
    connection: Connection,
) -> tuple[float, str, np.ndarray]:
    """Re-run the file in ONNX Runtime, compare with torch, relative to the largest |logit|, and return its answers."""
    from deploy_kit.checkpoint.network import to_onnx
    from deploy_kit.checkpoint.network.torch_logits import torch_logits

    wanted = np.concatenate(list(torch_logits(network.model, sample, preprocess)))
    if not wanted.any():
        raise ExportError(
            f"the checkpoint's logits are all zero on {sample.name}", hint="its weights look untrained or wiped"
        )
    batches = _DYNAMIC_BATCHES if table.dynamic else (table.batch,)
    worst = 0.0
    for batch in batches:
        found = _onnx_logits(network, file, sample, preprocess, batch, connection)
        worst = max(worst, metrics.relative_difference(wanted, found))
    if not worst <= table.tolerance:
        raise ExportError(
            f"the ONNX file differs from the checkpoint by {worst:.2g} of the largest logit, "
            f"at most {table.tolerance:g} asked for",
            hint=f"try the other exporter: --exporter {to_onnx.other(table)}; the file was not kept",
        )
    noun = "noise tensors" if isinstance(preprocess, BareInput) else "images"
    return worst, f"{sample.n} {noun} ({sample.name}), batch {' and '.join(map(str, batches))}", found


def _verify_rebuilt(network: Checkpoint, sample: ImageSet, preprocess: Preprocess | BareInput) -> str:
    """Hold the rebuilt network against the same function written out on the file's own tensors, in float64.

    The middle of an image is enough, where the head pools: float64 convolutions are slow, and every layer computes.
    """
    import torch

    image = torch.from_numpy(next(sample.first(1).batches(preprocess.normalized, 1)))
    if network.spec.map_side is None:
        for axis, side in enumerate(map_sizes.compared(network.spec), start=2):
            side = min(side, image.shape[axis])
            image = image.narrow(axis, (image.shape[axis] - side) // 2, side)
    wanted = torch.cat(network.equations.answers(image.double()), 1).numpy()
    outputs = network.model(image)
    found = (torch.cat(outputs, 1) if isinstance(outputs, tuple) else outputs).numpy()
    difference = metrics.relative_difference(wanted, found)
    if not difference <= _REBUILT:
        raise ExportError(
            f"the rebuilt network differs from the equations on the file's own tensors by {difference:.2g} of the "
            f"largest logit, at most {_REBUILT:g} is float32's own error",
            hint="this is a fault of deploykit, and the file was not kept: report it with the names in the checkpoint",
        )
    return f"rebuilt network against the equations on the file's own tensors: {difference:.1g} of the largest logit off"


def _verify_witness(
    network: Checkpoint, sample: ImageSet, preprocess: Preprocess | BareInput, answers: np.ndarray
) -> str:
    """Hold the ONNX file's answers against those of the graph that the checkpoint states, on its first images."""
    import torch

    if network.witness is None:
        return "its order of operations has no witness: the file holds weights, and no graph"
    witness, forward = network.witness, network.witness.forward
    n = min(_WITNESSED_IMAGES, len(answers)) * (forward.batch or 1)
    images = torch.from_numpy(np.concatenate(list(sample.first(min(n, sample.n)).batches(preprocess.normalized, 1))))
    step = forward.batch or 1
    if len(images) < step:  # a graph of a large batch: its images repeat
        again = np.resize(np.arange(len(images)), step)
        images, answers = images[again], answers[again]
    fixed = witness.sides is not None and witness.sides != tuple(images.shape[2:])
    found = torch.from_numpy(answers[: len(images)])
    if fixed:  # a graph of another size than was asked for is compared at its own, with the rebuilt network
        assert witness.sides is not None
        shape = (*images.shape[:2], *witness.sides)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        outputs = network.model(images)
        found = torch.cat(outputs, 1) if isinstance(outputs, tuple) else outputs
    worst = max(
        witness.verify(network.spec, images[at : at + step], found[at : at + step], network.model)
        for at in range(0, len(images) - step + 1, step)
    )
    what = "rebuilt network" if fixed else "ONNX file"
    return f"{what} against {forward.source}, {len(images)} inputs: {worst:.1g} of the largest logit off"


def _onnx_logits(
    network: Checkpoint,
    file: Path,
    sample: ImageSet,
    preprocess: Preprocess | BareInput,
    batch: int,
    connection: Connection,
) -> np.ndarray:
    """Run the file: in a worker; with several heads here, where all outputs can be fetched."""
    if len(network.spec.heads) < 2:
        target = inference.InferenceTarget(engine="onnxruntime", path=file, options={})
        return inference.infer_all(connection, target, sample, preprocess, batch=batch).logits
    from deploy_kit.checkpoint.network import to_onnx

    session = need("onnxruntime", by="re-running the file").InferenceSession(str(file))
    rows = []
    for images_of_batch in sample.batches(preprocess, batch):
        full = np.resize(images_of_batch, (batch, *images_of_batch.shape[1:]))
        found = np.concatenate(session.run(None, {to_onnx.INPUT: full}), axis=1)
        rows.append(found[: len(images_of_batch)])
    return np.concatenate(rows)


def _facts_of_onnx(
    source: SourceTable, path: Path, digest: str, parameters: int, remarks: tuple[str, ...] = ()
) -> CheckpointFacts:
    return CheckpointFacts(
        name=source.checkpoint,
        sha256=digest,
        size_bytes=path.stat().st_size,
        container="ONNX",
        spec=None,
        parameters=parameters,
        remarks=("an ONNX file: its own float answers are the reference", *remarks),
    )


def _facts(network: Checkpoint, name: str, path: Path, digest: str, remarks: tuple[str, ...] = ()) -> CheckpointFacts:
    return CheckpointFacts(
        name=name,
        sha256=digest,
        size_bytes=path.stat().st_size,
        container=network.container,
        spec=network.spec,
        parameters=sum(tensor.numel() for tensor in network.model.parameters()),
        remarks=(*network.remarks, *remarks),
    )
