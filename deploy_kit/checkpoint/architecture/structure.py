"""Named tensors → DenseNetSpec and canonical names. The architecture is found in paths and widths, never in names.

Every tensor is used exactly once, or the file is refused with the names that are left over: X-DenseNet fits every other
test and gives itself away by its masks alone. The order of the tensors in the file is of no account: safetensors sorts
them, and mmpretrain's order is not that of execution.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from deploy_kit.base.errors import CheckpointError, nearest
from deploy_kit.checkpoint.architecture import (
    attributes,
    body,
    canonical_tensors,
    conventions,
    decide,
    decoders,
    evidence,
    heads,
    input_normalization,
    leaves,
    module_lists,
    paths,
)
from deploy_kit.checkpoint.architecture.body import Body
from deploy_kit.checkpoint.architecture.conventions import Family
from deploy_kit.checkpoint.architecture.decide import DECODER_FACTS, DecidedFacts, FactSources
from deploy_kit.checkpoint.architecture.dense_layers import DenseUnit
from deploy_kit.checkpoint.architecture.evidence import Evidence
from deploy_kit.checkpoint.architecture.heads import FoundHeads
from deploy_kit.checkpoint.architecture.leaves import Leaf, Leaves, left_over
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source, StatedFacts
from deploy_kit.records.densenet import Decoder, DenseBlock, DenseNetSpec, Merge, Pyramid, StemConv, UpLevel

_WIDE_STEM = 7
_KINDS = ("growth", "bottleneck width", "kernel", "biases", "groups", "no second BN")
_TWIN_SHARE = 0.4  # of all tensors: two networks in one dict have about half each


@dataclass(frozen=True, kw_only=True)
class ParsedStructure:
    """A spec and its tensors.

    Attributes:
        spec: The architecture.
        tensors: Tensors by canonical name, as float32; what the rebuilt network loads.
        names: Canonical name → name in the file.
        originals: The file's own tensors as float32, by their names in it.
        channels_last: Whether the file's linear layers read flattened maps as (H, W, C).
        sources: Source of each fact that shapes alone do not give.
        evidence: What the BN statistics say.
        remarks: Remarks for people: what was done to names and types, and what nothing decides.
    """

    spec: DenseNetSpec
    tensors: dict[str, Tensor]
    names: Mapping[str, str]
    originals: Mapping[str, Tensor]
    channels_last: bool
    sources: Mapping[str, Source]
    evidence: Evidence
    remarks: tuple[str, ...]

    @property
    def guessed(self) -> tuple[str, ...]:
        """Facts that a probe may still change: those that no flag, file or statistic decides."""
        return tuple(name for name, source in self.sources.items() if source.is_guess)


def parse_structure(contents: Contents, where: str, stated: StatedFacts = StatedFacts()) -> ParsedStructure:  # noqa: B008  # frozen
    """Find the architecture in the tensors of a file.

    Args:
        contents: What the file holds.
        where: The file, for messages; where nothing else decides, a deep stem's pool is taken from its name.
        stated: What a person states about it.

    Raises:
        CheckpointError: No DenseNet, an incomplete one, tensors left over, or a fact that must be asked for.
    """
    tensors, ignored = _without(contents.tensors, stated.ignore, where)
    _verify_one_network(tensors, where)
    gathered = leaves.gather(tensors, where, contents.places)
    normalized, others = input_normalization.find_normalization(gathered.others, gathered.tensors)
    net = _body(gathered, contents, where)
    groups = tuple(leaf for leaf in (net.decoder.leaves if net.decoder else ()) if leaf.kind == "group")
    others = [name for name in others if not any(name in leaf.parts.values() for leaf in groups)]
    leaves.verify_finite(
        replace(gathered, layers=(*gathered.layers, *groups)), where
    )  # all numbers are looked at, so only those of a DenseNet are
    _verify_uniform(net, where)
    ndim, width = len(net.stem[0].conv.kernel), net.chain.width
    dense = paths.shared(unit.home for unit in net.units)
    if net.decoder is not None:
        head = heads.of_decoder(net.decoder.head, stated.head, where)
    else:
        head = heads.find_heads(_outside(net), width, ndim, dense, stated.head, where)
    _verify_used(gathered, net, head, others, where)
    attributed = attributes.facts(contents.attributes, net, head, where)
    proved = evidence.weigh(net, head, gathered.tensors)
    known = FactSources(
        flags=replace(stated.facts, source=Source("flag", "flag")),
        # A stated graph says what is computed; a module's attribute only what it would compute if it were called.
        stated=(contents.facts, attributed, *([contents.beside.facts] if contents.beside is not None else [])),
        gaps=decide.index_gaps(net, head),
        evidence=proved,
        family=conventions.family_of(tensors),
    )
    lacking = _lacking(net, known.family, where)
    keras = contents.from_keras
    # A probe, or the file's own graph, settles what is left open.
    settled_later = stated.probe is not None or contents.forward is not None
    decided = decide.decide_facts(known, net, head, where, strict=stated.strict, keras=keras, probing=settled_later)
    if decided.values.get("hidden_order") == "activation_first":
        head = heads.reordered(head)
    spec = _spec(net, head, decided, stated.facts, input_norm=bool(normalized), where=where)
    listed: tuple[str, ...] = ()
    if stated.probe is None:
        listed = module_lists.verify(contents.attributes, spec, net, head, where, strict=stated.strict)
    names = dict(canonical_tensors.canonical_names(net, head, spec))
    names |= {f"normalize.{part}": name for part, name in normalized.items()}
    stored = {canonical: gathered.tensors[name] for canonical, name in names.items()}
    return ParsedStructure(
        spec=spec,
        tensors=canonical_tensors.complete_state(stored, spec, channels_last=keras),
        names=names,
        originals=gathered.tensors,
        channels_last=keras,
        sources=decided.sources,
        evidence=proved,
        remarks=(
            *ignored,
            *gathered.remarks,
            *input_normalization.remarks(normalized, gathered.tensors),
            *lacking,
            *_decoder_remarks(net),
            *_head_remarks(head, known, stated.facts),
            *decided.remarks,
            *listed,
            *["its BN statistics are initial values: this network was never trained"] * proved.untrained,
        ),
    )  # fmt: skip


def _body(gathered: Leaves, contents: Contents, where: str) -> Body:
    """Find the body; of a Keras file without a graph the names may tell nothing, and the whole model does."""
    try:
        return body.find_body(gathered, where)
    except CheckpointError as error:
        if not contents.from_keras or contents.forward is not None:
            raise
        raise CheckpointError(
            f"{error}; the file holds weights and no graph, and its layers' names may tell nothing of the structure",
            hint="give the whole model, whose config states the graph: model.save('net.keras')",
        ) from error


def _without(
    tensors: Mapping[str, Tensor], ignore: Sequence[str], where: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Leave out what was named: a tensor, or all of a module."""
    kept = dict(tensors)
    for name in ignore:
        dropped = [key for key in kept if key == name or key.startswith(name + ".")]
        if not dropped:
            raise CheckpointError(
                f"{where}: nothing is called '{name}', so it cannot be left out",
                hint=nearest(name, tensors) or "deploykit inspect names what is there",
            )
        for key in dropped:
            del kept[key]
    return kept, tuple(f"'{name}' left out, as asked" for name in ignore)


