"""Attributes of a pickled network's modules → facts. The forward pass itself is never known from them.

A module that can serve one purpose only, where it stands, states a fact: the activation inside a dense layer, the pool
inside a transition, a BN's epsilon, the stem's stride. An absent module proves nothing: it may be a function call.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import module_lists, paths, torch_modules
from deploy_kit.checkpoint.architecture.body import Body
from deploy_kit.checkpoint.architecture.heads import FoundHeads
from deploy_kit.checkpoint.architecture.leaves import Leaf
from deploy_kit.checkpoint.architecture.paths import Path
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source

Attributes = Mapping[str, Mapping[str, Any]]
_SOURCE = Source("file", "attributes of the file's modules")
_AS_ONNX = "export it to ONNX with the framework it comes from, and give that file"
_HEAD_ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}


def facts(attributes: Attributes, body: Body, head: FoundHeads, where: str) -> ArchitectureFacts:
    """Collect what modules state.

    Args:
        attributes: Module path → class and plain attributes, in the order of the modules.
        body: The network without its head.
        head: The network's heads.
        where: The file, for messages.

    Raises:
        CheckpointError: They state what this version does not rebuild: dilation, other padding, another activation,
            leaky activations of several slopes in one part of the network.
    """
    if not attributes:
        return ArchitectureFacts()
    _verify_convs(attributes, body, where)
    stated: dict[str, Any] = {}
    epsilons = {attributes[name]["eps"] for name in _norms(body) if "eps" in attributes.get(name, {})}
    if len(epsilons) > 1:
        raise CheckpointError(f"{where}: BNs with different eps: {', '.join(map(str, sorted(epsilons)))}")
    if epsilons:
        stated["eps"] = float(epsilons.pop())
    rows = [step for row in (head.trunk, *(row for _, row in head.heads)) for step in row]
    hidden = {
        attributes[step.leaf.name].get("eps")
        for step in rows
        if step.leaf and step.leaf.name in attributes and step.layer.kind == "norm"
    }
    if len(hidden) == 1 and isinstance(eps := hidden.pop(), float):
        stated["hidden_eps"] = eps
    stride = attributes.get(body.stem[0].conv.name, {}).get("stride")
    if stride is not None:
        stated["stem_stride"] = tuple(stride) if isinstance(stride, (tuple, list)) else int(stride)
    stated |= _activations_of(attributes, body, head, where)
    pools = {kind for joint in body.chain.transitions if (kind := _pool(attributes, joint.conv.path[:-1], body, where))}
    if len(pools) == 1:
        stated["transition_pool"] = pools.pop()
    stem_pool = _stem_pool(attributes, body, where)
    if stem_pool:
        stated["stem_pool"] = stem_pool
    if (crop := _up_crop(attributes, body, where)) is not None:
        stated["up_crop"] = crop
    return ArchitectureFacts(**stated | module_lists.orders(attributes, body), source=_SOURCE)


def _up_crop(attributes: Attributes, body: Body, where: str) -> str | None:
    """Read from transposed convolutions which pixels stay; None where code outside of the file cuts what they give."""
    crops = set()
    for leaf in (level.up for level in (body.decoder.levels if body.decoder else ()) if level.up is not None):
        entry = attributes.get(leaf.name, {})
        stated = {option: entry.get(option) for option in ("stride", "padding", "output_padding", "dilation")}
        sides = {option: set(_listed(value)) for option, value in stated.items() if value is not None}
        padding, further = sides.get("padding", {0}), sides.get("output_padding", {0})
        usual = {0}, {(min(leaf.kernel) - 2) // 2}
        late = padding == {1} and further == {1} and set(leaf.kernel) == {3}
        known = late or (padding in usual and further == {0})
        if sides.get("stride", {2}) != {2} or sides.get("dilation", {1}) != {1} or not known:
            said = ", ".join(f"{option} {value}" for option, value in stated.items() if value is not None)
            raise CheckpointError(f"{where}: '{leaf.name}' has {said}: not supported", hint=_AS_ONNX)
        crops.add("end" if late else None)
    return crops.pop() if len(crops) == 1 else None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _norms(body: Body) -> Iterable[str]:
    """List the names of the body's BNs; a head's may have another epsilon."""
    leaves = [leaf for unit in body.units for leaf in unit.leaves if leaf.kind == "norm"]
    leaves += [joint.norm for joint in (*body.stem, *body.chain.transitions) if joint.norm is not None]
    leaves += [leaf for leaf in (body.decoder.leaves if body.decoder else ()) if leaf.kind == "norm"]
    return [leaf.name for leaf in (*leaves, *([body.final] if body.final else []))]


def _below(attributes: Attributes, home: Path) -> Iterable[Mapping[str, Any]]:
    """List the modules inside a module."""
    start = ".".join(home) + "."
    return [entry for name, entry in attributes.items() if name.startswith(start)]


def _activations_of(attributes: Attributes, body: Body, head: FoundHeads, where: str) -> dict[str, Any]:
    """Read the activations of dense layers, transitions and head, where each of them has one kind alone."""
    inner = [list(_below(attributes, unit.path or unit.home)) for unit in body.units]
    homes = [joint.conv.path[:-1] for joint in body.chain.transitions]
    outer = [list(_below(attributes, home)) for home in homes if _is_apart(home, body)]
    hidden, last = _of_head(attributes, body, head)
    facts: dict[str, Any] = {"head_activation": _HEAD_ACTIVATIONS.get(torch_modules.kind(last))}
    for name, groups in (("activation", inner), ("outer_activation", outer), ("hidden_activation", [hidden])):
        kinds = {kind for entries in groups for kind in _activations(entries, where)}
        facts[name] = kinds.pop() if len(kinds) == 1 else None
    slopes = {
        "slope": _slope(inner, where),
        "outer_slope": _slope(outer, where),
        "hidden_slope": _slope([hidden], where),
    }
    known = {slope for slope in slopes.values() if slope is not None}
    return facts | ({"slope": known.pop()} if len(known) == 1 else slopes)


def _slope(groups: Iterable[Iterable[Mapping[str, Any]]], where: str) -> float | None:
    """Return the slope of the leaky activations of one part of the network."""
    entries = [entry for group in groups for entry in group if torch_modules.kind(entry) == "LeakyReLU"]
    slopes = {float(entry["negative_slope"]) for entry in entries if "negative_slope" in entry}
    if len(slopes) > 1:
        raise CheckpointError(
            f"{where}: leaky activations of different slopes in one part of the network: "
            + ", ".join(map(str, sorted(slopes))),
            hint=_AS_ONNX,
        )
    return slopes.pop() if slopes else None


def _is_apart(home: Path, body: Body) -> bool:
    """Return whether a module holds no dense layer, so that what it holds is its own."""
    return bool(home) and not any(unit.path[: len(home)] == home for unit in body.units)


def _of_head(attributes: Attributes, body: Body, head: FoundHeads) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """Return the modules between the head's linear layers, and the one that ends its ``Sequential``."""
    between: list[Mapping[str, Any]] = []
    last: Mapping[str, Any] = {}
    for row in (head.trunk, *(steps for _, steps in head.heads)):
        names = [step.leaf.path for step in row if step.leaf is not None]
        home = paths.shared(name[:-1] for name in names)
        if not names or not _is_apart(home, body):
            continue
        below = [name for name in attributes if name.startswith(".".join(home) + ".")]
        ends = [below.index(".".join(name)) for name in (names[0], names[-1]) if ".".join(name) in below]
        if len(ends) == 2:
            between += [attributes[name] for name in below[ends[0] : ends[1]]]
            # Only a `Sequential` calls what it holds last; elsewhere the last module may be called first, or never.
            if torch_modules.kind(attributes[".".join(home)]) == "Sequential" and ends[1] < len(below) - 1:
                last = attributes[below[-1]]
    return between, last


