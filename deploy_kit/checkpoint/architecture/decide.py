"""Decide what shapes cannot say: each fact comes from the best source there is, and the source is recorded with it.

Order of precedence: a flag, the file's own statement, a gap in the names' numbers, BN statistics, the family known by
its key names, the paper. A family that statistics contradict is refused; a fact that only the paper decides is
remarked, or refused if strict.
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
from deploy_kit.checkpoint.architecture.heads import DOUBLE_POOLS, FoundHeads
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source

_SMP_USUAL = "what segmentation_models_pytorch does unless it is told otherwise"
FLAGS = {
    "stem_stride": "--stem-stride 2",
    "stem_pool": "--stem-pool none, max, avg or blur",
    "eps": "--eps 1e-5",
    "hidden_eps": "--hidden-eps 1e-5",
    "concat": "--concat append or prepend",
    "transition_relu": "--transition-relu or --no-transition-relu",
    "dense_order": "--dense-order norm_first or activation_first",
    "transition_order": "--transition-order norm_first or activation_first",
    "final_order": "--final-order norm_first or activation_first",
    "hidden_order": "--hidden-order norm_first or activation_first",
    "transition_pool": "--transition-pool avg, max or none",
    "final_relu": "--final-relu or --no-final-relu",
    "activation": "--activation relu, leaky_relu, elu, silu or gelu",
    "outer_activation": "--outer-activation relu, leaky_relu, elu, silu or gelu",
    "stem_activation": "--stem-activation relu, leaky_relu, elu, silu or gelu",
    "hidden_activation": "--hidden-activation relu, leaky_relu, elu, silu, gelu or none",
    "slope": "--slope 0.01",
    "stem_slope": "--stem-slope 0.1",
    "outer_slope": "--outer-slope 0.1",
    "hidden_slope": "--hidden-slope 0.1",
    "head_pool": "--head-pool avg, max or avg_max_mean",
    "feature_norm": "--feature-norm none or l2",
    "head_activation": "--head-activation none, sigmoid, softmax or log_softmax",
    "skip_order": "--skip-order up_first or skip_first",
    "up_crop": "--up-crop start or end",
    "upsampling": f"--upsampling nearest ({_SMP_USUAL}) or bilinear",
    "map_scale": f"--map-scale 4 ({_SMP_USUAL}: the output is as large as the input)",
}
DECODER_FACTS = ("skip_order", "up_crop", "upsampling", "map_scale")
_OF_HEADS = (
    "final_relu", "final_order", "head_pool", "feature_norm", "hidden_activation", "hidden_order", "hidden_eps",
    "hidden_slope",
)  # fmt: skip
# Jégou et al., CVPR Workshops 2017: section 3.1, and the code that they published.
_FC_DENSENET: dict[str, Any] = {"transition_pool": "max", "skip_order": "up_first", "up_crop": "start"}
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
    "dense_order": "norm_first",
    "transition_order": "norm_first",
    "final_order": "norm_first",
    "hidden_order": "norm_first",
    "head_pool": "avg",
    "feature_norm": "none",
}
# Facts that one choice of an implementation decides together: who was wrong in one is no witness for the others.
_TOGETHER = (
    frozenset({"stem_stride", "stem_pool"}),
    frozenset({"transition_relu", "transition_order", "transition_pool"}),
    frozenset({"final_relu", "final_order", "head_pool", "feature_norm"}),
    frozenset({"activation", "outer_activation", "slope"}),
    frozenset({"hidden_activation", "hidden_order"}),
)
# Left to the paper, these change nothing or are the framework's own default, so no remark is made.
_QUIET = frozenset({"eps", "hidden_eps", "slope", "outer_activation"})
_POOLS = ("stem_pool", "transition_pool")
_CARRIED = Source("carried", "default: as in the dense layers")
_TRANSITION = ("transition_pool", "outer_activation")
# Where nothing may be guessed, a probe starts from these.
_PROBED_FIRST: dict[str, Any] = {
    "stem_stride": 2,
    "stem_pool": "max",
    "upsampling": "nearest",
    "map_scale": 4,
    **_PAPER,
}
_DOUBLE = "--head-pool max_avg or avg_max"  # of a head that reads twice the last map's channels
# timm's names of networks with a deep stem, e.g. densenet264d.
_DEEP = re.compile(r"densenet\d+d", re.IGNORECASE)
_LARGE_KERNEL = 7  # the paper's stem for ImageNet; its stem for CIFAR has 3

_SLOPES = ("slope", "stem_slope", "outer_slope", "hidden_slope")
_PARTS_OF_THEIR_OWN = ("stem_activation", *_SLOPES[1:])  # known only where someone states that a part differs
Decision = tuple[Any, Source]


@dataclass(frozen=True, kw_only=True)
class FactSources:
    """All that is known beside the shapes, in order of precedence."""

    flags: ArchitectureFacts
    stated: tuple[ArchitectureFacts, ...]
    gaps: ArchitectureFacts
    evidence: Evidence
    family: Family | None


@dataclass(frozen=True, kw_only=True)
class DecidedFacts:
    """Facts with their sources.

    Attributes:
        values: Value of each fact.
        sources: Source of each fact.
        remarks: Remarks for people.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, Source]
    remarks: tuple[str, ...]


