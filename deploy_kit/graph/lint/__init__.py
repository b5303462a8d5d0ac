"""What is known to go wrong with a graph on a target, found before the target sees it. A rule is a file, its code.

An error is a refusal, a crash or a wrong result; a warning may go well; a note says what cannot be judged.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import UnknownNameError, nearest, no_such_file
from deploy_kit.graph import onnx_file

Level = Literal["error", "warning", "note"]

DLA = "dla"
"""TensorRT on NVIDIA's deep learning accelerator: a target, and no engine of its own."""

TENSORRT = ("tensorrt", "tensorrt_rtx", DLA)
"""One parser reads for all three."""

EVERYWHERE = ("all",)
"""Targets of a rule that holds for every engine, also for those of third parties."""

_PROTOBUF_LIMIT = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class LintTarget:
    """What a graph is judged for.

    Attributes:
        engine: An engine of the catalogue, or ``dla``.
        version: Version of its library, e.g. ``10.3.0``; empty where it is not known.
    """

    engine: str
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class LintFault:
    """A place where a rule applies.

    Attributes:
        node: Name of the node; empty if it is the whole graph.
        text: What is wrong.
        level: Level of this fault, where it differs from the rule's.
        cure: Cure of this fault, where it differs from the rule's.
    """

    node: str
    text: str
    level: Level | None = None
    cure: str | None = None


def _needs_nothing(model: ir.Model) -> tuple[tuple[str, str], ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of the catalogue.

    Attributes:
        targets: Engines that the rule is about, or `EVERYWHERE`.
        level: Level of its faults.
        title: What it looks for, in a few words.
        cure: What to do, in one line.
        source: Where the fact comes from: a measurement with its versions, or a document.
        check: (graph, target) → faults.
        needs: graph → (distribution and version, why) that it asks of any runtime beyond its operator set.
    """

    targets: tuple[str, ...]
    level: Level
    title: str
    cure: str
    source: str
    check: Callable[[ir.Model, LintTarget], Iterator[LintFault]]
    needs: Callable[[ir.Model], tuple[tuple[str, str], ...]] = _needs_nothing

    def concerns(self, engine: str) -> bool:
        """Return whether the rule is about an engine."""
        return self.targets == EVERYWHERE or engine in self.targets


@dataclass(frozen=True, kw_only=True)
class LintFinding:
    """A fault with its rule.

    Attributes:
        code: Code of the rule.
        level: How bad it is.
        node: Name of the node; empty if it is the whole graph.
        text: What is wrong.
        cure: What to do.
    """

    code: str
    level: Level
    node: str
    text: str
    cure: str

    def __str__(self) -> str:
        """Return code, place and what is wrong in one line."""
        return f"{self.code}: node '{self.node}': {self.text}" if self.node else f"{self.code}: {self.text}"


CATALOGUE: Catalogue[Rule] = Catalogue(__name__, "RULE", "lint rule")


def lint_model(model: ir.Model, target: LintTarget) -> tuple[LintFinding, ...]:
    """Apply every rule that is about the target, in the order of their codes."""
    findings: list[LintFinding] = []
    for name, rule in _rules():
        if rule.concerns(target.engine):
            findings += [_finding(name, rule, fault) for fault in rule.check(model, target)]
    return tuple(findings)


def lint_file(path: Path, target: LintTarget) -> tuple[LintFinding, ...]:
    """Read an ONNX file and apply the rules; a file that no reader can take whole is a finding itself.

    Raises:
        InputError: Missing, or not a whole ONNX file.
    """
    if not path.is_file():
        raise no_such_file(path)
    size = path.stat().st_size
    if size > _PROTOBUF_LIMIT:
        rule = CATALOGUE.get("onnx001")
        return (_finding("onnx001", rule, LintFault(node="", text=f"the file holds {size / 2**30:.1f} GiB")),)
    return lint_model(onnx_file.load(path), target)


def parse_target(text: str, engines: Iterable[str] = ()) -> LintTarget:
    """Read a target as the command line takes it: ``tensorrt`` or ``tensorrt:10.3``.

    Args:
        text: Target and, behind a colon, its version.
        engines: Engines that are targets even where no rule names them.

    Raises:
        UnknownNameError: It is no engine, and no rule names it; the hint names the nearest.
    """
    engine, _, version = text.partition(":")
    known = {name for _, rule in _rules() if rule.targets != EVERYWHERE for name in rule.targets}.union(engines)
    if engine not in known:
        raise UnknownNameError(f"no target is called '{engine}'", hint=nearest(engine, known))
    return LintTarget(engine=engine, version=version)


def rules_table() -> str:
    """Lay out every rule as a table for a page of documentation."""
    lines = ["| code | level | targets | finds | cure | source |", "|---|---|---|---|---|---|"]
    for name, rule in _rules():
        targets = "TensorRT's" if rule.targets == TENSORRT else ", ".join(rule.targets)
        cells = (f"`{name.upper()}`", rule.level, targets, rule.title, rule.cure, rule.source)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def needs(model: ir.Model) -> tuple[tuple[str, str], ...]:
    """List what a graph asks of a runtime beyond its operator set: (distribution and version, why)."""
    return tuple(need for _, rule in _rules() for need in rule.needs(model))


def name_of(node: ir.Node) -> str:
    """Return the name of a node for messages: its own, else that of its first output."""
    return node.name or str(node.outputs[0].name)


def _rules() -> Iterator[tuple[str, Rule]]:
    return ((name, CATALOGUE.get(name)) for name in CATALOGUE.names())


def _finding(name: str, rule: Rule, fault: LintFault) -> LintFinding:
    return LintFinding(
        code=name.upper(),
        level=fault.level or rule.level,
        node=fault.node,
        text=fault.text,
        cure=rule.cure if fault.cure is None else fault.cure,
    )
