"""What shapes cannot say, decided: each fact from the best witness there is, and who it was.

The order: a flag, the file's own word, a gap in the names' numbers, BN statistics, the family known by its names, the
paper. A family that statistics contradict stops; a fact that is left to the paper alone is said, or stops if strict.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import paths
from deploy_kit.checkpoint.architecture.body import Body
from deploy_kit.checkpoint.architecture.conventions import Family
from deploy_kit.checkpoint.architecture.evidence import Evidence
from deploy_kit.checkpoint.architecture.heads import FoundHeads
from deploy_kit.checkpoint.facts import ArchitectureFacts

FLAGS = {
    "stem_stride": "--stem-stride 2",
    "stem_pool": "--stem-pool none, max, avg or blur",
    "eps": "--eps 1e-5",
    "concat": "--concat append or prepend",
    "transition_relu": "--transition-relu or --no-transition-relu",
    "transition_pool": "--transition-pool avg or max",
    "final_relu": "--final-relu or --no-final-relu",
    "activation": "--activation relu, leaky_relu, elu, silu or gelu",
    "outer_activation": "--outer-activation relu, leaky_relu, elu, silu or gelu",
    "hidden_activation": "--hidden-activation relu, leaky_relu, elu, silu, gelu or none",
    "slope": "--slope 0.01",
    "head_pool": "--head-pool avg, max or max_avg",
    "head_activation": "--head-activation none, sigmoid, softmax or log_softmax",
}
_PAPER: dict[str, Any] = {
    "eps": 1e-5,
    "concat": "append",
    "transition_relu": True,
    "transition_pool": "avg",
    "final_relu": True,
    "activation": "relu",
    "outer_activation": "relu",
    "hidden_activation": "relu",
    "slope": 0.01,
    "head_pool": "avg",
}
# Left to the paper, these change nothing or are the framework's own default: no word about them.
_QUIET = frozenset({"eps", "slope", "outer_activation"})
_CARRIED = "default: as in the dense layers"
_TRANSITION = ("transition_pool", "outer_activation")
# Where nothing may be guessed, a probe begins with these.
_FIRST: dict[str, Any] = {"stem_stride": 2, "stem_pool": "max"}
_DEEP = re.compile(r"densenet\d+d", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Witnesses:
    """All that is known beside the shapes, best first."""

    flags: ArchitectureFacts
    stated: tuple[ArchitectureFacts, ...]
    gaps: ArchitectureFacts
    evidence: Evidence
    family: Family | None


@dataclass(frozen=True, kw_only=True)
class Decided:
    """Facts with their sources.

    Attributes:
        values: Each fact's value.
        sources: Each fact's source.
        open: Facts that only a default decides, and that change the numbers.
        remarks: For a person.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, str]
    open: tuple[str, ...]
    remarks: tuple[str, ...]


