"""``manifest.json``: what a bundle says of itself. `docs/manifest.schema.json` is its JSON Schema."""

import hashlib
import json
import math
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from deploy_kit.base.errors import InputError, RecipeError
from deploy_kit.base.plain_text import one_line, shown
from deploy_kit.base.text_files import unique_keys
from deploy_kit.base.versions import version_numbers
from deploy_kit.records import codec
from deploy_kit.records.artifacts import MOST_RESIZE, BuiltFor, Precision, Preprocess, TensorSpec
from deploy_kit.records.made_by import MadeBy, Pairs
from deploy_kit.records.parity import Drop
from deploy_kit.records.results import Limits
from deploy_kit.records.verdict import Verdict

SCHEMA_VERSION = 1
FILE = "manifest.json"
SIGNATURE = "bundle.sig"
MAX_BYTES = 16 << 20
"""Largest manifest that is read: 100,000 classes of 100 characters fit."""
MAX_NAME = 200
"""Longest name of a class or a file, in characters."""
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
# Characters that let a text look like another one (Unicode's bidirectional controls, UAX #9).
_REORDERING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)))

Scores = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, kw_only=True)
class PackedFile:
    """One file of a bundle; ``manifest.json`` and the signature are not listed.

    Attributes:
        path: Path within the bundle, with ``/`` between its parts.
        sha256: sha256 of the file.
        size: Size in bytes.
    """

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class PackedEngine:
    """The engine's file, and what runs it.

    Attributes:
        name: Name of the engine, e.g. ``onnxruntime``.
        file: Main file, by its path within the bundle.
        sha256: sha256 of the engine as the store knows it; of several files (xml and bin) that of all of them.
        package: Python package that runs it.
        built_with: Version of that package on the machine that built it; empty where that machine did not say.
        minimum: Oldest version that can run it.
        exact: Whether only the version it was built with can run it.
        minimum_source: Where `minimum` comes from.
        options: Options to run it with: a JSON object by name.
        built_for: Passport of an engine that fits one version and one kind of GPU; None where it loads everywhere.
        graph: File of the ONNX graph it was built from; empty where the engine is that file or the graph is not packed.
        graph_sha256: sha256 of the ONNX graph that it was built from; empty where it was not recorded.
        rebuild: Command that builds it again from `graph`, for another version or GPU; empty without `graph`.
    """

    name: str
    file: str
    sha256: str
    package: str
    built_with: str
    minimum: str
    exact: bool
    minimum_source: str
    options: Any
    built_for: BuiltFor | None
    graph: str
    graph_sha256: str
    rebuild: str

    @property
    def requirement(self) -> str:
        """What pip installs to run it, e.g. ``openvino>=2025.3``."""
        return f"{self.package}{'==' if self.exact else '>='}{self.minimum}"


@dataclass(frozen=True, kw_only=True)
class PackedSource:
    """The checkpoint that the engine comes from.

    Attributes:
        name: Name of its file.
        sha256: sha256 of its file.
        architecture: Name of its architecture.
        parameters: Number of trainable parameters.
    """

    name: str
    sha256: str
    architecture: str
    parameters: int


@dataclass(frozen=True, kw_only=True)
class PackedImages:
    """An image set that was used and is not packed.

    Attributes:
        name: Name of the set.
        n: Number of images.
        sha256: Digest of the whole set: images, order and labels; empty where it was not recorded.
    """

    name: str
    n: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PackedCheck:
    """What the check against the checkpoint found.

    Attributes:
        accuracy: Verdict of the check, which judges no latency, with its reasons and the limits in force.
        limits: Limits that it was held to.
        sqnr_db: Signal-to-quantization-noise ratio of the logits in dB.
        agreement: Share of images in 0..1 whose top-1 class is the checkpoint's.
        top1_reference: Top-1 accuracy of the checkpoint in 0..1; None without labels.
        top1: Top-1 accuracy of the engine in 0..1; None without labels.
        drop: What it loses in accuracy, with the 95 % interval; None without labels.
        remarks: What a reader must know beside the numbers.
    """

    accuracy: Verdict = field(metadata={"json was": "verdict"})
    limits: Limits
    sqnr_db: float
    agreement: float
    top1_reference: float | None
    top1: float | None
    drop: Drop | None
    remarks: tuple[str, ...]

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Say what of its numbers cannot be beside each other: a limit that is not kept where the word is accepted."""
        limits, drop = self.limits, self.drop
        kept = (
            ("SQNR", limits.min_sqnr_db is None or self.sqnr_db >= limits.min_sqnr_db),
            ("agreement", limits.min_agreement is None or self.agreement >= limits.min_agreement),
            ("drop", drop is None or limits.max_drop is None or drop.high <= limits.max_drop),
            ("top-1", self.top1 is None or limits.min_top1 is None or self.top1 >= limits.min_top1),
        )
        found = [f"accepted, and its {what} is beyond its limit" for what, held in kept if not held]
        found = found if self.accuracy.word == "accepted" else []
        if drop is not None and drop.what == "top-1" and self.top1 is not None and self.top1_reference is not None:
            lost = 100 * (self.top1_reference - self.top1)
            if not math.isclose(lost, drop.points, abs_tol=1e-6):
                found.append(f"a drop of {drop.points:g} points, and its accuracies differ by {lost:g}")
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latency as it was measured, on the machine that is named.

    Attributes:
        p50_ms: Median in ms.
        p90_ms: 90th percentile in ms; None where the samples do not carry it.
        p99_ms: 99th percentile in ms; None where the samples do not carry it.
        n: Number of samples.
        batch: Images per run.
        span: ``compute``, or ``whole`` with copying in and out.
        scenario: How runs were issued.
        machine: (what, value) of the machine.
        invalid: Why the numbers must not be used; empty where they are valid.
        emulated: Mark of an emulated machine; empty on real hardware.
    """

    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    n: int
    batch: int
    span: str
    scenario: str
    machine: Pairs
    invalid: tuple[str, ...]
    emulated: str


