"""The passport beside a plan: what the plan fits and computes in. It is read before the library loads the plan.

``model.plan.passport.json`` contains the parts ``built`` and ``proof`` of the artifact's record. The copy that a
command writes beside ``--out`` contains the whole record, and is read the same way.
"""

import json
from pathlib import Path

from deploy_kit.base.errors import BuildError, DeviceError, RecipeError
from deploy_kit.base.versions import loads_compatible
from deploy_kit.base.whole_files import sha256_of, write_whole
from deploy_kit.engines import _cuda
from deploy_kit.records import codec
from deploy_kit.records.artifacts import BuiltFor, Proof


def passport_path(plan_file: Path) -> Path:
    """Return the path of a plan's passport."""
    return plan_file.with_name(plan_file.name + ".passport.json")


def write_plan_passport(plan_file: Path, built: BuiltFor, proof: Proof) -> None:
    """Write the passport of a plan."""
    write_whole(passport_path(plan_file), codec.canonical_json({"built": built, "proof": proof}))


def read_plan_passport(plan_file: Path) -> tuple[BuiltFor, Proof] | None:
    """Read the passport of a plan; None where it has none.

    Raises:
        BuildError: The plan is missing or has changed since it was built, or the passport cannot be read.
    """
    if not plan_file.is_file():
        raise BuildError(f"{plan_file}: no such file", hint="build it again")
    path = passport_path(plan_file)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        built, proof = codec.from_json(BuiltFor, data["built"]), codec.from_json(Proof, data["proof"])
    except (ValueError, KeyError, TypeError, RecipeError) as error:
        raise BuildError(f"{path}: cannot be read as a passport: {error}", hint="build the plan again") from error
    sha256 = sha256_of(plan_file)
    if sha256 != built.engine_sha256:
        raise BuildError(
            f"{plan_file}: changed or cut off since it was built: expected sha256 {built.engine_sha256[:12]}…, "
            f"found {sha256[:12]}…",
            hint=rebuild_hint(built.package),
        )
    return built, proof


def verify_plan(plan_file: Path, package: str, version: str) -> None:
    """Refuse a plan that does not fit this machine, with a message that the library itself would not give.

    Args:
        plan_file: Plan to load; one without a passport is left to the library to judge.
        package: Library that is to load it.
        version: Version of that library on this machine.

    Raises:
        BuildError: The plan is damaged.
        DeviceError: The plan was built for another version or GPU.
    """
    known = read_plan_passport(plan_file)
    if known is None:
        return
    built, here = known[0], _cuda.device_or_none()
    later_version = "version" in built.compatible and loads_compatible(built.version, version)
    right_version = built.version == version or later_version
    right_gpu = here is None or fits_capability(built, here.capability)
    if built.package == package and right_version and right_gpu:
        return
    machine = " / ".join([f"{package} {version}", *([_sm(here.capability)] if here else [])])
    made_for = ", ".join(map(_sm, built.capabilities))
    raise DeviceError(
        f"{plan_file}: built with {built.package} {built.version} for {made_for}; this machine has {machine}",
        hint=rebuild_hint(package, here.capability if here else ""),
    )


def fits_capability(built: BuiltFor, capability: str) -> bool:
    """Return whether a plan may be loaded on a GPU of this compute capability."""
    if "ampere+" in built.compatible:
        return float(capability) >= 8
    return capability in built.capabilities


def rebuild_hint(package: str, capability: str = "") -> str:
    """Return the hint with the command that builds a plan again."""
    target = f" --compute-capability {capability}" if capability and package == "tensorrt_rtx" else ""
    return f"build it again: deploykit build --engine {package}{target}"


def _sm(capability: str) -> str:
    return f"sm_{capability.replace('.', '')}"