def decide_facts(
    known: FactSources, body: Body, head: FoundHeads, where: str, *, strict: bool, keras: bool, probing: bool = False
) -> DecidedFacts:
    """Decide every fact that the network has a place for.

    Args:
        known: What each source says.
        body: The network without its head.
        head: The network's heads.
        where: The file, for messages.
        strict: Whether to refuse facts that only a default decides.
        keras: Whether Keras wrote the file, whose defaults differ.
        probing: Whether a probe follows, which settles what nothing else does.

    Raises:
        CheckpointError: Sources contradict each other, a fact must be asked for, or `strict` and one is left open.
    """
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    remarks = list(known.evidence.doubts)
    variants = known.family.ask if known.family else ()
    unknown, unanswered = [], []
    relevant = _relevant_facts(body, head)
    for name in (*DECODER_FACTS, *_OF_HEADS * (body.decoder is not None)):
        if getattr(known.flags, name) is not None and name not in relevant:
            raise CheckpointError(
                f"{where}: {FLAGS[name].split()[0]}: this network has no place for it", hint="leave the flag out"
            )
    for name in relevant:
        decision = _known_fact(name, known, body, where, remarks)
        decision = _fitting(name, decision, head, values)
        if name == "feature_norm" and decision and decision[1].kind == "family" and not _last_biases(head):
            decision = None  # heads without a bias are often cosines; the family's have one
        no_relu = _is_no_relu(name, known.evidence, decision, values)
        decision = None if no_relu else decision
        if name == "outer_activation" and (decision is None or decision[1].kind == "family"):
            decision = _outer_activation(values.get("activation", "relu"), decision, known.family, remarks)
        if decision is None:
            refuted = _refuted(name, known, body, values, sources)
            default = None if refuted or no_relu else _default(name, body, head, where, keras=keras)
            if default is None or name in variants:
                if not probing:
                    unanswered.append(name)
                    continue
                start = "max_avg" if name == "head_pool" and head.double else _PROBED_FIRST.get(name)
                start = default[0] if default else start
                default = start, Source("default", "default: to be probed")
            decision = default
        if decision[1].kind == "default" and name not in _QUIET:
            unknown.append(name)
        values[name], sources[name] = decision
    if unanswered:
        raise _open_question(unanswered, where, known, double=head.double)
    if not probing:
        _verify_transitions(values, sources, known, where)
    # A head in a module of its own may read the features before torchvision's functional ReLU: `model.features(x)`.
    final_relu = sources.get("final_relu")
    if head.outside and final_relu is not None and final_relu.kind == "family" and not _has_own_head(known.family):
        unknown.append("final_relu")
        sources["final_relu"] = Source("default", "default: the head stands outside the network's own module")
    for name in _PARTS_OF_THEIR_OWN:
        if (decision := _known_fact(name, known, body, where, remarks)) is not None:
            values[name], sources[name] = decision
    if "leaky_relu" not in values.values():
        for name in _SLOPES:  # without a leaky activation they decide nothing
            if getattr(known.flags, name) is not None:
                raise CheckpointError(
                    f"{where}: {FLAGS[name].split()[0]}: expected a leaky activation, found "
                    + ", ".join(sorted({str(value) for key, value in values.items() if key.endswith("activation")})),
                    hint="say which is leaky, e.g. --activation leaky_relu; or leave the slope out",
                )
            sources.pop(name, None)
    loose = [*unknown, *["outer_activation"] * (sources["outer_activation"].kind == "carried")]
    if loose and strict and not probing:
        raise CheckpointError(
            f"{where}: nothing in the file decides {', '.join(loose)}",
            hint="say " + "; ".join(_flag(name, head.double) for name in loose) + "; or give --probe io.npz",
        )
    if unknown and not probing:
        guesses = ", ".join(f"{name} = {_text(values[name])}" for name in unknown)
        remarks.append(f"nothing in the file decides these, taken as in the paper: {guesses}")
    return DecidedFacts(values=values, sources=sources, remarks=tuple(remarks))


