"""What can work here, what the rest lack, and the one line that installs it. Also: is this recipe possible at all?"""

import math
from dataclasses import dataclass, replace

from deploy_kit import engines
from deploy_kit.base.errors import DeviceError, EngineCrashError, MissingPackageError
from deploy_kit.base.lazy import install_line, present
from deploy_kit.base.versions import INTEGER_MAXIMUM, lacks_integer_maximum
from deploy_kit.devices import links
from deploy_kit.devices.links import Connection
from deploy_kit.graph import passes
from deploy_kit.machine import environment
from deploy_kit.measure import race
from deploy_kit.quantization import schemes
from deploy_kit.recipe import Recipe, targets
from deploy_kit.recipe.compatibility.judge import CompatibilityVerdict, MachineFacts, driver_of, judge_machine
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import Environment


@dataclass(frozen=True, kw_only=True)
class DoctorFinding:
    """One thing looked at.

    Attributes:
        kind: ``engine`` or ``scheme``.
        name: Name of the engine or scheme.
        builds: Whether it can be made here.
        runs: Whether its result can be run here; None for schemes.
        detail: Version, or what is wrong.
        fix: One line that mends it; empty if nothing is to mend or nothing helps.
    """

    kind: str
    name: str
    builds: bool
    runs: bool | None
    detail: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """The machine, and what was found on it.

    Attributes:
        environment: The machine.
        findings: Every engine and scheme.
        verdicts: What its versions do not allow, by `compatibility`.
        remarks: What spoils numbers there.
    """

    environment: Environment
    findings: tuple[DoctorFinding, ...]
    verdicts: tuple[CompatibilityVerdict, ...]
    remarks: tuple[str, ...]


def examine(connection: Connection, plan: Artifact | None = None) -> DoctorReport:
    """Look at every engine and scheme of the catalogues: engines on the device, schemes here, where they work.

    Args:
        connection: To the device.
        plan: An engine that is to be loaded there.
    """
    found = probe(connection, plan)
    return replace(found, findings=(*found.findings, *(_scheme(name) for name in schemes.CATALOGUE.names())))


def facts_of(machine: Environment, plan: Artifact | None = None) -> MachineFacts:
    """Pick what decides whether versions fit; the CUDA of a TensorRT from a package index is in its package's name."""
    versions = dict(machine.versions)
    cuda = next((name.removeprefix("tensorrt-cu") for name in versions if name.startswith("tensorrt-cu")), "")
    if machine.tensorrt:  # the system's own, which no index of packages knows
        versions.setdefault("tensorrt", machine.tensorrt)
    return MachineFacts(
        board=machine.board,
        l4t=machine.l4t,
        sm=machine.cuda_capability,
        driver=driver_of(machine.gpu),
        cuda=cuda,
        python=versions.get("python", ""),
        versions=versions,
        plan=_built_by(plan) if plan is not None and plan.built is not None else ("", ""),
        plan_outlives=plan is not None and plan.built is not None and "version" in plan.built.compatible,
    )


def probe(connection: Connection, plan: Artifact | None = None) -> DoctorReport:
    """Look at a device: what it is, and which engines of the catalogue can run there; `plan` as in `examine`."""
    there = connection.environment
    rows = tuple(_engine(name, connection, there) for name in engines.CATALOGUE.names())
    return DoctorReport(
        environment=there, findings=rows, verdicts=judge_machine(facts_of(there, plan)), remarks=_remarks(there)
    )


def require(recipe: Recipe, connection: Connection) -> None:
    """Refuse a recipe that cannot work here and on the device, before any work: names, options, packages.

    Raises:
        DeviceError: The device lacks the package of an engine, and the entry is not marked optional.
        UnknownNameError: A pass, scheme, engine or scenario does not exist.
        RecipeError: An option does not fit.
        MissingPackageError: A package is absent, and the entry is not marked optional.
    """
    verify_names(recipe)
    for variant in recipe.quantize.variants:
        _require_package(f"scheme '{variant.scheme}'", scheme_package(variant.scheme), optional=variant.optional)
    for entry in recipe.build.engines:
        if not entry.optional:
            require_engine(entry.engine, connection)


def verify_names(recipe: Recipe) -> None:
    """Refuse a recipe that names what does not exist, on whatever machine.

    Raises:
        UnknownNameError: A pass, scheme, engine or scenario does not exist.
        RecipeError: An option does not fit.
    """
    race.verify_bench_table(recipe.bench)
    passes.resolve_names(recipe.simplify.passes)
    for variant in recipe.quantize.variants:
        if present(scheme_package(variant.scheme)):
            options = schemes.CATALOGUE.get(variant.scheme).options
            read = codec.from_json(options, variant.options, f"recipe: variant '{variant.name}': options")
            for name in getattr(read, "passes", ()):
                passes.CATALOGUE.get(name)
    for entry in recipe.build.engines:
        engine = engines.CATALOGUE.get(entry.engine)
        codec.from_json(engine.options, entry.options, f"recipe: engine '{entry.engine}': options")


