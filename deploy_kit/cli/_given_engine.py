"""``check FILE`` and ``pack FILE``: a file given by the user, against a checkpoint, golden outputs, or labels alone."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from deploy_kit import recipe
from deploy_kit.base import bundled, lazy
from deploy_kit.base.errors import InputError, RequestError, no_such_file
from deploy_kit.base.plain_text import shell_word
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.cli import _steps
from deploy_kit.cli._console import Console, pairs
from deploy_kit.cli._options import StepOptions
from deploy_kit.context import Context
from deploy_kit.delivery import contents
from deploy_kit.devices import links
from deploy_kit.graph import onnx_bounds, onnx_file
from deploy_kit.images import SYNTHETIC, ImageSource
from deploy_kit.parallel import ray_workers
from deploy_kit.recipe import BuildEntry, CheckTable, LimitsTable, SourceTable, overrides
from deploy_kit.records.artifacts import Artifact, Preprocess, ReferenceLogits
from deploy_kit.records.measurements import NotRun
from deploy_kit.records.parity import LabelScore
from deploy_kit.records.passports import mismatch, read_passport
from deploy_kit.records.results import Limits, ParityReport
from deploy_kit.records.verdict import NO_LIMIT
from deploy_kit.stages import adopt, check, export, reference
from deploy_kit.stages.pack import ProvedEngine
from deploy_kit.stages.report import accuracy
from deploy_kit.store import Store

LABELS = "labels"
T = TypeVar("T", ParityReport, LabelScore)
_UNLIMITED = "no limit on the drop of accuracy is set: --max-drop 0.5pt sets one"
_QUANTIZED = "what it is compared with is quantized itself, and no measure of what quantization lost"
_OWN_ANSWERS = "the expected outputs are this engine's own: they show that it computes as it did, not its accuracy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenEngine:
    """What is judged, and what by.

    Attributes:
        file: The engine's file; or a bundle, which is judged on its golden images where nothing else is given.
        against: A checkpoint or ONNX file; ``labels`` for the labels of the images alone; None for the checkpoint that
            the file's passport names.
        golden: npz file with ``images`` and the expected ``logits``; then there is no other image set.
        engine: Name of its engine; None leaves it to the passport or the file's ending.
        source: Facts of the checkpoint, and the preprocessing, as keys of a recipe's source table.
        max_drop: Largest drop of accuracy in points.
        min_top1: Least top-1 accuracy in 0..1.
        to_pack: Whether it is judged to be packed, for which only a checkpoint or ONNX file will do.
    """

    file: Path
    against: str | None
    golden: Path | None
    engine: str | None
    source: Mapping[str, Any]
    max_drop: float | None
    min_top1: float | None
    to_pack: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Adopted:
    """A file in the store, what it is judged on, and where."""

    engine: Artifact
    images: ImageSource
    table: CheckTable
    host: Context
    target: Context
    wrong: str
    replaced: str


def judge(given: GivenEngine, step: StepOptions, console: Console) -> ParityReport | LabelScore:
    """Judge a file on this machine or a device; no recipe in force is read or changed.

    Raises:
        RequestError: Nothing says what to compare with, or on which images.
        DeviceError: The engine cannot run there.
        DeployKitError: As `stages.adopt`, `stages.reference` and `stages.check`.
    """
    asked = given
    if not given.file.exists():
        raise no_such_file(given.file)
    if given.against == LABELS:
        _verify_labels_suffice(given, step)
    elif given.against is not None and _are_equal(given.file, bundled.resolve_bundled("models", given.against)):
        raise RequestError(
            f"--against {given.against}: is the same file",
            hint="--against the checkpoint, or the float graph, that it was made of",
        )
    with _with_bundle(asked, step) as (given, step, stated), _adopted(given, step, console, stated) as one:
        checked = _remarked(one, _judged(given, one, asked))
        images, files = one.images.open(one.engine.preprocess), adopt.files_of(given.file)
        packed = given.golden != asked.golden  # golden images are a few of the passport's
        remarks = (*checked.remarks, *([] if packed else _other_images(images.digest, one.engine)))
        return dataclasses.replace(
            checked,
            files=tuple((file.name, sha256_of(file)) for file in files),
            images_sha256=images.digest,
            preprocessing=one.engine.preprocess.words if isinstance(one.engine.preprocess, Preprocess) else "",
            remarks=remarks,
        )


def _judged(given: GivenEngine, one: _Adopted, asked: GivenEngine) -> ParityReport | LabelScore:
    """Judge a file that is in the store; `asked` is what a bundle's own files were not yet put into."""
    engine = one.engine
    if given.against == LABELS:
        score = check.by_labels(engine, one.target, images=one.images, min_top1=given.min_top1)
        return _found(score, engine)
    if given.golden is not None:  # its images have the network's size already
        assert isinstance(engine.preprocess, Preprocess)  # `adopt` takes no other
        sized = dataclasses.replace(engine, preprocess=dataclasses.replace(engine.preprocess, resize=None))
        logits, _ = reference.of_file(given.golden, one.images.open(sized.preprocess), one.host)
        checked = _checked(one, sized, logits, max_drop=given.max_drop, min_top1=given.min_top1)
        packed = given.golden != asked.golden  # in a folder of no name
        own = packed or checked.max_error == 0 or _is_packed_beside(engine, given.golden)
        return dataclasses.replace(
            checked,
            images=f"golden images of {asked.file}" if packed else checked.images,
            against=f"golden outputs of {asked.file if packed else given.golden}",
            remarks=(*checked.remarks, *([_OWN_ANSWERS] if own else [])),
        )
    source = _source(given, engine)
    logits, _ = _answers(one, source, to_pack=given.to_pack)
    checked = _checked(one, engine, logits, max_drop=given.max_drop, min_top1=given.min_top1)
    unlimited = checked.drop is not None and checked.limits.max_drop is None and engine.precision != "fp32"
    doubts = [_UNLIMITED] if unlimited else []
    checked = dataclasses.replace(checked, doubts=(*checked.doubts, *doubts))
    return _with_checkpoint(checked, source, engine)