def index_gaps(body: Body, head: FoundHeads) -> ArchitectureFacts:
    """Read index gaps: in one ``Sequential``, BN 0 and convolution 2 have a module without weights between them."""
    relus = set()
    for joint in body.chain.transitions:
        if joint.norm is not None and (between := paths.gap(joint.norm.path, joint.conv.path)) is not None:
            relus.add(between > 0)
    relu = relus.pop() if len(relus) == 1 else None
    source = Source("index_gap", "index gap in its names")
    return ArchitectureFacts(transition_relu=relu, hidden_order=head.hidden_order, source=source)


def _relevant_facts(body: Body, head: FoundHeads) -> list[str]:
    """List the facts that this network has a place for."""
    # `activation` comes before `outer_activation`, which may be carried over from it.
    names = ["stem_stride", "stem_pool", "eps", "activation", "outer_activation", "slope"]
    if any(len(block) > 1 for block in body.chain.blocks) or body.chain.transitions:
        names.append("concat")
    if body.chain.transitions:
        names += ["transition_relu", "transition_pool"]
        names += ["transition_order"] * any(joint.norm is not None for joint in body.chain.transitions)
    names.append("dense_order")
    if body.decoder is not None:
        names += ["final_relu"] * (body.final is not None and not body.unread)
        if body.decoder.pyramid is not None:
            return [*names, "upsampling", "map_scale"]
        names.append("skip_order")
        ups = [level.up for level in body.decoder.levels if level.up is not None]
        return names + ["up_crop"] * any(side % 2 for up in ups for side in up.kernel) + ["upsampling"] * (not ups)
    names += ["final_relu"] + ["final_order"] * (body.final is not None)
    kinds = [step.layer.kind for row in (head.trunk, *(row for _, row in head.heads)) for step in row]
    names += ["hidden_eps"] * ("norm" in kinds)
    if "activation" in kinds:
        names.append("hidden_activation")
        names += ["hidden_order"] * ("norm" in kinds[kinds.index("linear") :])
    return names + ["head_pool"] * (head.pool is None) + ["feature_norm"]


def _known_fact(name: str, known: FactSources, body: Body, where: str, remarks: list[str]) -> Decision | None:
    """Return a fact from the best source that states it; None where all are silent."""
    proved = getattr(known.evidence.facts, name)
    # An average keeps the means as no pool at all does: statistics that fit either rule out a maximum, and no more.
    keeps = name in _POOLS and proved != "max"
    for facts in (known.flags, *known.stated, known.gaps):
        value = getattr(facts, name)
        if value is None:
            continue
        if proved not in (None, value) and not (keeps and value != "max"):
            why = known.evidence.why[name]
            if facts.source.kind == "index_gap":  # in a list of modules the ReLU may be a function call
                raise CheckpointError(
                    f"{where}: {name}: {facts.source.text} says {_text(value)}, "
                    f"BN statistics say {_text(proved)}: {why}",
                    hint=f"say which: {FLAGS[name]}",
                )
            # Statistics are evidence and no proof (frozen, recalibrated): who states a fact outright is believed.
            remarks.append(
                f"{name}: {facts.source.text} says {_text(value)} and holds, BN statistics say {_text(proved)} ({why})"
            )
        return value, facts.source
    usual = _family_fact(name, known.family, body)
    if usual is not None and proved is None and _is_refuted(name, known, body):
        usual = None
    if proved is not None:
        why = known.evidence.why[name]
        # Names alone do not outvote data: bearpaw's are nearly kuangliu's, and their orders of concatenation differ.
        if usual not in (None, proved) and not (keeps and usual != "max"):
            assert known.family is not None
            raise CheckpointError(
                f"{where}: {name}: by its names this is {known.family.name} ({_text(usual)}), "
                f"its BN statistics say {_text(proved)}: {why}",
                hint=f"say which: {FLAGS[name]}",
            )
        if not keeps:
            return proved, Source("statistics", f"BN statistics: {why}")
        if usual is None:
            return proved, Source("default", f"default: BN statistics rule out a maximum and say no more: {why}")
    if usual is not None and known.family is not None and name not in known.family.ask:
        return usual, Source("family", f"family '{known.family.name}', by its names")
    return None