@dataclass(frozen=True, kw_only=True)
class GoldenRecord:
    """What ``golden.npz`` holds: ``images`` uint8 of the network's size in RGB order, and ``logits`` float32.

    Attributes:
        file: The file.
        n: Number of images.
        images: Set that they are from.
        tolerance: Largest difference of a logit that counts as the same answer, relative to the largest absolute logit
            of the file.
        computed_on: Machine that computed the logits.
    """

    file: str
    n: int
    images: str
    tolerance: float
    computed_on: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        schema_version: Version of this form.
        name: Name of the bundle.
        precision: Numeric precision of the engine.
        engine: The engine.
        inputs: Input tensors.
        outputs: Output tensors.
        preprocess: How an image becomes the input: ``(pixel / 255 - mean) / std`` of each channel, after the shorter
            side was scaled to `resize` (antialiased) and the center was cut out.
        orientation: Whether image files with an EXIF orientation are read as they are ``stored`` or turned ``upright``;
            None where nobody said, because no image of the check has one.
        scores: How outputs become scores: ``softmax``, ``sigmoid``, or ``none`` where they are probabilities already.
        classes: Names of the classes in the order of the outputs; empty where nothing names them.
        checkpoint: The checkpoint.
        calibration: Images that INT8 was calibrated with; None where there were none.
        images: Check set that the engine was judged on.
        check: Result of the check.
        latency: Latency; None where it was not measured.
        golden: Images to verify with.
        made_by: Options and versions that decided the graph.
        deploykit: Version of deploykit that packed it.
        files: All files but the manifest and the signature, sorted.
        sha256: Hash of all the other keys, as JSON with sorted keys, without spaces, in UTF-8; empty in bundles of
            earlier versions.
    """

    schema_version: int
    name: str
    precision: Precision
    engine: PackedEngine
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess
    orientation: Literal["stored", "upright"] | None
    scores: Scores
    classes: tuple[str, ...]
    checkpoint: PackedSource
    calibration: PackedImages | None
    images: PackedImages
    check: PackedCheck
    latency: Latency | None
    golden: GoldenRecord
    made_by: MadeBy
    deploykit: str
    files: tuple[PackedFile, ...] = field(default_factory=tuple)
    sha256: str = ""


def dump_manifest(manifest: Manifest) -> str:
    """Write a manifest with its hash; equal manifests give equal text."""
    data = codec.to_json(manifest)
    return json.dumps(data | {"sha256": _hash_of(data)}, ensure_ascii=False, indent=1) + "\n"


def is_as_written(data: bytes) -> bool:
    """Return whether the content of a manifest is what its hash says; one of an earlier version has none."""
    raw = json.loads(data)
    return raw.get("sha256", "") in ("", _hash_of(raw))


def _hash_of(data: dict[str, Any]) -> str:
    rest = {key: value for key, value in data.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest that somebody gave us.

    Args:
        data: Content of the file.
        where: Path for messages.

    Raises:
        InputError: Too large, no JSON, of a later form, or not a manifest; or a name in it that must not be there.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"{where}: expected at most {MAX_BYTES >> 20} MiB, found {len(data) >> 20} MiB")
    try:
        raw = json.loads(data, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a manifest: {error}", hint="get the bundle again") from error
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(found) is not int or found != SCHEMA_VERSION:
        later = type(found) is int and found > SCHEMA_VERSION
        raise InputError(
            f"{where}: expected a manifest of schema version {SCHEMA_VERSION}, found {shown(found)}",
            hint="pip install --upgrade deploykit" if later else "give a bundle that `deploykit pack` wrote",
        )
    try:
        manifest = codec.from_json(Manifest, raw, where)
    except (RecipeError, RecursionError, TypeError) as error:
        raise InputError(f"not a manifest: {_bounded(str(error))}", hint="get the bundle again") from error
    for file in manifest.files:
        expect_path(file.path, where)
    verify_classes(manifest.classes, where)
    _verify_whole(manifest, where)
    return manifest


def verify_classes(classes: tuple[str, ...], where: str) -> None:
    """Refuse names of classes that would do something to a terminal, a list of labels or a reader.

    Raises:
        InputError: An empty or overlong name, or one with a control character.
    """
    for index, name in enumerate(classes):
        bad = next((c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _REORDERING), None)
        if not name.strip() or len(name) > MAX_NAME or bad is not None:
            what = f"the control character U+{ord(bad):04X}" if bad is not None else f"{len(name)} characters"
            raise InputError(
                f"{where}: class {index}: expected a name of 1 to {MAX_NAME} printable characters, found {what}",
                hint="rename the class in classes.txt or its folder, then export again",
            )


def expect_path(path: str, where: str) -> PurePosixPath:
    """Return a path within a bundle.

    Raises:
        InputError: It is absolute, leads out of the bundle, or has other characters than names of a bundle have.
    """
    parts = path.split("/")
    if len(path) > MAX_NAME or len(parts) > 5 or not all(_PART.fullmatch(part) for part in parts):
        raise InputError(f"{where}: expected the path of a file within the bundle, found {path[:MAX_NAME]!r}")
    return PurePosixPath(path)


def verify_name(name: str, where: str) -> None:
    """Refuse a name of a bundle that could not be a folder's.

    Raises:
        InputError: It has other characters, or is too long.
    """
    if not _PART.fullmatch(name) or len(name) > MAX_NAME // 2:
        raise InputError(
            f"{where}: name: expected letters, digits, '.', '_' and '-', found {name[:MAX_NAME]!r}",
            hint="--name best-int8",
        )


def _bounded(text: str) -> str:
    """Return a message about what somebody else wrote as it may be printed: on one line, and not without end."""
    return one_line(text[: 3 * MAX_NAME]) + "…" * (len(text) > 3 * MAX_NAME)


def _verify_whole(manifest: Manifest, where: str) -> None:
    """Refuse a manifest that contradicts itself."""
    verify_name(manifest.name, where)
    paths, known = [file.path for file in manifest.files], set[str]()
    for path in paths:
        if path.casefold() in known:  # one file, where names differ in more than case alone
            raise InputError(f"{where}: lists '{path}' twice")
        known.add(path.casefold())
    engine, golden = manifest.engine, manifest.golden
    for named in (engine.file, golden.file, *([engine.graph] if engine.graph else [])):
        if named not in paths:
            raise InputError(f"{where}: names '{named[:MAX_NAME]}', which is not among its files")
    if len(manifest.inputs) != 1 or len(manifest.outputs) != 1 or len(manifest.outputs[0].shape) != 2:
        raise InputError(f"{where}: expected one input and one output N×classes")
    n, taken = manifest.outputs[0].shape[1], manifest.preprocess
    if manifest.inputs[0].shape[1:] != taken.shape:
        found = list(manifest.inputs[0].shape)
        raise InputError(f"{where}: its preprocessing makes {list(taken.shape)} of an image, and the input is {found}")
    if (taken.resize or 0) > MOST_RESIZE * max(taken.height, taken.width):
        raise InputError(f"{where}: preprocess.resize: expected a side that fits the input, found {taken.resize:,} px")
    if not isinstance(engine.options, dict):
        raise InputError(f"{where}: engine.options: expected an object, found {type(engine.options).__name__}")
    if manifest.classes and len(manifest.classes) != n:
        raise InputError(f"{where}: names {len(manifest.classes)} classes, and the output has {n}")
    for version in (engine.minimum, engine.built_with):
        if version and not version_numbers(version):
            raise InputError(f"{where}: expected a version, found {version[:MAX_NAME]!r}")
    if not 0 < golden.tolerance < 1:
        raise InputError(f"{where}: golden.tolerance: expected more than 0 and less than 1, found {golden.tolerance}")
