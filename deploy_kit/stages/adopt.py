"""A file given by the user, delivered or foreign → an engine of the store that can be checked as any other."""

import itertools
import json
import shutil
from pathlib import Path
from typing import get_args

from deploy_kit import engines
from deploy_kit.base.errors import InputError, no_such_file
from deploy_kit.base.whole_files import digest_of, sha256_of
from deploy_kit.context import Context
from deploy_kit.graph import onnx_bounds, onnx_file
from deploy_kit.recipe import BuildEntry
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, BareInput, Precision, Preprocess, Proof, TensorSpec
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.passports import read_passport

VERSION = "1"
# File ending → the engine that is meant where neither a passport nor the user says.
_ENGINES = {
    ".onnx": "onnxruntime",
    ".xml": "openvino",
    ".param": "ncnn",
    ".pte": "executorch",
    ".plan": "tensorrt",
    ".engine": "tensorrt",
}
ENGINES_ONLY = frozenset(_ENGINES) - {".onnx"}
"""File endings of engines; an ONNX file may be one, and may be what one is made from."""
_BESIDE = {".xml": ".bin", ".param": ".bin"}
_STORED = ("weight", "shape")  # kinds of a proof's rows that compute nothing


def run(
    file: Path,
    entry: BuildEntry | None,
    context: Context,
    *,
    preprocess: Preprocess | None = None,
    stated: Artifact | None = None,
    bare: bool = False,
) -> tuple[Artifact, bool]:
    """Take a file into the store as an engine.

    Args:
        file: An ONNX graph, or an engine's file, what belongs to it beside it (``.xml`` with its ``.bin``).
        entry: Engine and its options; if None, those of the file's passport, or the engine of its ending.
        context: Where. The engine's precision is read there, where the file does not state it.
        preprocess: How images become its input, where the file does not say.
        stated: What a bundle says of its engine; None for what the passport beside the file says.
        bare: Whether an ONNX graph may lack what its input is, as it takes noise alone.

    Returns:
        The engine, and whether the store had it.

    Raises:
        InputError: Missing, of an unknown kind, or nothing says how images become its input.
        RecipeError: An option does not fit the engine.
        EngineCrashError: Native code died on the file.
    """
    if not file.is_file():
        if not file.exists():
            raise no_such_file(file)
        raise InputError(
            f"{file}: expected a file, found a folder",
            hint="give the engine's file in it, or a folder that `deploykit pack` wrote",
        )
    passport = stated or read_passport(file)
    title = stated.name if stated else file.stem
    is_onnx = onnx_bounds.is_onnx(file)
    ending = ".onnx" if is_onnx else file.suffix.lower()
    name = entry.engine if entry else (passport.engine if passport and passport.engine else _ENGINES.get(ending))
    if name is None:
        raise InputError(
            f"{file}: expected an engine's file, found one that ends in '{file.suffix}'",
            hint=f"known: {', '.join(_ENGINES)}; for another engine's file give --engine",
        )
    engine = engines.CATALOGUE.get(name)
    given = dict(entry.options) if entry else {}
    if not given and passport is not None and passport.engine == name:
        options = codec.from_json(engine.options, json.loads(passport.options), f"engine '{name}'")
    else:
        options = codec.from_json(engine.options, given, f"engine '{name}'")
    known = preprocess or _preprocess(file, passport, is_onnx=is_onnx, bare=bare)
    if preprocess is not None:
        inputs = (
            passport.inputs if passport else onnx_file.specs(onnx_file.inputs(onnx_file.load(file))) if is_onnx else ()
        )
        _verify_fits(file, preprocess, inputs)
    bin_file = file.with_suffix(_BESIDE[ending]) if ending in _BESIDE else None
    if bin_file is not None and not bin_file.is_file():
        raise InputError(f"{bin_file}: no such file", hint=f"put it beside {file.name}: it holds the weights")
    there = context.connection.environment

    def make(folder: Path, home: str) -> Artifact:
        kept = folder / f"model{ending}"
        shutil.copyfile(file, kept)
        if bin_file is not None:
            shutil.copyfile(bin_file, kept.with_suffix(bin_file.suffix))
        if passport is not None and passport.built is not None:
            beside = codec.canonical_json({"built": passport.built, "proof": passport.proof})
            kept.with_name(kept.name + ".passport.json").write_text(beside, encoding="utf-8")
        proof = passport.proof if passport else None
        if passport is not None:
            precision, inputs, outputs = passport.precision, passport.inputs, passport.outputs
        elif is_onnx:
            model = onnx_file.load(kept)
            precision, inputs = onnx_file.precision(model), onnx_file.specs(onnx_file.inputs(model))
            outputs = onnx_file.specs(tuple(model.graph.outputs))
        else:
            proof = _proof(kept, name, options, context)
            precision, inputs, outputs = precision_of(proof), (), ()
        return Artifact(
            kind="engine",
            name=title,
            path=f"{home}/{kept.name}",
            sha256=digest_of(kept),
            size_bytes=file.stat().st_size + (bin_file.stat().st_size if bin_file else 0),
            precision=precision,
            inputs=inputs,
            outputs=outputs,
            preprocess=known,
            stage="adopt",
            parent=passport.parent if passport else "",
            engine=name,
            made_by=passport.made_by if passport else MadeBy(),
            options=codec.canonical_json(options),
            proof=proof,
            built=passport.built if passport else None,
            origin=passport.origin if passport else None,
        )

    return context.produce(
        Artifact,
        make,
        stage="adopt",
        name=f"{title}.{name}",
        inputs=(sha256_of(file), *((sha256_of(bin_file),) if bin_file else ())),
        options=[name, options, known, title, passport],
        versions=(("stage", VERSION), *engine.versions_in(there.versions)),
    )