def _family_fact(name: str, family: Family | None, body: Body) -> Any:
    """Return what a family's source code does; None where it is not known."""
    if family is None:
        return None
    if name in ("stem_stride", "stem_pool"):
        conv = body.stem[0].conv
        # Deep stems (timm) and 3-D ports have torchvision's names too; of the families, MONAI alone is 3-D.
        if len(body.stem) > 1 or (len(conv.kernel) == 3 and family.name != "MONAI"):
            return None
        facts = family.wide_stem if max(conv.kernel) >= _LARGE_KERNEL else family.narrow_stem
        return getattr(facts, name) if facts is not None else None
    return getattr(family.facts, name)


def _outer_activation(
    inner: str, decision: Decision | None, family: Family | None, remarks: list[str]
) -> Decision | None:
    """Carry the dense layers' activation outside, where it is not the one that the paper or the family has."""
    usual = family.facts.activation if decision is not None and family is not None else _PAPER["activation"]
    if inner == usual:
        return decision
    remarks.append(f"outer_activation = {inner}: nothing in the file decides it, taken as in the dense layers")
    return inner, _CARRIED


def _fitting(name: str, decision: Decision | None, head: FoundHeads, values: Mapping[str, Any]) -> Decision | None:
    """Drop what cannot hold: a pool of another width, and an order that the statistics show of ReLUs alone."""
    if decision is None:
        return None
    value, source = decision
    weak = source.kind in ("family", "statistics")
    if name == "head_pool" and weak and head.double != (value in DOUBLE_POOLS):
        return None
    # A mean below zero proves that no ReLU stands before a BN; behind a leaky activation it proves nothing.
    active = {"dense_order": "activation", "hidden_order": "hidden_activation"}.get(name, "outer_activation")
    if name.endswith("_order") and source.kind == "statistics" and values.get(active, "relu") != "relu":
        return None
    return decision


def _is_no_relu(name: str, evidence: Evidence, decision: Decision | None, values: Mapping[str, Any]) -> bool:
    """Return whether statistics rule out an activation, or a leaky one's slope, that only names or defaults give."""
    if evidence.passes is None or (decision is not None and decision[1].kind not in ("family", "statistics")):
        return False
    return name == "activation" or (name == "slope" and values.get("activation") == "leaky_relu")


def _is_refuted(name: str, known: FactSources, body: Body) -> bool:
    """Return whether a flag, the file or statistics contradict the family in a fact that hangs together with this."""
    for other in _hanging(name):
        usual = _family_fact(other, known.family, body)
        better = (known.flags, *known.stated, known.evidence.facts)
        if usual is not None and any(getattr(facts, other) not in (None, usual) for facts in better):
            return True
    return False


def _refuted(
    name: str, known: FactSources, body: Body, values: Mapping[str, Any], sources: Mapping[str, Source]
) -> bool:
    """Return whether the usual stem is contradicted in one half, so that it says nothing of the other."""
    if name not in ("stem_stride", "stem_pool") or len(body.stem) > 1:
        return False
    if max(body.stem[0].conv.kernel) < _LARGE_KERNEL:
        return False
    usual = {"stem_stride": 2, "stem_pool": "max"}
    better = (known.flags, *known.stated, known.evidence.facts)
    (other,) = _hanging(name)
    found = [value for facts in better if (value := getattr(facts, other)) is not None]
    return any(value not in (usual[other], (2,) * len(body.stem[0].conv.kernel)) for value in found)


def _hanging(name: str) -> frozenset[str]:
    return next((group - {name} for group in _TOGETHER if name in group), frozenset())


def _default(name: str, body: Body, head: FoundHeads, where: str, *, keras: bool) -> Decision | None:
    """Return what the paper has; None where nothing may be guessed, as where the network is not the paper's."""
    if name in ("stem_stride", "stem_pool"):
        return _stem_default(name, body, where)
    if body.decoder is not None and body.decoder.dense and name in _FC_DENSENET:
        return _FC_DENSENET[name], Source("default", "default: as in FC-DenseNet's paper and code")
    if name in DECODER_FACTS:
        return None
    if name == "eps" and keras:
        return 1e-3, Source("default", "default of Keras")
    if name == "hidden_eps":
        return None, Source("default", "default: as in all other BNs")
    if name in ("transition_relu", "transition_pool") and _is_odd_transition(body):
        return None
    if name == "final_relu" and body.final is None:
        return False, Source("default", "default: no BN there, no ReLU")
    if name == "head_pool" and head.double:
        return None
    return _PAPER[name], Source("default", "default: as in the paper")


