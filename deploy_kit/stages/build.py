"""Typed ONNX → engine, in a worker process; its precision is proved from the engine itself before it is kept."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_kit import engines
from deploy_kit.base.errors import BuildError, DeviceError
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.base.whole_files import digest_of, parts_of
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.graph import lint, onnx_file, passes, sums_of_two
from deploy_kit.recipe import BuildEntry, targets
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, BuiltFor, Device, Proof
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.measurements import Environment

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = "2"
_HALF = ("fp16", "bf16")
_SUMS = "sums of integers"
_WIDE = (
    "8-bit weights may saturate on this processor, which has no VNNI: quantize for it (--int8 does here), or run the "
    "graph in ONNX Runtime, which adds in 32 bits"
)


def run(quantized: Artifact, entry: BuildEntry, context: Context) -> tuple[Artifact, bool]:
    """Build one engine from one graph.

    Args:
        quantized: A graph that carries its precision, which may be float32.
        entry: Names the engine and its options.
        context: Where.

    Returns:
        The engine, and whether the store had it.

    Raises:
        UnknownNameError: No engine has this name.
        RecipeError: An option does not fit the engine.
        DeviceError: The engine cannot compute where the device does.
        BuildError: A lint rule of the engine finds an error, the engine's parser or builder refused, or the engine is
            not of the graph's precision.
        EngineCrashError: Native code died.
    """
    connection = context.connection
    engine = engines.CATALOGUE.get(entry.engine)
    options = codec.from_json(engine.options, placed(entry, connection.device), f"engine '{entry.engine}'")
    there = connection.environment
    layout = targets.find_target(targets.target_of(entry.engine)).grids if quantized.precision == "int8" else ()
    versions, machine = engine.versions_in(there.versions), machine_identity(there)

    def make(folder: Path, home: str) -> Artifact:
        target = lint.LintTarget(engine=entry.engine, version=engine.version_in(there.versions))
        context.report("build", f"{quantized.name} · {entry.engine}")
        with temporary_folder() as aside:
            given = context.store.path(quantized)
            source, rewritten = laid_out(given, layout, target, aside)
            verify_fit(source, target, named=given)
            with connection.worker() as worker, connection.outbox(folder) as outbox:
                answer = worker.ask(
                    "build",
                    str(source),
                    on_progress=context.on_progress,
                    engine=entry.engine,
                    onnx=connection.send(source, keep=True),
                    folder=outbox,
                    options=codec.to_json(options),
                )
        proof = codec.from_json(Proof, answer["proof"])
        verify_precision(quantized, entry.engine, proof, strict=engine.typed)
        file = folder / engine.file_name
        return Artifact(
            kind="engine",
            name=quantized.name,
            path=f"{home}/{engine.file_name}",
            sha256=digest_of(file),
            size_bytes=sum(part.stat().st_size for part in parts_of(file)),
            precision=quantized.precision,
            inputs=quantized.inputs,
            outputs=quantized.outputs,
            preprocess=quantized.preprocess,
            stage="build",
            parent=quantized.sha256,
            engine=entry.engine,
            made_by=MadeBy(
                passes=", ".join(rewritten),
                slimmed=quantized.made_by.slimmed,
                notes=((_SUMS, _WIDE),) if engine.saturates and _overflows(given, there.isa) else (),
                versions=versions,
                machine=machine,
            ),
            options=codec.canonical_json(options),
            proof=proof,
            build_s=float(answer["build_s"]),
            built=None if answer["built"] is None else codec.from_json(BuiltFor, answer["built"]),
        )

    return context.produce(
        Artifact,
        make,
        stage="build",
        name=f"{quantized.name}.{entry.engine}",
        inputs=(quantized.sha256,),
        options=[entry.engine, options, *layout],
        versions=(("stage", VERSION), *versions, *machine),
    )


def laid_out(
    source: Path, layout: tuple[str, ...], target: lint.LintTarget, folder: Path
) -> tuple[Path, tuple[str, ...]]:
    """Write a graph's Q/DQ pairs as a target takes them; a rewrite that the target's rules refuse is left out.

    Args:
        source: The graph, which stays.
        layout: Names of exact passes.
        target: The target.
        folder: For the graph as it is rewritten.

    Returns:
        The file to build, the source where no pass changed it, and the names of the passes that did.
    """
    if not layout:
        return source, ()
    model, fired = onnx_file.load(source), list[str]()
    for name in layout:
        changed = onnx_file.reread(model)
        if not passes.CATALOGUE.get(name).apply(changed).fired:
            continue
        changed = onnx_file.reread(changed)
        if len(_errors(changed, target)) <= len(_errors(model, target)):
            model, fired = changed, [*fired, name]
    if not fired:
        return source, ()
    passes.apply_passes(model, ("remove_unused",))
    onnx_file.save(model, folder / source.name)
    return folder / source.name, tuple(fired)


def _errors(model: "ir.Model", target: lint.LintTarget) -> list[lint.LintFinding]:
    return [found for found in lint.lint_model(model, target) if found.level == "error"]


def verify_fit(onnx_file: Path, target: lint.LintTarget, *, named: Path) -> None:
    """Refuse a graph that the engine is known to refuse, to crash on or to get wrong, before it sees it.

    Args:
        onnx_file: The graph as the engine would get it.
        target: The engine.
        named: The graph that it was rewritten from, for the message.

    Raises:
        BuildError: The first error that the rules of the target find; the hint is its cure.
    """
    errors = [found for found in lint.lint_file(onnx_file, target) if found.level == "error"]
    if errors:
        further = f" (and {len(errors) - 1} more: deploykit lint --target {target.engine})" if len(errors) > 1 else ""
        raise BuildError(f"{named}: {errors[0]}{further}", hint=errors[0].cure)


def misplaced(entry: BuildEntry, device: Device) -> str:
    """Explain that an engine cannot compute where the device does; empty if it can, or the entry says another place."""
    place = engines.CATALOGUE.get(entry.engine).place
    unsaid = device.accelerator == links.LOCAL.accelerator or "device" in entry.options
    if unsaid or place is None or place(device.accelerator) is not None:
        return ""
    return f"'{device.name}' computes on {device.accelerator}, which {entry.engine} cannot"


def placed(entry: BuildEntry, device: Device) -> dict[str, Any]:
    """Return an entry's options, with what puts the engine on the device's accelerator where the entry says nothing.

    Raises:
        DeviceError: The engine cannot compute there.
    """
    engine = engines.CATALOGUE.get(entry.engine)
    why = misplaced(entry, device)
    if why:
        has_choice = any(field.name == "device" for field in dataclasses.fields(engine.options))
        on_cpu = f", or compute on its processor: deploykit build --engine {entry.engine} -o device=cpu"
        raise DeviceError(why, hint=f"take another engine{on_cpu if has_choice else ''}")
    if device.accelerator == links.LOCAL.accelerator or "device" in entry.options or engine.place is None:
        return dict(entry.options)
    return {**(engine.place(device.accelerator) or {}), **entry.options}


def machine_identity(there: Environment) -> tuple[tuple[str, str], ...]:
    """Return what of a machine decides an engine that is built on it, as (what, value) pairs."""
    machine = (("cpu", there.cpu), ("isa", " ".join(there.isa)), ("gpu", there.gpu), ("l4t", there.l4t))
    return (("machine", there.host.split()[-1]), *(fact for fact in machine if fact[1]))


def widened(engine: Artifact) -> str:
    """Explain that an engine of a half-precision graph computes in something else; empty if it does not."""
    if engine.proof is None or engine.precision not in _HALF or not engine.proof.counts:
        return ""
    if engine.proof.share(engine.precision) >= 0.5:
        return ""
    dtypes = ", ".join(sorted({dtype for _, dtype, _ in engine.proof.counts}))
    return f"{engine.label} stores {engine.precision} and computes in {dtypes} on this machine"


def saturating(engine: Artifact) -> str:
    """Say that an engine's sums of integers may saturate where it was built; empty if they cannot."""
    found = dict(engine.made_by.notes).get(_SUMS)
    return f"{engine.label}: {found}" if found else ""