def decide_facts(
    witnesses: Witnesses, body: Body, head: FoundHeads, where: str, *, strict: bool, keras: bool, probing: bool = False
) -> Decided:
    """Decide every fact that the network has a place for; what only a person knows is left to a probe, if there is one.

    Raises:
        CheckpointError: Witnesses contradict each other, a fact must be asked for, or `strict` and one is left open.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    remarks = list(witnesses.evidence.doubts)
    unknown, asked = [], []
    for name in _relevant(body, head):
        found = _heard(name, witnesses, body, where, remarks)
        if name == "outer_activation" and (found is None or found[1].startswith("family")):
            found = _outer(values.get("activation", "relu"), found, witnesses.family, remarks)
        if found is None:
            value, source = _default(name, body, where, keras=keras)
            if value is None or name in (witnesses.family.ask if witnesses.family else ()):
                if not probing:
                    asked.append(name)
                    continue
                value, source = _FIRST.get(name, value), "default: to be probed"
            if source.startswith("default") and name not in _QUIET:
                unknown.append(name)
            found = value, source
        values[name], sources[name] = found
    if asked:
        raise _ask(asked, where, witnesses)
    if not probing:
        _verify_transitions(values, sources, witnesses, where)
    if head.outside and sources.get("final_relu", "").startswith("family") and not _own_head(witnesses.family):
        unknown.append("final_relu")
        sources["final_relu"] = "default: the head stands outside the network's own module"
    if "leaky_relu" not in values.values():
        sources.pop("slope", None)  # of no account
    told = [f"{name} = {_text(values[name])}" for name in unknown]
    loose = [*unknown, *["outer_activation"] * (sources["outer_activation"] == _CARRIED)]
    if loose and strict and not probing:
        raise CheckpointError(
            f"{where}: nothing in the file decides {', '.join(loose)}",
            hint="say " + "; ".join(FLAGS[name] for name in loose) + "; or give --probe io.npz",
        )
    if told and not probing:
        remarks.append("nothing in the file decides these, taken as in the paper: " + ", ".join(told))
    return Decided(values=values, sources=sources, open=tuple(unknown), remarks=tuple(remarks))


def _outer(
    inner: str, found: tuple[str, str] | None, family: Family | None, remarks: list[str]
) -> tuple[str, str] | None:
    """Carry a dense layer's activation outside, where it is not the one that the paper or the family would have."""
    usual = family.facts.activation if found is not None and family is not None else _PAPER["activation"]
    if inner == usual:
        return found
    remarks.append(f"outer_activation = {inner}: nothing in the file decides it, taken as in the dense layers")
    return inner, _CARRIED


def _verify_transitions(
    values: Mapping[str, Any], sources: Mapping[str, str], witnesses: Witnesses, where: str
) -> None:
    """Stop where statistics rule out (ReLU or none, average pool) and names or the paper alone speak for it."""
    if not witnesses.evidence.contradicted or values["transition_pool"] == "max":
        return
    weak = [name for name in _TRANSITION if sources[name].startswith(("family", "default"))]
    told = any(getattr(witnesses.flags, name) is not None for name in (*_TRANSITION, "transition_relu"))
    if weak and not told and values["outer_activation"] == "relu":
        raise CheckpointError(
            f"{where}: {witnesses.evidence.doubts[-1]}, and nothing better than {sources[weak[0]]} says "
            + ", ".join(f"{name} = {values[name]}" for name in weak),
            hint="say " + "; ".join(FLAGS[name] for name in _TRANSITION) + "; or give --probe io.npz",
        )


def gaps(body: Body) -> ArchitectureFacts:
    """Read index gaps: in one ``Sequential``, BN 0 and convolution 2 have a module without weights between them."""
    found = set()
    for joint in body.chain.transitions:
        if joint.norm is not None and (between := paths.gap(joint.norm.path, joint.conv.path)) is not None:
            found.add(between > 0)
    relu = found.pop() if len(found) == 1 else None
    return ArchitectureFacts(transition_relu=relu, source="index gap in the transitions' names")


def _own_head(family: Family | None) -> bool:
    return family is not None and family.outside


def _relevant(body: Body, head: FoundHeads) -> list[str]:
    """List the facts that this network has a place for."""
    names = ["stem_stride", "stem_pool", "eps", "activation", "outer_activation", "slope"]
    if any(len(block) > 1 for block in body.chain.blocks) or body.chain.transitions:
        names.append("concat")
    if body.chain.transitions:
        names += ["transition_relu", "transition_pool"]
    names.append("final_relu")
    steps = [step for row in (head.trunk, *(row for _, row in head.heads)) for step in row]
    if any(step.leaf is None for step in steps):
        names.append("hidden_activation")
    return names + ["head_pool"] * (head.pool is None)