def files_of(file: Path) -> tuple[Path, ...]:
    """List the files of an engine that somebody gave: the one given, and what holds its weights beside it."""
    beside = _BESIDE.get(file.suffix.lower())
    return (file, file.with_suffix(beside)) if beside else (file,)


def precision_of(proof: Proof) -> Precision:
    """Return the precision of an engine by what it computes in: int8 where anything is, else the most frequent type.

    Raises:
        InputError: The engine does not tell.
    """
    found: dict[Precision, int] = dict.fromkeys(get_args(Precision), 0)
    for precision in found:
        found[precision] = sum(
            n for kind, dtype, n in proof.counts or proof.network if dtype == precision and kind not in _STORED
        )
    if not any(found.values()):
        raise InputError("the engine does not tell which precision it computes in, and has no passport beside it")
    return "int8" if found["int8"] else max(found, key=lambda precision: found[precision])


def _verify_fits(file: Path, stated: Preprocess, inputs: tuple[TensorSpec, ...]) -> None:
    """Refuse images of another size than a file's input, where the file says it; the axes of channels may be any."""
    for spec in inputs[:1]:
        sides = [side for side in spec.shape[1:] if isinstance(side, int)]
        if len(sides) == 3 and (stated.height, stated.width) not in itertools.pairwise(sides):
            raise InputError(
                f"{file}: images of {stated.height}x{stated.width} px are stated, its input is {list(spec.shape)}",
                hint="--input with the height and width of its input",
            )


def _preprocess(file: Path, passport: Artifact | None, *, is_onnx: bool, bare: bool) -> Preprocess | BareInput:
    found: Preprocess | BareInput | None = passport.preprocess if passport else None
    if found is None and is_onnx:
        model = onnx_file.load(file)
        found = onnx_file.preprocess(model)
        shapes = [spec.shape[1:] for spec in onnx_file.specs(onnx_file.inputs(model))]
        if found is None and bare and len(shapes) == 1 and all(isinstance(side, int) for side in shapes[0]):
            found = BareInput(shape=tuple(int(side) for side in shapes[0]))
    if isinstance(found, BareInput) and bare:
        return found
    if bare and not isinstance(found, Preprocess):
        raise InputError(
            f"{file}: nothing says which input it takes",
            hint="put its passport beside it (FILE.passport.json), or bench the ONNX file, of one fixed size, that it "
            "was built from",
        )
    if not isinstance(found, Preprocess):
        raise InputError(
            f"{file}: nothing says how an image becomes its input",
            hint="give --input, --mean and --std, e.g. --input 28x28 --mean 0.286 --std 0.353",
        )
    return found


def _proof(file: Path, engine: str, options: object, context: Context) -> Proof:
    with context.connection.worker() as worker:
        path = context.connection.send(file, keep=True)
        answer = worker.ask("prove", str(file), engine=engine, path=path, options=codec.to_json(options))
    return codec.from_json(Proof, answer["proof"])