def _overflows(graph: Path, isa: tuple[str, ...]) -> bool:
    """Return whether two products of a graph's stored weights and uint8 activations may not fit into 16 bits."""
    return targets.narrow_sums(isa) and not sums_of_two.fit(onnx_file.load(graph))


def verify_precision(quantized: Artifact, engine: str, proof: Proof, *, strict: bool) -> None:
    """Refuse an engine that fell back to another precision in silence.

    Args:
        quantized: The graph, with the precision it carries.
        engine: Name of the engine, for the message.
        proof: What the engine computes in.
        strict: Also hold half precision; CPU runtimes may widen it, which the proof then shows.

    Raises:
        BuildError: int8 without one int8 convolution (where there are none: operation), or half precision with less
            than half of it.
    """
    counts = proof.counts or proof.network
    if not counts:
        return
    said = ", ".join(f"{n} {op} {dtype}" for op, dtype, n in counts)
    kinds = {kind for kind, _, _ in counts}
    computing = {"Conv"} & kinds or kinds - {"weight", "shape"}  # weights alone may be stored small and computed wide
    if quantized.precision == "int8" and not any(dtype == "int8" and kind in computing for kind, dtype, _ in counts):
        what = "no convolution" if "Conv" in kinds else "nothing"
        raise BuildError(
            f"'{quantized.name}' carries int8, and {engine} computes {what} in it ({said})",
            hint="the engine fell back to float: quantize the float32 graph for this engine, or build that graph",
        )
    share = Proof(source="", counts=counts).share(
        quantized.precision, of=next((kind for kind in ("activation", "Conv") if kind in kinds), None)
    )
    if strict and quantized.precision in _HALF and share < 0.5:
        raise BuildError(
            f"'{quantized.name}' carries {quantized.precision}, and {engine} holds {share:.0%} of it ({said})"
        )