def _is_odd_transition(body: Body) -> bool:
    """Return whether transitions lack a BN or have a kernel of more than one pixel, which the paper's do not."""
    return any(joint.norm is None or max(joint.conv.kernel) > 1 for joint in body.chain.transitions)


def _stem_default(name: str, body: Body, where: str) -> Decision | None:
    first, wide = body.stem[0], max(body.stem[0].conv.kernel) >= _LARGE_KERNEL
    normed = body.stem[-1].norm is not None
    if len(first.conv.kernel) == 3:
        return None  # along time, strides 1 and 2 are both common
    if len(body.stem) > 1:
        if name == "stem_stride":
            return 2, Source("convention", "convention: a deep stem halves the map in its first convolution")
        name_of_file = where.replace("\\", "/").rpartition("/")[2]
        if _DEEP.search(name_of_file) and "blur" not in name_of_file.lower():
            return "max", Source("file_name", f"the file's name, '{name_of_file}'")
        return None  # with and without a blur the tensors are the same
    if wide:
        source = Source("convention", "convention: the paper's stem for large images")
        return (2 if name == "stem_stride" else "max"), source
    if not normed and max(first.conv.kernel) == 3:
        source = Source("convention", "convention: the paper's stem for small images")
        return (1 if name == "stem_stride" else "none"), source
    # The paper's stems have kernels of 3 and 7; of another kernel it says nothing.
    small = name == "stem_stride" and max(first.conv.kernel) == 3
    return (1, Source("default", "default: stride 1")) if small else None


def _verify_transitions(
    values: Mapping[str, Any], sources: Mapping[str, Source], known: FactSources, where: str
) -> None:
    """Refuse transitions that statistics rule out (ReLU or none, average pool) where only names or the paper give them.

    The statistics' prediction holds for a ReLU and an average pool alone: ELU, SiLU and a max pool miss it both ways.
    """
    if not known.evidence.contradicted or values["transition_pool"] == "max":
        return
    weak = [name for name in _TRANSITION if sources[name].kind in ("family", "default", "carried")]
    flagged = any(getattr(known.flags, name) is not None for name in (*_TRANSITION, "transition_relu"))
    if weak and not flagged and values["outer_activation"] == "relu":
        raise CheckpointError(
            f"{where}: {known.evidence.doubts[-1]}, and nothing better than {sources[weak[0]].text} says "
            + ", ".join(f"{name} = {values[name]}" for name in weak),
            hint="say " + "; ".join(FLAGS[name] for name in _TRANSITION) + "; or give --probe io.npz",
        )


def _last_biases(head: FoundHeads) -> bool:
    return all(steps[-1].layer.bias for _, steps in head.heads if steps)


def _has_own_head(family: Family | None) -> bool:
    return family is not None and family.outside


def _flag(name: str, double: bool) -> str:
    return _DOUBLE if name == "head_pool" and double else FLAGS[name]


def _open_question(names: list[str], where: str, known: FactSources, *, double: bool) -> CheckpointError:
    """Make the error that asks for facts by their flags."""
    family = known.family
    variants = f" ('{family.name}' has variants)" if family is not None and set(names) & set(family.ask) else ""
    flags = "; ".join(_flag(name, double) for name in names)
    passes = known.evidence.passes
    shown = ""
    if passes is not None and {"activation", "slope"} & set(names):
        flags = flags.replace("--slope 0.01", f"--slope {passes:.1g}")
        shown = (
            f" (by the dense layers' BN statistics {passes:.2f} of what lies below zero passes; of a ReLU none, "
            "of a leaky one its slope, GELU about 0.25, SiLU 0.4, ELU 0.6, no activation 1)"
        )
    flags = flags.replace("--stem-stride 2", "--stem-stride 2 (or one number an axis: 1,2,2)")
    return CheckpointError(
        f"{where}: the file cannot say: {', '.join(name.replace('_', ' ') for name in names)}{variants}{shown}",
        hint=f"say {flags}; or give one input and its logits: --probe io.npz",
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
