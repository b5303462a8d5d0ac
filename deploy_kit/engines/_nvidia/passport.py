"""The passport beside a plan: what it fits and what it computes in. Read before any library sees the plan.

``model.plan.passport.json`` holds the parts ``built`` and ``proof`` of the artifact's record; the copy that a command
writes beside ``--out`` is the whole record, and reads the same.
"""

import json
from pathlib import Path

from deploy_kit.base.errors import BuildError, DeviceError, RecipeError
from deploy_kit.base.versions import loads_compatible
from deploy_kit.engines import _cuda
from deploy_kit.records import codec
from deploy_kit.records.artifacts import BuiltFor, Proof
from deploy_kit.store import sha256_of, write_whole


def passport_path(plan_file: Path) -> Path:
    """Give the passport's path."""
    return plan_file.with_name(plan_file.name + ".passport.json")


def write_passport(plan_file: Path, built: BuiltFor, proof: Proof) -> None:
    """Write the passport of a plan."""
    write_whole(passport_path(plan_file), codec.canonical_json({"built": built, "proof": proof}))


def read_passport(plan_file: Path) -> tuple[BuiltFor, Proof] | None:
    """Read the passport of a plan; None where it has none.

    Raises:
        BuildError: The plan is missing, is not the one the passport is of, or the passport cannot be read.
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
    found = sha256_of(plan_file)
    if found != built.engine_sha256:
        raise BuildError(
            f"{plan_file}: changed or cut off since it was built: expected sha256 {built.engine_sha256[:12]}…, "
            f"found {found[:12]}…",
            hint=rebuild_hint(built.package),
        )
    return built, proof


def verify_plan(plan_file: Path, package: str, version: str) -> None:
    """Refuse a plan that does not fit this machine, in words, before TensorRT does in codes.

    Args:
        plan_file: With or without a passport; without one there is nothing to hold it against.
        package: That is to load it.
        version: Of the package here.

    Raises:
        BuildError: The plan is damaged.
        DeviceError: It was built for another version or GPU.
    """
    read_in = read_passport(plan_file)
    if read_in is None:
        return
    built, here = read_in[0], _cuda.device_or_none()
    outlives = "version" in built.compatible and loads_compatible(built.version, version)
    right_version = built.version == version or outlives
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
    """Whether a plan may be loaded on a GPU of this compute capability."""
    if "ampere+" in built.compatible:
        return float(capability) >= 8
    return capability in built.capabilities


def rebuild_hint(package: str, capability: str = "") -> str:
    """Give the command that builds a plan again."""
    target = f" --compute-capability {capability}" if capability and package == "tensorrt_rtx" else ""
    return f"build it again: deploykit build --engine {package}{target}"


def _sm(capability: str) -> str:
    return f"sm_{capability.replace('.', '')}"