def _activations(entries: Iterable[Mapping[str, Any]], where: str) -> list[str]:
    found = [torch_modules.activation(entry) for entry in entries]
    unknown = next((name for name, rebuilt in found if name and not rebuilt), None)
    if unknown:
        raise CheckpointError(
            f"{where}: one of its modules is {unknown}, an activation that is not supported", hint=_AS_ONNX
        )
    return [name for name, _ in found if name]


def _pool(attributes: Attributes, home: Path, body: Body, where: str) -> str | None:
    """Return the one kind of pool within a module; in a transition of its own no other than 2×2 is supported."""
    entries = [entry for entry in _below(attributes, home) if "pool" in torch_modules.kind(entry).lower()]
    usual = {torch_modules.pooled(name, 2, 2, 0): name for name in ("avg", "max")} | {"avg": "avg", "max": "max"}
    pools = {torch_modules.pool(entry) for entry in entries}
    if _is_apart(home, body):
        _verify_pool(next((pool for pool in pools if pool not in usual), ""), f"the pool of '{'.'.join(home)}'", where)
    names = {pool.partition(",")[0] for pool in pools} & {"avg", "max"}
    return names.pop() if len(names) == 1 else None


def _verify_pool(unlike: str, what: str, where: str) -> None:
    if unlike:
        raise CheckpointError(f"{where}: {what} is {unlike}: not supported", hint=_AS_ONNX)


