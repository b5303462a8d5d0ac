"""Facts of a machine → what will not work there, and what to do about it. Pure: the facts may be recorded ones."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from deploy_kit.base.versions import is_older, loads_compatible, version_numbers
from deploy_kit.recipe.compatibility import (
    JetPack,
    JetsonModule,
    capability,
    compatibility_table,
    jetpack,
    module,
    starts_with,
    within,
)

_DRIVER = re.compile(r"Kernel Module\s+(?:for\s+\S+\s+)?(\d+(?:\.\d+)+)")
_PYTHON = "3.10"  # pyproject.toml: requires-python
_OLDEST_TENSORRT = "10"  # pyproject.toml: the extra 'tensorrt'
_EXACT = (
    "TensorRT, Support Policies: versions must match across major, minor, patch and build, "
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/support-policies.html"
)
_NEWER = (
    "TensorRT, Support Matrix, Engine Portability: version-compatible plans run in later versions, "
    "https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/getting-started/support-matrix.html"
)
_OLDEST_CUDA = "12"  # the oldest CUDA that has a package tensorrt-cuN of every TensorRT 10


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """Facts of a machine; those that are not known are empty.

    Attributes:
        board: Model in the device tree, e.g. ``NVIDIA Jetson AGX Orin Developer Kit``.
        l4t: Jetson Linux release, e.g. ``36.4.3``.
        sm: Compute capability, e.g. ``8.9``; a Jetson's follows from its board.
        driver: Version of the GPU's driver, e.g. ``550.54.15``.
        cuda: Version of the toolkit or runtime, e.g. ``12.6``.
        python: Version of Python, e.g. ``3.10.12``.
        versions: Distribution → version, e.g. ``{"tensorrt": "10.3.0"}``.
        plan: Library and version that built the plan to be loaded there, e.g. ``("tensorrt", "10.3.0")``; empty where
            the engine is not bound to the version that built it.
        plan_outlives: Whether the plan was built version-compatible.
    """

    board: str = ""
    l4t: str = ""
    sm: str = ""
    driver: str = ""
    cuda: str = ""
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    plan: tuple[str, str] = ("", "")
    plan_outlives: bool = False

    @property
    def tensorrt(self) -> str:
        """Version of TensorRT; empty if it is not known."""
        return self.versions.get("tensorrt", "")


@dataclass(frozen=True, kw_only=True)
class CompatibilityVerdict:
    """One verdict on a machine.

    Attributes:
        code: Code of the question.
        level: ``error`` will not work, ``warning`` may not, ``note`` is good to know.
        text: The finding.
        fix: What to do; empty if there is nothing to do.
        source: Source of the fact.
    """

    code: str
    level: Literal["error", "warning", "note"]
    text: str
    fix: str
    source: str


def driver_of(text: str) -> str:
    """Read the driver from ``/proc/driver/nvidia/version``: ``NVRM version: … Kernel Module  550.54.15 …``."""
    match = _DRIVER.search(text)
    return match[1] if match else ""


def judge_machine(facts: MachineFacts) -> tuple[CompatibilityVerdict, ...]:
    """Compare the facts with every table that they touch; what is not known is not judged."""
    row, board = jetpack(facts.l4t), module(facts.board)
    sm = board.sm if board is not None else facts.sm
    questions = (
        _jetpack(facts, row, board),
        _tensorrt_on_jetson(facts, row, board),
        _dla(facts, row, board),
        _capability(facts, sm),
        _driver(facts),
        _python(facts, row),
        _known_bad(facts, sm),
        _plan(facts),
    )
    return tuple(verdict for question in questions for verdict in question)


def _jetpack(facts: MachineFacts, row: JetPack | None, board: JetsonModule | None) -> Iterator[CompatibilityVerdict]:
    if facts.l4t and row is None:
        yield CompatibilityVerdict(
            code="DEV001", level="warning",
            text=f"L4T {facts.l4t} is not in the table: nothing is known of its JetPack",
            fix="look up its JetPack on developer.nvidia.com/embedded/jetpack-archive", source="compatibility.yaml",
        )  # fmt: skip
    if row is None:
        return
    parts = (("TensorRT", row.tensorrt), ("CUDA", row.cuda), ("Python", row.python))
    ships = ", ".join(f"{what} {version}" for what, version in parts if version)
    yield CompatibilityVerdict(
        code="DEV002", level="note", fix="", source=row.source,
        text=f"JetPack {row.jetpack} (L4T {facts.l4t}) ships {ships}",
    )  # fmt: skip
    if board is not None and board.family not in row.families:
        yield CompatibilityVerdict(
            code="DEV003", level="error", source=row.source,
            text=f"JetPack {row.jetpack} does not support {board.module}, only {' and '.join(row.families)}",
            fix=f"flash a JetPack that supports {board.module}",
        )  # fmt: skip
    other = bool(facts.tensorrt) and bool(row.tensorrt) and not starts_with(facts.tensorrt, row.tensorrt)
    if other and is_older(facts.tensorrt, "11"):  # 11 has a question of its own
        yield CompatibilityVerdict(
            code="DEV004", level="warning", source=row.source,
            text=f"TensorRT {facts.tensorrt} is installed, and JetPack {row.jetpack} ships {row.tensorrt}",
            fix="use the system's own: python3 -m venv --system-site-packages, and no pip install tensorrt",
        )  # fmt: skip


def _tensorrt_on_jetson(
    facts: MachineFacts, row: JetPack | None, board: JetsonModule | None
) -> Iterator[CompatibilityVerdict]:
    if row is None or not facts.tensorrt:
        return
    for rule in compatibility_table().tensorrt_on_jetson:
        if not within(facts.tensorrt, rule.since, rule.until):
            continue
        known = board is None or board.family in rule.families
        fits = known and bool(rule.jetpack) and not _before(row, rule.jetpack)
        if fits and not rule.note:
            continue
        needs = (
            f"needs JetPack {rule.jetpack} on {' or '.join(rule.families)}" if rule.jetpack else "supports no JetPack"
        )
        yield CompatibilityVerdict(
            code="DEV005", level="warning" if fits else "error", source=rule.source,
            text=f"TensorRT {facts.tensorrt} {needs}, here is {row.jetpack}" + (f" ({rule.note})" if rule.note else ""),
            fix=f"stay with the TensorRT {row.tensorrt or '10.x'} of JetPack {row.jetpack}",
        )  # fmt: skip


def _dla(facts: MachineFacts, row: JetPack | None, board: JetsonModule | None) -> Iterator[CompatibilityVerdict]:
    if board is None:
        return
    if not board.dla:
        yield CompatibilityVerdict(
            code="DEV006", level="note", text=f"{board.module} has no DLA", fix="", source=board.source
        )
        return
    version = facts.tensorrt or (row.tensorrt if row is not None else "")
    for rule in compatibility_table().dla:
        if not within(version, rule.since, rule.until):
            continue
        early = row is not None and _before(row, rule.jetpack)
        there = board.module in rule.modules and not early
        yield CompatibilityVerdict(
            code="DEV006", level="note", fix="" if there else "build for the GPU", source=rule.source,
            text=f"TensorRT {version} {'drives' if there else 'does not drive'} the DLA of {board.module}",
        )  # fmt: skip


def _capability(facts: MachineFacts, sm: str) -> Iterator[CompatibilityVerdict]:
    row = capability(sm)
    if row is None:
        return
    if row.last and facts.tensorrt and is_older(row.last, facts.tensorrt):
        yield CompatibilityVerdict(
            code="DEV007", level="error", source=row.source,
            text=f"TensorRT {facts.tensorrt} does not support compute capability {sm} ({row.architecture}); "
            f"{row.last} was the last",
            fix="take the onnxruntime engine"
            + ("" if is_older(row.last, _OLDEST_TENSORRT) else f", or pip install 'tensorrt=={row.last}.*'"),
        )  # fmt: skip
    if not row.precisions:
        return
    lacking = [name for name in ("fp16", "bf16", "fp8", "int8") if name not in row.precisions]
    without = f", not in {', '.join(lacking)}" if lacking else ""
    yield CompatibilityVerdict(
        code="DEV008", level="note", fix="", source=row.source,
        text=f"compute capability {sm} ({row.architecture}) computes in {', '.join(row.precisions)}{without}",
    )  # fmt: skip


def _driver(facts: MachineFacts) -> Iterator[CompatibilityVerdict]:
    """Judge the driver of a PC; that of a Jetson comes with its L4T and has other version numbers."""
    if facts.l4t or not facts.cuda or not facts.driver:
        return
    for row in compatibility_table().driver:
        if starts_with(facts.cuda, row.cuda) and is_older(facts.driver, row.driver):
            wheels = [
                f"-cu{other.cuda}"
                for other in compatibility_table().driver
                if not is_older(facts.driver, other.driver) and not is_older(other.cuda, _OLDEST_CUDA)
            ]
            yield CompatibilityVerdict(
                code="DEV009", level="error", source=row.source,
                text=f"driver {facts.driver} is too old for CUDA {facts.cuda}, which needs {row.driver}",
                fix=f"update the driver to {row.driver} or later"
                + (f", or take packages for an older CUDA: pip install tensorrt{wheels[0]}" if wheels else ""),
            )  # fmt: skip


def _python(facts: MachineFacts, row: JetPack | None) -> Iterator[CompatibilityVerdict]:
    version = facts.python or (row.python if row is not None else "")
    if is_older(version, _PYTHON):
        whose = f"JetPack {row.jetpack}'s Python" if row is not None and not facts.python else "Python"
        yield CompatibilityVerdict(
            code="DEV010", level="error", source=row.source if row is not None else "pyproject.toml",
            text=f"{whose} {version} is older than {_PYTHON}, which deploykit's worker needs",
            fix=f"install Python {_PYTHON} or later" if row is None else "flash JetPack 6 or later; Xavier has none",
        )  # fmt: skip


def _known_bad(facts: MachineFacts, sm: str) -> Iterator[CompatibilityVerdict]:
    for row in compatibility_table().known_bad:
        version = facts.versions.get(row.library, "")
        if within(version, row.since, row.until) and (not row.sm or row.sm == sm):
            yield CompatibilityVerdict(
                code="DEV011", level="warning", source=row.source, fix=row.workaround,
                text=f"{row.library} {version}: {row.what}",
            )  # fmt: skip


def _plan(facts: MachineFacts) -> Iterator[CompatibilityVerdict]:
    library, built = facts.plan
    here = facts.versions.get(library, "")
    if not built or not here or version_numbers(built) == version_numbers(here):
        return
    if facts.plan_outlives and loads_compatible(built, here):
        return
    why = ", though it was built version-compatible" if facts.plan_outlives else ""
    yield CompatibilityVerdict(
        code="DEV012", level="error", fix="build it again there: deploykit build",
        text=f"the plan was built by {library} {built} and does not load in {here}{why}",
        source=_NEWER if facts.plan_outlives else _EXACT,
    )  # fmt: skip


def _before(row: JetPack, floor: str) -> bool:
    """Return whether a JetPack is older than another: here 7.2 is 7.2.0, and no prefix of 7.2.2."""
    return version_numbers(row.jetpack) < version_numbers(floor)
