"""What is this: a checkpoint, an ONNX graph, an engine or a bundle? Architecture, parameters, precision, passport."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from deploy_kit import checkpoint
from deploy_kit.base.errors import InputError, no_such_file
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.checkpoint import Checkpoint
from deploy_kit.checkpoint.formats.folders import folder_refusal
from deploy_kit.checkpoint.network import map_sizes, paper_table
from deploy_kit.delivery import contents
from deploy_kit.graph import onnx_bounds
from deploy_kit.recipe import SourceTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, BareInput, Preprocess, TensorSpec
from deploy_kit.records.densenet import DenseNetSpec
from deploy_kit.records.passports import PASSPORT, mismatch, read_passport

_MAX_CLASSES = 12
_ENGINE_SUFFIXES = frozenset({".xml", ".param", ".pte", ".plan", ".engine", ".blob"})


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Description of one file.

    Attributes:
        kind: ``checkpoint``, ``onnx`` or ``engine``.
        path: Path of the file.
        size_bytes: Size of the file in bytes.
        title: Name of the architecture or artifact, in one line.
        facts: (name, value) pairs to print.
        spec: Architecture of a checkpoint; None for other files.
        inputs: Input tensors of a graph or engine.
        outputs: Output tensors of a graph or engine.
        operators: (operator, count) of a graph, most frequent first.
        passport: Passport of a file that a store made; None for other files.
    """

    kind: str
    path: str
    size_bytes: int
    title: str
    facts: tuple[tuple[str, str], ...]
    spec: DenseNetSpec | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    operators: tuple[tuple[str, int], ...] = ()
    passport: Artifact | None = None


def inspect_file(path: Path, source: SourceTable | None = None, sides: tuple[int, ...] | None = None) -> Inspection:
    """Inspect one file.

    Args:
        path: Path of the file; or of a bundle, whose engine is described.
        source: What is stated about a checkpoint beside its file.
        sides: Sides of the input in px, to compute map sizes and MACs with.

    Raises:
        InputError: Missing, or nothing this program knows.
        CheckpointError: A checkpoint that cannot be read as a DenseNet.
    """
    if contents.is_bundle(path):
        return _bundle(path)
    if path.is_dir():
        raise folder_refusal(path)
    if not path.is_file():
        raise no_such_file(path)
    path = _main_file(path)
    passport = read_passport(path)
    if path.suffix in _ENGINE_SUFFIXES:
        return _engine(path, passport, mismatch(path))  # which hashes the file once more
    return _onnx(path, passport, mismatch(path)) if onnx_bounds.is_onnx(path) else _checkpoint(path, source, sides)


def _bundle(path: Path) -> Inspection:
    with contents.opened(path) as bundle:
        manifest, file = bundle.manifest, bundle.engine_file
        known = _onnx if file.is_file() and onnx_bounds.is_onnx(file) else _engine
        # What was changed is not what the manifest describes: its claims are withheld.
        engine = _changed(file) if bundle.faults else known(file, bundle.passport, "")
        facts = [("bundle", manifest.name), ("signed", "yes" if bundle.signed else "no")]
        facts += [("remark", fault) for fault in bundle.faults]
        named = known is _engine and not bundle.faults
        return dataclasses.replace(
            engine,
            path=str(path),
            size_bytes=sum(packed.size for packed in manifest.files),
            facts=(*facts, *engine.facts, *(_classes_row(manifest.classes) if named else ())),
        )


def _changed(file: Path) -> Inspection:
    """Describe the engine of a bundle that is not what was packed: what can be read of the file itself."""
    if file.is_file() and onnx_bounds.is_onnx(file):
        return _onnx(file, None, "")
    hashes = _hash_rows(file)
    return Inspection(kind="engine", path=str(file), size_bytes=0, title="engine, not what was packed", facts=hashes)


def _main_file(path: Path) -> Path:
    """Return the engine that a file belongs to, where it is a passport, or weights beside it; else the file itself."""
    named = [path.with_suffix(ending) for ending in (".xml", ".param")] if path.suffix == ".bin" else []
    mains = (*named, path.with_name(path.name.removesuffix(PASSPORT)))
    return next((main for main in mains if main.is_file()), path)


def _checkpoint(path: Path, source: SourceTable | None, sides: tuple[int, ...] | None) -> Inspection:
    read = checkpoint.read_checkpoint(path, checkpoint.stated_facts(source) if source else None)
    spec = read.spec
    asked, told = _sides(read, sides)
    facts = [
        ("container", read.container),
        ("parameters", f"{sum(p.numel() for p in read.model.parameters()):,}"),
        *paper_table.rows(spec, asked),
    ]
    facts += [(f"{fact} from", source) for fact, source in spec.sources]
    if read.evidence.input_mean:
        middle = ", ".join(f"{mean:.2f}" for mean in read.evidence.input_mean)
        facts.append(
            ("input range", f"{map_sizes.input_range(read.evidence.input_mean)} (mean {middle} by its first BN)")
        )
    facts += _classes_row(read.classes or ())
    facts += _preprocess_rows(read.preprocess) if read.preprocess else (("preprocess", "not known"),)
    facts += [("remark", remark) for remark in (*read.remarks, *told)]
    return Inspection(
        kind="checkpoint",
        path=str(path),
        size_bytes=path.stat().st_size,
        title=spec.title,
        facts=tuple(facts),
        spec=spec,
    )


