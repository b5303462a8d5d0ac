"""What is this file: a checkpoint, an ONNX graph or a built engine? Architecture, parameters, precision, passport."""

import json
from dataclasses import dataclass
from pathlib import Path

from deploy_kit import checkpoint, codec, graph
from deploy_kit.errors import InputError, RecipeError
from deploy_kit.records import Artifact, DenseNetSpec, TensorSpec
from deploy_kit.store import digest_of

_ENGINE_SUFFIXES = frozenset({".xml", ".plan", ".engine", ".blob"})


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found.

    Attributes:
        kind: ``checkpoint``, ``onnx`` or ``engine``.
        path: The file.
        size_bytes: Of the file.
        title: One line that names it.
        facts: (what, value) for people.
        spec: Of a checkpoint.
        inputs: Of a graph.
        outputs: Of a graph.
        operators: (operator, how many) of a graph, most frequent first.
        passport: Of a file that a store made.
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


def run(path: Path) -> Inspection:
    """Inspect one file.

    Raises:
        InputError: Missing, or nothing this program knows.
        CheckpointError: A checkpoint that cannot be read as a DenseNet.
    """
    if path.is_dir():
        raise InputError(f"{path}: expected a file, found a folder")
    if not path.is_file():
        raise InputError(f"{path}: no such file", hint="check the path")
    passport = read_passport(path)
    if path.suffix in _ENGINE_SUFFIXES:
        return _engine(path, passport)
    return _onnx(path, passport) if graph.is_onnx(path) else _checkpoint(path)


def read_passport(path: Path) -> Artifact | None:
    """Read the record beside a file of a store; None where there is none, or where it is of other content."""
    try:
        data = json.loads((path.parent / "record.json").read_text(encoding="utf-8"))
        passport = codec.from_json(Artifact, data.get("onnx", data))
    except (OSError, ValueError, AttributeError, RecipeError):
        return None
    return passport if passport.sha256 == digest_of(path) else None


def _checkpoint(path: Path) -> Inspection:
    read = checkpoint.read(path)
    spec = read.spec
    facts = [
        ("container", read.container),
        ("parameters", f"{sum(p.numel() for p in read.model.parameters()):,}"),
        ("input", f"N×{spec.in_channels}×H×W"),
        ("stem", _stem(spec)),
    ]
    width = spec.stem_channels
    for index, block in enumerate(spec.blocks):
        inner = f"1×1 conv to {block.bottleneck}, 3×3 conv" if block.bottleneck else "3×3 conv"
        end = width + block.layers * block.growth
        facts.append((f"dense block {index + 1}", f"[{inner}] × {block.layers}, k = {block.growth}: {width} → {end}"))
        width = end
        if index < len(spec.transitions):
            facts.append(
                (f"transition {index + 1}", f"1×1 conv, 2×2 average pool: {width} → {spec.transitions[index]}")
            )
            width = spec.transitions[index]
    facts.append(("classifier", f"global average pool, linear: {width} → {spec.classes}"))
    facts += [(f"{fact} from", source) for fact, source in spec.sources]
    if read.preprocess:
        facts.append(("preprocess", codec.canonical(read.preprocess)))
    facts += [("remark", remark) for remark in read.remarks]
    return Inspection(
        kind="checkpoint",
        path=str(path),
        size_bytes=path.stat().st_size,
        title=spec.title,
        facts=tuple(facts),
        spec=spec,
    )


def _stem(spec: DenseNetSpec) -> str:
    parts = [f"{spec.stem_kernel}×{spec.stem_kernel} conv, stride {spec.stem_stride}, to {spec.stem_channels}"]
    parts += ["BN, ReLU"] * spec.stem_norm + ["3×3 max pool, stride 2"] * spec.stem_pool
    return ", ".join(parts)


def _onnx(path: Path, passport: Artifact | None) -> Inspection:
    model = graph.load(path)
    preprocess = graph.preprocess(model)
    precision = graph.precision(model)
    facts = [
        ("precision", precision),
        ("opset", str(graph.opset(model))),
        ("IR version", str(model.ir_version)),
        ("producer", f"{model.producer_name or 'unknown'} {model.producer_version or ''}".strip()),
        ("nodes", str(graph.nodes(model))),
        ("parameters", f"{graph.parameters(model):,}"),
        ("MACs per run", f"{graph.macs(model):,}"),
        ("preprocess", codec.canonical(preprocess) if preprocess else "not embedded"),
    ]
    return Inspection(
        kind="onnx",
        path=str(path),
        size_bytes=path.stat().st_size,
        title=f"ONNX graph, {precision}",
        facts=tuple(facts),
        inputs=graph.specs(graph.inputs(model)),
        outputs=graph.specs(tuple(model.graph.outputs)),
        operators=tuple(graph.operators(model).most_common()),
        passport=passport,
    )


def _engine(path: Path, passport: Artifact | None) -> Inspection:
    if passport is None:
        raise InputError(
            f"{path}: an engine without a passport: nothing is known of it",
            hint="inspect it where it was built: the passport is 'record.json' beside it",
        )
    facts = [("engine", str(passport.engine)), ("precision", passport.precision), *passport.made_by]
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