def _is_packed_beside(engine: Artifact, golden: Path) -> bool:
    """Return whether expected outputs are those of a bundle, whose manifest says that this engine answered them."""
    if not contents.is_bundle(golden.parent):
        return False
    try:
        with contents.opened(golden.parent) as bundle:
            manifest = bundle.manifest
    except InputError:  # whatever lies beside them says nothing of them then
        return False
    listed = {file.path: file.sha256 for file in manifest.files}
    # A bundle's ONNX file may have names of classes that the engine which was packed had not.
    engines = (manifest.engine.sha256, listed.get(manifest.engine.file))
    return listed.get(manifest.golden.file) == sha256_of(golden) and engine.sha256 in engines


def _other_images(digest: str, engine: Artifact) -> list[str]:
    """Say that images are not those that a file's passport was written on; nothing where it does not name them."""
    checked_on = engine.origin.images_sha256 if engine.origin else ""
    if checked_on in ("", digest):
        return []
    what = "the images, their order or their labels are not those of its passport"
    return [f"{what}: check data sha256 {digest[:12]}…, and there {checked_on[:12]}…"]


@contextlib.contextmanager
def proved(
    given: GivenEngine, step: StepOptions, console: Console
) -> Iterator[tuple[ProvedEngine, ImageSource, Context]]:
    """Judge a file against a checkpoint; give it with all that a bundle says of it, its images, and where it runs.

    Raises:
        DeployKitError: As `judge`.
    """
    if given.against == LABELS:
        raise RequestError(
            f"{given.file}: a bundle says how an engine compares with its checkpoint, and labels are none",
            hint="--against CHECKPOINT, or the ONNX file that it was made of",
        )
    with _adopted(given, step, console) as one:
        source = _source(given, one.engine)
        logits, _ = _answers(one, source, to_pack=given.to_pack)
        facts = export.facts_of(source)
        judged = _checked(one, one.engine, logits, max_drop=given.max_drop, min_top1=given.min_top1)
        checked = _remarked(one, judged)
        assert isinstance(checked, ParityReport)
        if checked.drop is not None and checked.limits.max_drop is None:
            earlier = f"; its passport has: {one.engine.origin.accuracy}" if one.engine.origin else ""
            console.say(f"{_UNLIMITED}{earlier}")
        parity = _with_checkpoint(checked, source, one.engine)
        # The file, and what its passport says, is all that there is of the graph that it was built from.
        origin = one.engine.origin
        graph = dataclasses.replace(one.engine, made_by=origin.graph_made_by) if origin else one.engine
        yield (
            ProvedEngine(
                engine=one.engine, graph=graph, checkpoint=facts, reference=logits, parity=parity, measurement=None
            ),
            one.images,
            one.target,
        )