def _classes_row(classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return a row with the first names of classes; none where nothing names them."""
    shown = f"{', '.join(classes[:_MAX_CLASSES])}{', …' * (len(classes) > _MAX_CLASSES)}"
    return [("classes", shown)] if classes else []


def _sides(read: Checkpoint, asked: tuple[int, ...] | None) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Return the input's sides: as asked, as the file says, or as is usual; None where nothing says."""
    if asked is not None:
        if len(asked) != read.spec.ndim:
            raise InputError(f"expected {read.spec.ndim} sides of the input, found {len(asked)}")
        return asked, ()
    if read.preprocess is not None:
        return (read.preprocess.height, read.preprocess.width), ()
    if read.sides is not None:
        sides, source = read.sides
        return sides, (f"input size {'×'.join(map(str, sides))}: stated by {source}",)
    known = map_sizes.usual(read.spec)
    if known is None:
        example = "x".join(["64"] * read.spec.ndim)
        return None, (f"the size of its input is not known: --input {example} shows the maps and counts MACs",)
    return known[0], (f"input size {'×'.join(map(str, known[0]))}: {known[1]}",)


def _onnx(path: Path, passport: Artifact | None, wrong: str) -> Inspection:
    from deploy_kit.graph import onnx_file  # and onnx_ir, which no checkpoint needs: 0.5 s

    model = onnx_file.load(path)
    preprocess = onnx_file.preprocess(model)
    precision = onnx_file.precision(model)
    facts = [
        ("precision", precision),
        ("opset", str(onnx_file.opset(model))),
        ("IR version", str(model.ir_version)),
        ("producer", f"{model.producer_name or 'unknown'} {model.producer_version or ''}".strip()),
        ("nodes", str(onnx_file.nodes(model))),
        ("parameters", f"{onnx_file.parameters(model):,}"),
        ("weights", f"{onnx_file.weight_bytes(model):,} bytes"),
        ("MACs per run", f"{onnx_file.macs(model):,}"),
        *(_preprocess_rows(preprocess) if preprocess else (("preprocess", "not embedded"),)),
        *_classes_row(onnx_file.classes(model)),
        *_hash_rows(path),
    ]
    if wrong:
        facts.append(("remark", wrong))
    return Inspection(
        kind="onnx",
        path=str(path),
        size_bytes=path.stat().st_size,
        title=f"ONNX graph, {precision}",
        facts=tuple(facts),
        inputs=onnx_file.specs(onnx_file.inputs(model)),
        outputs=onnx_file.specs(tuple(model.graph.outputs)),
        operators=tuple(onnx_file.operators(model).most_common()),
        passport=passport,
    )


def _hash_rows(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the sha256 of each file of an engine, as `sha256sum` prints it."""
    files = [path, path.with_suffix(".bin")] if path.suffix in (".xml", ".param") else [path]
    return tuple((f"sha256 of {file.name}", sha256_of(file)) for file in files if file.is_file())


def _preprocess_rows(preprocess: Preprocess | BareInput) -> tuple[tuple[str, str], ...]:
    """Describe how an image becomes the input: as data, and in words."""
    words = (("from an image", preprocess.words),) if isinstance(preprocess, Preprocess) else ()
    return (("preprocess", codec.canonical_json(preprocess)), *words)


def _engine(path: Path, passport: Artifact | None, wrong: str) -> Inspection:
    if passport is None and wrong:
        raise InputError(
            f"{path}: {wrong}",
            hint="take the files and the passport as they were delivered",
        )
    if passport is None:
        raise InputError(
            f"{path}: an engine without a passport: nothing is known of it",
            hint=f"put the passport beside it that was written with it: {path.name}.passport.json, or record.json",
        )
    facts = [
        ("engine", str(passport.engine)),
        ("precision", passport.precision),
        *_preprocess_rows(passport.preprocess),
        *passport.made_by.rows,
        *_hash_rows(path),
    ]
    if wrong:
        facts.append(("remark", wrong))
    if passport.proof:
        facts += [(f"{op} in {dtype}", str(n)) for op, dtype, n in passport.proof.counts]
        facts.append(("proved by", passport.proof.source))
    return Inspection(
        kind="engine",
        path=str(path),
        size_bytes=passport.size_bytes,
        title=passport.label,
        facts=tuple(facts),
        inputs=passport.inputs,
        outputs=passport.outputs,
        passport=passport,
    )