def _heard(name: str, witnesses: Witnesses, body: Body, where: str, remarks: list[str]) -> tuple[Any, str] | None:
    """Give the best witness's word; None where all are silent."""
    proved = getattr(witnesses.evidence.facts, name)
    for facts in (witnesses.flags, *witnesses.stated, witnesses.gaps):
        value = getattr(facts, name)
        if value is not None:
            if proved is not None and proved != value:
                why = witnesses.evidence.why[name]
                if facts is witnesses.gaps:  # in a list of modules the ReLU may be a function call
                    raise CheckpointError(
                        f"{where}: {name}: {facts.source} says {_text(value)}, "
                        f"BN statistics say {_text(proved)}: {why}",
                        hint=f"say which: {FLAGS[name]}",
                    )
                remarks.append(
                    f"{name}: {facts.source} says {_text(value)} and holds, BN statistics say {_text(proved)} ({why})"
                )
            return value, facts.source
    custom = _of_family(name, witnesses.family, body)
    if proved is not None:
        why = witnesses.evidence.why[name]
        if custom is not None and custom != proved:
            assert witnesses.family is not None
            raise CheckpointError(
                f"{where}: {name}: by its names this is {witnesses.family.name} ({_text(custom)}), "
                f"its BN statistics say {_text(proved)}: {why}",
                hint=f"say which: {FLAGS[name]}",
            )
        return proved, f"BN statistics: {why}"
    if custom is not None and witnesses.family is not None and name not in witnesses.family.ask:
        return custom, f"family '{witnesses.family.name}', by its names"
    return None


def _of_family(name: str, family: Family | None, body: Body) -> Any:
    if family is None:
        return None
    if name in ("stem_stride", "stem_pool"):
        conv = body.stem[0].conv
        if len(body.stem) > 1 or (len(conv.kernel) == 3 and family.name != "MONAI"):
            return None
        facts = family.wide_stem if max(conv.kernel) >= 7 else family.narrow_stem
        return getattr(facts, name) if facts is not None else None
    return getattr(family.facts, name)


def _default(name: str, body: Body, where: str, *, keras: bool) -> tuple[Any, str]:
    """Give the paper's way; None where nothing may be guessed."""
    if name in ("stem_stride", "stem_pool"):
        return _stem_default(name, body, where)
    if name == "eps" and keras:
        return 1e-3, "default of Keras"
    if name == "transition_relu" and all(joint.norm is None for joint in body.chain.transitions):
        return False, "default: no BN there, no ReLU"
    if name == "final_relu" and body.final is None:
        return False, "default: no BN there, no ReLU"
    return _PAPER[name], "default: as in the paper"


def _stem_default(name: str, body: Body, where: str) -> tuple[Any, str]:
    first, wide = body.stem[0], max(body.stem[0].conv.kernel) >= 7
    normed = body.stem[-1].norm is not None
    if len(first.conv.kernel) == 3:
        return None, ""  # along time, strides 1 and 2 are both common
    if len(body.stem) > 1:
        if name == "stem_stride":
            return 2, "convention: a deep stem halves the map in its first convolution"
        name_of_file = where.replace("\\", "/").rpartition("/")[2]
        if _DEEP.search(name_of_file) and "blur" not in name_of_file.lower():
            return "max", f"the file's name, '{name_of_file}'"
        return None, ""  # with and without a blur the tensors are the same
    if wide:
        return (2 if name == "stem_stride" else "max"), "convention: the paper's stem for large images"
    if not normed and max(first.conv.kernel) == 3:
        return (1 if name == "stem_stride" else "none"), "convention: the paper's stem for small images"
    return (1, "default: stride 1") if name == "stem_stride" else (None, "")


def _ask(names: list[str], where: str, witnesses: Witnesses) -> CheckpointError:
    known = witnesses.family
    family = f" ('{known.name}' has variants)" if known is not None and set(names) & set(known.ask) else ""
    flags = "; ".join(FLAGS[name] for name in names)
    flags = flags.replace("--stem-stride 2", "--stem-stride 2 (or one number an axis: 1,2,2)")
    return CheckpointError(
        f"{where}: the file cannot say: {', '.join(name.replace('_', ' ') for name in names)}{family}",
        hint=f"say {flags}; or give one input and its logits: --probe io.npz",
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