def is_engine(file: Path | None) -> bool:
    """Return whether a file is an engine, and no checkpoint or graph to make one from."""
    if file is None or not file.is_file():
        return False
    passport = read_passport(file)
    return file.suffix.lower() in adopt.ENGINES_ONLY or (
        passport is not None and (passport.kind == "engine" or passport.stage == "quantize")
    )


@contextlib.contextmanager
def _with_bundle(given: GivenEngine, step: StepOptions) -> Iterator[tuple[GivenEngine, StepOptions, Artifact | None]]:
    """Put a bundle's engine, golden outputs and orientation where nothing else is given in their place."""
    if not contents.is_bundle(given.file):
        yield given, step, None
        return
    with contents.opened(given.file) as bundle:
        bundle.expect_whole()
        manifest, own = bundle.manifest, step.images is None and given.against is None
        golden = bundle.file(manifest.golden.file) if own and given.golden is None else given.golden
        yield (
            dataclasses.replace(given, file=bundle.engine_file, golden=golden),
            dataclasses.replace(step, orientation=step.orientation or manifest.orientation),
            bundle.passport,
        )


@contextlib.contextmanager
def _adopted(
    given: GivenEngine, step: StepOptions, console: Console, stated: Artifact | None = None
) -> Iterator[_Adopted]:
    base = recipe.load_recipe(step.recipe or overrides.DEFAULT)
    images = _images(given, step, stated)
    entry = BuildEntry(engine=given.engine, variants=()) if given.engine else None
    stating = given.source.get("preprocess") or {}
    own = _own_preprocess(given.file, stated) if stating else None
    if own is not None and stating and "height" not in stating:  # mean and std alone replace the file's alone
        kept = {"height": own.height, "width": own.width, "resize": own.resize, "interpolation": own.interpolation}
        stating = {**kept, **stating}
    facts = {**given.source, "checkpoint": str(given.file), "preprocess": stating or None}
    said = overrides.source_table(facts).preprocess
    if said is None and given.source.get("input"):
        raise RequestError(
            "--input: alone it changes nothing, as a file's preprocessing is taken or stated as a whole",
            hint="leave it out, or add --mean and --std",
        )
    table = overrides.with_inputs(
        base, crops=step.crops, task=step.task, masks=step.masks, ignore_index=step.ignore_index
    ).check
    store, device = Store(step.store), links.find_device(step.device)
    with (
        ray_workers.open_workers(step.on, console.say) as workers,
        links.connect_device(links.LOCAL) as here,
        links.connect_device(device) as there,
    ):
        host = Context(store=store, connection=here, on_progress=console.on_progress, workers=workers)
        target = dataclasses.replace(host, connection=there)
        wrong = "" if stated else mismatch(given.file)
        if wrong:
            console.say(f"{given.file}: {wrong}")
        preprocess = said.record(said.sides or _sides_of(own)) if said else None
        replaced = (
            f"the preprocessing is stated, and the file's own is another: {own.words}"
            if own and own != preprocess
            else ""
        )
        engine, _ = adopt.run(given.file, entry, target, preprocess=preprocess, stated=stated)
        yield _Adopted(
            engine=engine, images=images, table=table, host=host, target=target, wrong=wrong, replaced=replaced
        )


def _own_preprocess(file: Path, stated: Artifact | None) -> Preprocess | None:
    """Return how images become the input by a bundle, a passport or an ONNX file; None where none says."""
    if not file.is_file():
        return None
    passport = stated or read_passport(file)
    known = passport.preprocess if passport else None
    if known is None and onnx_bounds.is_onnx(file):
        known = onnx_file.preprocess(onnx_file.load(file))
    return known if isinstance(known, Preprocess) else None