def require_engine(name: str, connection: Connection) -> None:
    """Refuse an engine whose package is missing where it would be built.

    Raises:
        MissingPackageError: It is missing here.
        DeviceError: It is missing on the device.
    """
    package = engines.CATALOGUE.get(name).package
    fix = connection.lacks(package)
    if not fix:
        return
    words = f"engine '{name}' needs the package '{package}', which is not installed"
    if connection.device.link == links.LOCAL.link:
        raise MissingPackageError(f"{words} here", hint=fix)
    raise DeviceError(f"{words} on '{connection.device.name}'", hint=f"on {connection.device.name}: {fix}")


def scheme_package(name: str) -> str:
    """Return the package that a scheme needs.

    Raises:
        UnknownNameError: No scheme has this name.
    """
    return schemes.CATALOGUE.get(name).package


def missing(package: str) -> str:
    """Explain that a package is missing and how to get it; empty if it is there."""
    return "" if present(package) else f"package '{package}' is not installed ({install_line(package)})"


def missing_there(package: str, connection: Connection) -> str:
    """Explain the same of a package on the device."""
    fix, where = (
        connection.lacks(package),
        "" if connection.device == links.LOCAL else f" on '{connection.device.name}'",
    )
    return f"package '{package}' is not installed{where} ({fix})" if fix else ""


def _built_by(plan: Artifact) -> tuple[str, str]:
    library = str(plan.engine)
    return library, next((v for name, v in plan.made_by.versions if name.replace("-", "_") == library), "")


def _require_package(who: str, package: str, *, optional: bool) -> None:
    if not optional and not present(package):
        raise MissingPackageError(
            f"{who} needs the package '{package}', which is not installed here", hint=install_line(package)
        )


def _engine(name: str, connection: Connection, there: Environment) -> DoctorFinding:
    engine = engines.CATALOGUE.get(name)
    missing = next((package for package in ("numpy", engine.package) if connection.lacks(package)), None)
    if missing is not None:
        fix, detail = connection.lacks(missing), f"package '{missing}' is not installed"
        return DoctorFinding(kind="engine", name=name, builds=False, runs=False, detail=detail, fix=fix)
    detail = engine.version_in(there.versions)
    try:
        with connection.worker() as worker:
            why = str(worker.ask("why_unavailable", name, engine=name)["why"])
    except EngineCrashError as error:
        return DoctorFinding(kind="engine", name=name, builds=False, runs=False, detail=str(error), fix=error.hint)
    if not why:
        return DoctorFinding(kind="engine", name=name, builds=True, runs=True, detail=detail)
    return DoctorFinding(kind="engine", name=name, builds=engine.cross_builds, runs=False, detail=f"{detail}; {why}")


def _scheme(name: str) -> DoctorFinding:
    package = scheme_package(name)
    lack = missing(package)
    detail = lack or environment.library_version(package) or environment.library_version(package.replace("_", "-"))
    fix = install_line(package) if lack else ""
    return DoctorFinding(kind="scheme", name=name, builds=not lack, runs=None, detail=detail, fix=fix)


def _arm_remark(isa: tuple[str, ...]) -> str:
    """Say what an ARM processor multiplies 8-bit integers by (docs/int8.md, section ARM), and which engines gain."""
    by = "UMMLA (i8mm)" if "i8mm" in isa else "UDOT (asimddp)" if "asimddp" in isa else ""
    if not by:
        return (
            "this processor has neither asimddp nor i8mm: int8 products are SMLAL's, and INT8 gains less on any engine"
        )
    more = "" if "i8mm" in isa else "; i8mm would do more at once"
    return f"int8 products are {by} here, in onnxruntime and executorch; ncnn has no INT8 here and gains nothing{more}"


def _remarks(here: Environment) -> tuple[str, ...]:
    remarks = []
    if targets.narrow_sums(here.isa):
        remarks.append(
            "this processor has no VNNI: int8 sums can saturate, so --int8 keeps neighbouring weights small enough here"
        )
    if here.host.endswith("aarch64"):
        remarks.append(_arm_remark(here.isa))
    runtime = dict(here.versions).get("onnxruntime", "")
    if lacks_integer_maximum(runtime):
        remarks.append(
            f"onnxruntime {runtime} has no maximum of integers ({INTEGER_MAXIMUM} has), "
            "so --int8 takes the slower depthwise form"
        )
    if here.governor and here.governor != "performance":
        remarks.append(f"the clock governor is '{here.governor}': latencies will wander")
    if here.load > here.cores / 2:
        remarks.append(f"the machine is busy (load {here.load:g} on {here.cores} cores): benchmark when it is quiet")
    if here.cpu_limit and here.cpu_limit < here.cores:
        remarks.append(
            f"the container may use the time of {here.cpu_limit:g} of {here.cores} cores: engines take "
            f"{math.ceil(here.cpu_limit)} threads here, and more would be held back"
        )
    if here.memory_limit_gib:
        remarks.append(f"the container may use {here.memory_limit_gib:g} of {here.memory_gib:g} GiB of memory")
    if here.virtual:
        remarks.append("this is a virtual machine: absolute latencies can move between runs, ratios within one hold")
    return tuple(remarks)