def _stem_pool(attributes: Attributes, body: Body, where: str) -> str | None:
    """Look for a pool beside the stem's convolution, outside of blocks and transitions."""
    conv, first = body.stem[-1].conv, body.units[0]
    roof = paths.shared((conv.path[:-1], first.home))
    homes = [".".join(unit.home[: len(roof) + 1]) for unit in body.units]
    homes += [".".join(joint.path[: len(roof) + 1]) for joint in body.chain.transitions]
    start = ".".join(roof) + "." if roof else ""
    for name, entry in attributes.items():
        inside = name.startswith(start) and not any(name == home or name.startswith(home + ".") for home in homes)
        if inside and torch_modules.kind(entry).startswith("MaxPool"):
            pool, usual = torch_modules.pool(entry), torch_modules.pooled("max", 3, 2, 1)
            if ", stride 2," not in pool:  # a blur that halves the map may follow
                return None
            _verify_pool(pool * (pool != usual), f"'{name}', the stem's pool,", where)
            return "max"
    return None


def _verify_convs(attributes: Attributes, body: Body, where: str) -> None:
    leaves = [leaf for unit in body.units for leaf in unit.leaves if leaf.kind == "conv"]
    leaves += [joint.conv for joint in body.chain.transitions]
    leaves += [leaf for leaf in (body.decoder.leaves if body.decoder else ()) if leaf.kind == "conv"]
    leaves = [
        leaf for leaf in leaves if leaf not in {level.up for level in (body.decoder.levels if body.decoder else ())}
    ]
    for leaf in leaves:
        _verify_conv(attributes.get(leaf.name, {}), leaf, where, strided=False)
    for at, joint in enumerate(body.stem):
        _verify_conv(attributes.get(joint.conv.name, {}), joint.conv, where, strided=at == 0)


def _verify_conv(entry: Mapping[str, Any], leaf: Leaf, where: str, *, strided: bool) -> None:
    """Refuse a convolution that the rebuilt network would compute otherwise."""
    same = [side // 2 for side in leaf.kernel]
    rebuilt = {"padding": same, "dilation": [1] * len(same)} | ({} if strided else {"stride": [1] * len(same)})
    for option, expected in rebuilt.items():
        stated = entry.get(option)
        if stated is None or stated == "same":
            continue
        sides = _listed(stated) * (1 if isinstance(stated, (tuple, list)) else len(same))
        if sides != expected:
            raise CheckpointError(
                f"{where}: '{leaf.name}' has {option} {sides}, expected {expected}: not supported", hint=_AS_ONNX
            )
    if entry.get("padding_mode", "zeros") != "zeros":
        raise CheckpointError(
            f"{where}: '{leaf.name}' pads with {entry['padding_mode']}, expected zeros: not supported",
            hint=_AS_ONNX,
        )