def _sides_of(own: Preprocess | None) -> tuple[int, int]:
    """Return height and width of the images that a file takes, where mean and std alone are given.

    Raises:
        RequestError: Nothing says them.
    """
    if own is None:
        raise RequestError("--mean and --std: expected the size of an image, too", hint="add e.g. --input 224x224")
    return own.height, own.width


def _source(given: GivenEngine, engine: Artifact) -> SourceTable:
    return overrides.source_table({**given.source, "checkpoint": _checkpoint(given, engine)})


def _answers(one: _Adopted, source: SourceTable, *, to_pack: bool) -> tuple[ReferenceLogits, bool]:
    taken, wish = one.engine.preprocess, reference.wish_of(one.table)
    try:
        return reference.run(source, taken, one.host, images=one.images.open(taken), crops=one.table.crops, wish=wish)
    except ModuleNotFoundError as error:
        if lazy.optional(error) != "torch":
            raise
        lack = lazy.missing_error("torch", by=f"the checkpoint {source.checkpoint}")
        others = "" if to_pack else ", --against labels for the accuracy alone, or --golden golden.npz without --images"
        lack.hint += f"; without torch: --against the ONNX file that it was exported to{others}"
        raise lack from error


def _checked(
    one: _Adopted,
    engine: Artifact,
    logits: ReferenceLogits,
    *,
    max_drop: float | None = None,
    min_top1: float | None = None,
) -> ParityReport:
    """Check an engine: on labels by the limits of its passport, too, where neither the call nor the recipe has one."""
    own, table = engine.origin if logits.labelled else None, one.table.limits.get(engine.precision, LimitsTable())
    asked = {"max_drop": max_drop, "min_top1": min_top1}
    unsaid = [name for name, limit in asked.items() if limit is None and getattr(table, name) is None]
    recorded = {name: getattr(own, name) for name in unsaid if own is not None and getattr(own, name) is not None}
    limits = one.table.with_limits(engine.precision, **asked | recorded)
    checked = _found(check.run(engine, limits, one.target, reference=logits, images=one.images)[0], engine)
    if not recorded or checked.top1 is None:
        return checked
    words = " and ".join(Limits(**recorded).words)
    return dataclasses.replace(checked, remarks=(*checked.remarks, f"the limit is its passport's: {words}"))


def _remarked(one: _Adopted, checked: ParityReport | LabelScore) -> ParityReport | LabelScore:
    """Leave a check open for what is known of the file: that its passport is not its own, that it saw the images."""
    origin = one.engine.origin
    seen = origin is not None and origin.calibration_sha256 == one.images.open(one.engine.preprocess).digest
    doubts = tuple(filter(None, (one.wrong, "it was calibrated on these very images" if seen else "")))
    remarks = (*checked.remarks, *filter(None, (one.replaced,)), *doubts)
    return dataclasses.replace(checked, remarks=remarks, doubts=(*checked.doubts, *doubts))


def _with_checkpoint(checked: ParityReport, source: SourceTable, engine: Artifact) -> ParityReport:
    """Name the checkpoint that a file was compared with, and the other one where the file's passport names another."""
    file = bundled.resolve_bundled("models", source.checkpoint)
    digest, origin, remarks = sha256_of(file), engine.origin, checked.remarks
    if origin is not None and origin.checkpoint_sha256 != digest:
        beside = read_passport(file)
        same = beside and beside.origin and beside.origin.checkpoint_sha256 == origin.checkpoint_sha256
        made_of = f"{origin.checkpoint}, sha256 {origin.checkpoint_sha256}"
        what = "its passport names another checkpoint than it was compared with"
        what = "it was compared with another file that was made of its checkpoint" if same else what
        remarks = (*remarks, f"{what}: {made_of}")
    quantized = onnx_bounds.is_onnx(file) and onnx_file.precision(onnx_file.load(file)) == "int8"
    return dataclasses.replace(
        checked,
        against=f"{source.checkpoint}, sha256 {digest}",
        remarks=remarks,
        doubts=(*checked.doubts, *([_QUANTIZED] if quantized else [])),
    )


def drawn(checked: ParityReport | LabelScore, device: str) -> str:
    """Draw a check on a device, against logits or on labels alone."""
    rows = accuracy.lines(checked) if isinstance(checked, ParityReport) else _scored(checked)
    return pairs(_steps.with_device(rows, device))