def _verify_one_network(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse a dict that holds one network twice, under two names: a model and its average."""
    for depth in (1, 2):
        groups: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, tensor in tensors.items():
            parts = name.split(".")
            groups.setdefault(".".join(parts[:depth]), {})[".".join(parts[depth:])] = tuple(tensor.shape)
        large = [name for name, members in groups.items() if len(members) > _TWIN_SHARE * len(tensors)]
        if len(large) == 2:
            pairs = [{key.removeprefix("module."): shape for key, shape in groups[name].items()} for name in large]
            same = pairs[0].items() & pairs[1].items()
            if len(same) > _TWIN_SHARE * len(tensors):
                one, other = sorted(large, key=len)
                raise CheckpointError(
                    f"{where}: holds two networks of one shape, '{one}' and '{other}'",
                    hint=f"leave one out: --ignore {other}, or --ignore {one}",
                )


def _outside(net: Body) -> list[Leaf]:
    """Return the leaves that a head may have: of BNs those that stand nearer to a linear layer than to the body."""
    inner = [leaf.path for unit in net.units for leaf in unit.leaves]
    inner += [joint.conv.path for joint in net.chain.transitions]
    linear = [leaf.path for leaf in net.rest if leaf.kind != "norm"]

    def nearest(leaf: Leaf, others: list[paths.Path]) -> int:
        return max((paths.kinship(leaf.path, path) for path in others), default=0)

    return [leaf for leaf in net.rest if leaf.kind != "norm" or nearest(leaf, linear) >= nearest(leaf, inner)]


def _verify_uniform(net: Body, where: str) -> None:
    """Refuse a block whose layers differ in more than their input channels, which no DenseNet's do."""
    convs = [joint.conv for joint in (*net.stem, *net.chain.transitions)]
    convs += [leaf for unit in net.units for leaf in unit.leaves if leaf.kind == "conv"]
    convs += [leaf for leaf in (net.decoder.leaves if net.decoder else ()) if leaf.kind in ("conv", "up")]
    axes = Counter(len(conv.kernel) for conv in convs)
    if len(axes) > 1:
        odd_one = next(conv for conv in convs if len(conv.kernel) == min(axes, key=axes.__getitem__))
        raise CheckpointError(
            f"{where}: '{odd_one.name}' is a convolution over {len(odd_one.kernel)} axes, expected "
            f"{axes.most_common(1)[0][0]} as of the others"
        )
    for block in net.blocks:
        kinds = Counter(_kind(unit) for unit in block)
        usual = kinds.most_common(1)[0][0]
        odd = next((unit for unit in block if _kind(unit) != usual), None)
        if odd is not None:
            apart = [
                f"{name} {found} where others have {expected}"
                for name, found, expected in zip(_KINDS, _kind(odd), usual, strict=True)
                if found != expected
            ]
            raise CheckpointError(
                f"{where}: the layers of one block differ: '{odd.name}' has {', '.join(apart)}",
                hint="networks pruned by channels are not supported as checkpoints: export it to ONNX with its own "
                "framework, and give that file",
            )
    joints = {
        (joint.norm is None, joint.conv.kernel, joint.conv.bias, joint.read // joint.conv.read)
        for joint in net.chain.transitions
    }
    if len(joints) > 1:
        raise CheckpointError(f"{where}: the transitions differ in BN, kernel, bias or groups: {joints}")


def _lacking(net: Body, family: Family | None, where: str) -> tuple[str, ...]:
    """Refuse a family's network that lacks a whole BN; remark it in others, which may be made so."""
    bare = [joint.conv.name for joint in net.stem if joint.norm is None]
    if 0 < len(bare) < len(net.stem):
        raise CheckpointError(f"{where}: no BN behind '{bare[0]}', the stem's other convolutions have one")
    missing = [f"in the transition '{joint.conv.name}'" for joint in net.chain.transitions if joint.norm is None][:1]
    missing += ["behind the last block"] * (net.final is None and net.decoder is None)
    missing += [
        f"behind '{joint.conv.name}'"
        for joint in net.stem
        if joint.norm is None and not joint.conv.bias and max(joint.conv.kernel) >= _WIDE_STEM
    ]
    if missing and family is not None and not family.bare:
        raise CheckpointError(
            f"{where}: no BN {missing[0]}, and {family.name} has one there", hint="get the whole checkpoint"
        )
    # Without a family nothing says whether the file or the network lacks it, and both give a whole set of widths.
    return (f"no BN {' and none '.join(missing)}: taken as it is",) if missing and family is None else ()


def _kind(unit: DenseUnit) -> tuple[object, ...]:
    inner = None if unit.narrow is None else unit.narrow.out
    return unit.growth, inner, unit.wide.kernel, _biases(unit), unit.groups, unit.norm2 is None


def _biases(unit: DenseUnit) -> tuple[bool, bool]:
    return unit.narrow is not None and unit.narrow.bias, unit.wide.bias


def _verify_used(gathered: Leaves, net: Body, head: FoundHeads, others: Sequence[str], where: str) -> None:
    """Refuse the file if anything in it has no place: the network may compute with it."""
    steps = [step for row in (head.trunk, *(row for _, row in head.heads)) for step in row]
    used = {leaf for unit in net.units for leaf in unit.leaves} | {step.leaf for step in steps} | {net.final}
    used |= {leaf for joint in (*net.stem, *net.chain.transitions) for leaf in (joint.norm, joint.conv)}
    used |= {*head.dropped, *net.unread, *(net.decoder.leaves if net.decoder is not None else ())}
    left = [leaf for leaf in gathered.layers if leaf not in used]
    names = [name for leaf in left for name in leaf.parts.values()] + list(others)
    if names:
        raise left_over(names, gathered.tensors, where)


def _spec(
    net: Body, head: FoundHeads, decided: DecidedFacts, flags: ArchitectureFacts, *, input_norm: bool, where: str
) -> DenseNetSpec:
    """Put what shapes give and what was decided together."""
    values = {name: value for name, value in decided.values.items() if name not in ("hidden_order", *DECODER_FACTS)}
    decoder = _decoder(net, {name: decided.values[name] for name in DECODER_FACTS if name in decided.values})
    stride, kernel = values.pop("stem_stride"), net.stem[0].conv.kernel
    strides = tuple(stride) if isinstance(stride, (tuple, list)) else (stride,) * len(kernel)
    if len(strides) != len(kernel):
        raise CheckpointError(
            f"{where}: stem stride: expected {len(kernel)} numbers for a {len(kernel)}-D network, found {len(strides)}",
            hint=f"say one for each axis, e.g. --stem-stride {','.join(['2'] * len(kernel))}",
        )
    # A BN folded into the stem's convolution leaves a bias there, and the ReLU behind it stays.
    folded = all(unit.norm2 is None for unit in net.units) and net.units[0].narrow is not None
    stem = tuple(
        StemConv(
            channels=joint.out,
            kernel=joint.conv.kernel,
            stride=strides if at == 0 else (1,) * len(kernel),
            bias=joint.conv.bias,
            norm=joint.norm is not None,
            relu=joint.norm is not None or (folded and joint.conv.bias),
        )
        for at, joint in enumerate(net.stem)
    )
    if decoder is not None:  # an encoder that is cut behind a transition's BN ends with its activation
        values.setdefault("final_relu", net.final is not None)
    if head.pool is not None:
        values["head_pool"] = head.pool
    first = net.chain.transitions[0] if net.chain.transitions else None
    if first is not None:
        values |= {
            "transition_norm": first.norm is not None,
            "transition_kernel": first.conv.kernel[0],
            "transition_bias": first.conv.bias,
            "transition_groups": first.read // first.conv.read,
        }
    return DenseNetSpec(
        in_channels=net.stem[0].conv.read,
        stem=stem,
        blocks=tuple(_block(block) for block in net.chain.blocks),
        transitions=tuple(joint.out for joint in net.chain.transitions),
        heads=head.records,
        trunk=tuple(step.layer for step in head.trunk),
        map_side=head.map_side,
        final_norm=net.final is not None,
        input_norm=input_norm,
        decoder=decoder,
        head_activation=flags.head_activation or "none",
        sources=tuple((name, source.text) for name, source in decided.sources.items()),
        **values,
    )


def _decoder(net: Body, facts: Mapping[str, Any]) -> Decoder | None:
    """Return the decoder's record; None where a head follows the body."""
    found = net.decoder
    if found is None:
        return None
    levels = []
    below = net.chain.width
    for level in found.levels:
        convs = tuple(
            StemConv(
                channels=joint.out,
                kernel=joint.conv.kernel,
                stride=(1,) * len(joint.conv.kernel),
                bias=joint.conv.bias,
                norm=joint.norm is not None,
            )
            for joint in level.convs
        )
        if level.up is None:
            levels.append(UpLevel(channels=below, convs=convs))
            below = convs[-1].channels
        else:
            levels.append(
                UpLevel(
                    channels=decoders.turned(level.up)[1],
                    kernel=level.up.kernel,
                    bias=level.up.bias,
                    reads_all=level.reads_all,
                    block=_block(level.units),
                )
            )
    pyramid = None
    if found.pyramid is not None:
        branch = found.pyramid.branches[0][0][0].out
        merge: Merge = "add" if found.head.read == branch else "cat"
        channels = found.pyramid.laterals[0].out
        pyramid = Pyramid(channels=channels, branch=branch, merge=merge, groups=decoders.SMP_GROUPS)
    return Decoder(levels=tuple(levels), kernel=found.head.kernel, reads_all=found.reads_all, pyramid=pyramid, **facts)


def _block(units: Sequence[DenseUnit]) -> DenseBlock:
    first = units[0]
    return DenseBlock(
        layers=len(units),
        growth=first.growth,
        bottleneck=None if first.narrow is None else first.narrow.out,
        kernel=first.wide.kernel,
        biases=_biases(first),
        groups=first.groups,
        bottleneck_norm=first.narrow is None or first.norm2 is not None,
    )


def _decoder_remarks(net: Body) -> Iterator[str]:
    """Remark what of an encoder takes no part."""
    if net.unread:
        yield f"left out, the decoder does not read it: {leaves.listed(leaf.name for leaf in net.unread)}"


def _head_remarks(head: FoundHeads, known: FactSources, flags: ArchitectureFacts) -> Iterator[str]:
    """Remark what may follow the last linear layer and was left out."""
    for _, steps in head.heads:
        yield from (f"'{step.leaf.name}' has no bias" for step in steps if step.leaf and not step.layer.bias)
    if head.dropped:
        yield "heads left out, as asked: " + leaves.listed(leaf.name for leaf in head.dropped)
    if flags.head_activation is not None:
        return
    sources = [*known.stated, *([known.family.facts] if known.family else [])]
    activation = next((facts.head_activation for facts in sources if facts.head_activation not in (None, "none")), None)
    if activation is not None:
        yield (
            f"its forward pass ends with {activation}: left out, the output is the logits (--head-activation keeps it)"
        )
        return
    for _, steps in head.heads:
        last = steps[-1].leaf
        if last is not None and last.kind == "conv" and head.is_map:
            yield (
                f"a sigmoid or softmax may follow '{last.name}': the output is the logits (--head-activation adds it)"
            )
            continue
        # Nobody makes a `Sequential` of one module: `classifier.0` alone hints at a `classifier.1` without weights.
        if last is not None and last.path[-1:] == ("0",) and len(steps) == 1:
            yield (
                f"'{last.name}' is the first of a list and alone: a sigmoid or softmax may follow it; the output is "
                "the logits (--head-activation adds it)"
            )