def _scored(checked: LabelScore) -> list[tuple[str, str]]:
    five = f"; top-5 {100 * checked.top5:.2f} %" if checked.top5 is not None else ""
    interval = f"[{100 * checked.low:.2f}, {100 * checked.high:.2f}]"
    return [
        ("engine", checked.label),
        *accuracy.given_files(checked),
        ("images", f"{checked.n} ({checked.images})"),
        ("check data sha256", checked.images_sha256),
        ("top-1", f"{100 * checked.top1:.2f} % {interval}{five}"),
        ("compared with", checked.against),
        *(("remark", remark) for remark in checked.remarks),
        ("limits", ", ".join(checked.verdict.limits) or NO_LIMIT),
        ("accuracy", checked.verdict.text),
    ]


def _found(found: T | NotRun, engine: Artifact) -> T:
    if isinstance(found, NotRun):
        raise _steps.not_run_error(engine.label, found.why)
    return found


def _images(given: GivenEngine, step: StepOptions, stated: Artifact | None) -> ImageSource:
    if given.golden is not None and (step.images or given.against):
        raise RequestError(
            "--golden has images and outputs of its own: --images and --against do not go with it",
            hint=f"deploykit check {shell_word(given.file)} --golden {shell_word(given.golden)}",
        )
    name = str(given.golden) if given.golden is not None else step.images
    if name is None:
        raise RequestError(
            f"{given.file}: no images to check on",
            hint=_checked_on(stated or read_passport(given.file))
            + ", or --golden golden.npz of a bundle" * (not given.to_pack),
        )
    return ImageSource(name=name, skip_bad=step.skip_bad, orientation=step.orientation, masks=step.masks)


def _checked_on(passport: Artifact | None) -> str:
    """Say which images to give; those of the check that the passport records are named, and not taken unasked."""
    origin = passport.origin if passport else None
    if origin is None or origin.images in ("", SYNTHETIC):
        return "give --images FOLDER"
    digest = f" ({origin.images_sha256[:6]}…)" if origin.images_sha256 else ""
    if Path(origin.images).exists():
        return f"its passport names {origin.images}{digest}: --images {shell_word(origin.images)}"
    return f"give --images FOLDER: its passport names {origin.images}{digest}, which is not here"


def _are_equal(file: Path, other: Path) -> bool:
    return file.is_file() and other.is_file() and sha256_of(file) == sha256_of(other)


def _verify_labels_suffice(given: GivenEngine, step: StepOptions) -> None:
    """Refuse what needs the answers of a checkpoint, or is not scored on labels alone.

    Raises:
        RequestError: It was asked for.
    """
    if given.max_drop is not None:
        raise RequestError(
            "--max-drop: a drop is against a checkpoint, and --against labels names none",
            hint="--against CHECKPOINT, or --min-top1 92% for a limit on the accuracy itself",
        )
    asked: dict[str, object] = {"--crops": step.crops, "--every-image": step.every_image, "--task": step.task}
    asked |= {"--masks": step.masks, "--ignore-index": step.ignore_index, "--recipe": step.recipe}
    for flag, value in asked.items():
        if value not in (None, False):
            raise RequestError(
                f"{flag}: --against labels scores one label an image, and limits nothing but --min-top1",
                hint=f"leave {flag} out, or give --against CHECKPOINT",
            )


def _checkpoint(given: GivenEngine, engine: Artifact) -> str:
    """Return the checkpoint to compare with: the one given, or the one in the passport if it is here unchanged."""
    if given.against is not None:
        return given.against
    origin = engine.origin
    named = bundled.resolve_bundled("models", origin.checkpoint) if origin is not None else None
    if origin is not None and named is not None and named.is_file() and sha256_of(named) == origin.checkpoint_sha256:
        return origin.checkpoint
    made_of = f" (it was made of {origin.checkpoint}, sha256 {origin.checkpoint_sha256[:12]}…)" if origin else ""
    raise RequestError(
        f"{given.file}: nothing to compare with{made_of}",
        hint="--against CHECKPOINT"
        if given.to_pack
        else "--against CHECKPOINT, --against labels for the accuracy alone, or --golden golden.npz without --images",
    )
