"""The lists (``nn.Sequential``) of a pickled network as witness: what they hold is computed, all of it, in that order.

A module of another class computes by code that is no part of the file. Of such a network the lists alone are compared,
and a remark says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import torch_modules
from deploy_kit.checkpoint.architecture.body import Body
from deploy_kit.checkpoint.architecture.heads import FoundHeads, Step
from deploy_kit.records.densenet import DenseNetSpec, Order

Attributes = Mapping[str, Mapping[str, Any]]
Part = Literal["dense", "outer", "stem", "hidden"]
Operation = tuple[str, str]  # (layer, its name), (activation, its name), (pool, what it is); empty: any
_LIST = "torch.nn.modules.container.Sequential"
_TORCH = "torch.nn.modules."
_SLOPE = 0.01  # of a leaky activation, where it does not say
# Modules that compute nothing outside of training, or change a shape alone; the last words of their classes.
_IDLE = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "Identity", "Flatten", "View", "Reshape",
         "Squeeze")  # fmt: skip
# Settings of any module, and of public DenseNets, that change no number of an inference.
_EVERY_MODULE = frozenset({"training", "memory_efficient", "efficient", "inplace"})
_LIBRARIES = ("torch.nn.", "torchvision.models.densenet.", "timm.models.densenet.", "timm.layers.", "monai.networks.",
              "torchxrayvision.models.")  # fmt: skip
_AS_GRAPH = "save it where its code is at hand, as torch.export.save(torch.export.export(model, (x,)), 'model.pt2')"


def verify(
    attributes: Attributes, spec: DenseNetSpec, body: Body, head: FoundHeads, where: str, *, strict: bool
) -> tuple[str, ...]:
    """Compare every list of a pickled network with the order in which the rebuilt one computes.

    Args:
        attributes: Module path → its class and plain attributes; empty where the file is no whole module.
        spec: The rebuilt network.
        body: The network without its head.
        head: Its heads.
        where: The file, for messages.
        strict: Whether to refuse a network that computes by code which is not in the file.

    Returns:
        What was compared, for people.

    Raises:
        CheckpointError: A list computes something else, or holds a module whose code is not in the file; or `strict`,
            and a class is of no known library.
    """
    if not attributes:
        return ()
    rows = list(_rows(spec, body, head))
    ends = {steps[-1].leaf.name for _, steps in head.heads if steps[-1].leaf is not None}
    n_compared = 0
    for path in _lists(attributes):
        for segment in _segments(attributes, path):
            if any(kind == "layer" for kind, _ in segment.operations):
                n_compared += _compare(segment, rows, ends, path, where)
    root = attributes.get("", {})
    outside = (
        f"the order in which '{root.get('class', '')}' computes is code outside of the file and has no witness, "
        f"but for {n_compared} of its lists (nn.Sequential), which agree"
    )
    layers = {name for row in rows for kind, name in row if kind == "layer"}
    own = {torch_modules.kind(entry) for name, entry in attributes.items() if name in layers and _has_own_code(entry)}
    if own:
        outside += f"; its layers of classes of its own are taken as torch's: {', '.join(sorted(own))}"
    switches = [name for name, value in root.items() if value is True and name not in _EVERY_MODULE]
    if switches:
        outside += f"; what its settings change is not known: {', '.join(switches)}"
    if strict and any(map(_has_own_code, attributes.values())):
        raise CheckpointError(f"{where}: {outside}", hint=f"{_AS_GRAPH}, and give that file; or give --probe io.npz")
    return (outside,)


def _has_own_code(entry: Mapping[str, Any]) -> bool:
    """Return whether a module computes by code that is in no library whose DenseNet is known by its names."""
    return not str(entry.get("class", "")).startswith(_LIBRARIES)


def orders(attributes: Attributes, body: Body) -> dict[str, Any]:
    """Read from lists whether transitions have an activation and a pool, and whether it stands before their BNs."""
    found: set[tuple[tuple[str, Any], ...]] = set()
    for joint in body.chain.transitions:
        for path in _lists(attributes):
            if joint.norm is None or not joint.conv.name.startswith(path + "." * bool(path)):
                continue
            norm, conv = ("layer", joint.norm.name), ("layer", joint.conv.name)
            for segment in _segments(attributes, path):
                row = [operation for operation in segment.operations if operation[0] != "pool"]
                if norm not in row or conv not in row:
                    continue
                at, to = row.index(norm), row.index(conv)
                kinds = [kind for kind, _ in row]
                behind, before = "activation" in kinds[at:to], at > 0 and kinds[at - 1] == "activation"
                facts: dict[str, Any] = {"transition_relu": behind or before}
                if behind or before:
                    facts |= {"transition_order": "norm_first" if behind else "activation_first"}
                if segment.leads and len(row) == len(segment.operations):
                    facts |= {"transition_pool": "none"}
                found.add(tuple(facts.items()))
    return dict(found.pop()) if len(found) == 1 else {}


def _lists(attributes: Attributes) -> Iterator[str]:
    """Yield the path of each list; one in another is a part of it."""
    for path, entry in attributes.items():
        parent = attributes.get(path.rpartition(".")[0], {}) if path else {}
        if entry.get("class") == _LIST and parent.get("class") != _LIST:
            yield path


@dataclass(frozen=True)
class _Segment:
    """What a list computes between modules whose order within is not known.

    Attributes:
        operations: Its operations.
        follows: Whether such a module comes directly before it, so that nothing else can.
        leads: Whether one comes directly behind it.
    """

    operations: tuple[Operation, ...]
    follows: bool
    leads: bool


def _segments(attributes: Attributes, path: str) -> Iterator[_Segment]:
    """Yield what a list computes, cut where it holds modules whose order within is not known."""
    row: list[Operation] = []
    follows = False
    for operation in _flat(attributes, path):
        if operation is None:
            yield _Segment(tuple(row), follows, leads=True)
            row, follows = [], True
        else:
            row.append(operation)
    yield _Segment(tuple(row), follows, leads=False)


def _flat(attributes: Attributes, path: str) -> Iterator[Operation | None]:
    start = f"{path}." if path else ""
    depth = len(start.split(".")) - 1
    children = [name for name in attributes if name.startswith(start) and name and name.count(".") == depth]
    for child in children:
        kind = str(attributes[child].get("class", ""))
        last = kind.rpartition(".")[2]
        if kind == _LIST:
            yield from _flat(attributes, child)
        elif kind.startswith((f"{_TORCH}conv.", f"{_TORCH}batchnorm.", f"{_TORCH}linear.Linear")):
            yield "layer", child
        elif kind.startswith(torch_modules.POOLS):
            yield "pool", torch_modules.pool(attributes[child])
        elif last in _IDLE:
            continue
        elif kind.startswith(torch_modules.ACTIVATIONS):
            name = torch_modules.activation(attributes[child])[0]
            yield "activation", torch_modules.active(name, float(attributes[child].get("negative_slope", _SLOPE)))
        elif "Blur" in last or any(name.startswith(f"{child}.") for name in attributes):
            yield None
        else:
            yield "unknown", f"{child}' is a '{last}"


def _compare(segment: _Segment, rows: Sequence[Sequence[Operation]], ends: set[str], path: str, where: str) -> bool:
    """Compare a segment with the row that has its first layer; return whether there is one."""
    operations = segment.operations
    layers = [operation for operation in operations if operation[0] == "layer"]
    row = next((row for row in rows if layers[0] in row), None)
    if row is None:
        return False  # a layer that was left out, as asked, or a branch of a feature pyramid
    start = row.index(layers[0]) - operations.index(layers[0])
    lacking = list(row[: max(start, 0)]) if segment.follows else []
    lacking += row[start + len(operations) :] if segment.leads else []
    if lacking:
        raise _apart(path, None, lacking[0], where)
    for place, operation in enumerate(operations):
        at = start + place
        expected = row[at] if 0 <= at < len(row) else None
        if expected is not None and _fits(operation, expected):
            continue
        if operation[0] == "unknown":
            raise CheckpointError(
                f"{where}: '{operation[1]}', whose code is not in the file", hint=f"{_AS_GRAPH}, and give that file"
            )
        if at >= len(row) and operation[0] == "activation" and row[-1][1] in ends:
            continue  # what follows the last layer, such as a softmax, is remarked elsewhere
        raise _apart(path, operation, expected, where)
    return True


def _apart(path: str, found: Operation | None, expected: Operation | None, where: str) -> CheckpointError:
    return CheckpointError(
        f"{where}: the list '{path}' computes {_text(found)} where the rebuilt network has {_text(expected)}",
        hint="export it to ONNX with the framework it comes from, and give that file",
    )


def _text(operation: Operation | None) -> str:
    if operation is None:
        return "nothing"
    kind, name = operation
    return {"layer": f"'{name}'", "activation": f"an activation ({name})", "pool": f"a pool ({name})"}.get(kind, kind)


def _fits(operation: Operation, expected: Operation) -> bool:
    """Return whether an operation is the expected one; a global pool may have any sides, so that its kind decides."""
    return operation == expected or (expected[0] == operation[0] == "pool" and expected[1] == _global(operation[1]))


def _global(pool: str) -> str:
    """Return ``avg`` or ``max`` of a pool of any sides or to one pixel."""
    return pool.removeprefix("Adaptive").lower()[:3]


def _rows(spec: DenseNetSpec, body: Body, head: FoundHeads) -> Iterator[list[Operation]]:
    """Yield what the rebuilt network computes between concatenations, in order."""

    def normed(name: str | None, act: list[Operation], order: Order) -> list[Operation]:
        norm: list[Operation] = [] if name is None else [("layer", name)]
        return norm + act if order == "norm_first" else act + norm

    def active(part: Part) -> list[Operation]:
        name, slope = spec.active(part)
        return [("activation", torch_modules.active(name, slope))] * (name != "none")

    stem: list[Operation] = []
    for joint, step in zip(body.stem, spec.stem, strict=True):
        stem.append(("layer", joint.conv.name))
        stem += normed(joint.norm.name if joint.norm else None, active("stem") * step.relu, "norm_first")
    yield stem + [("pool", torch_modules.pooled(spec.stem_pool, 3, 2, 1))] * (spec.stem_pool in ("max", "avg"))
    for unit in body.units:
        row = normed(unit.norm1.name, active("dense"), spec.dense_order)
        if unit.narrow is not None:
            row.append(("layer", unit.narrow.name))
            row += normed(unit.norm2.name if unit.norm2 else None, active("dense"), spec.dense_order)
        yield [*row, ("layer", unit.wide.name)]
    halved = torch_modules.pooled(spec.transition_pool, 2, 2, 0)
    for joint in body.chain.transitions:
        norm = joint.norm.name if joint.norm else None
        row = [*normed(norm, active("outer") * spec.transition_relu, spec.transition_order), ("layer", joint.conv.name)]
        yield row + [("pool", halved)] * (spec.transition_pool != "none")
    if body.decoder is not None:
        yield from _decoder_rows(body, active("stem"))
    final = normed(body.final.name if body.final else None, active("outer") * spec.final_relu, spec.final_order)
    if body.decoder is not None:
        yield final
        final = []
    pools = [("pool", spec.head_pool)] * (spec.head_pool in ("avg", "max") and body.decoder is None)
    trunk = [*final, *pools, *_steps(head.trunk, active("hidden"))]
    rows = [_steps(steps, active("hidden")) for _, steps in head.heads] or [[]]
    yield from rows if len(rows) > 1 else []
    yield trunk + rows[0] if len(rows) == 1 else trunk


def _decoder_rows(body: Body, active: list[Operation]) -> Iterator[list[Operation]]:
    assert body.decoder is not None
    for level in body.decoder.levels:
        yield [("layer", level.up.name)] if level.up is not None else []
        row: list[Operation] = []
        for joint in level.convs:
            row += [("layer", leaf.name) for leaf in (joint.conv, joint.norm) if leaf is not None] + active
        yield row


def _steps(steps: Sequence[Step], active: list[Operation]) -> list[Operation]:
    rows = ([("layer", step.leaf.name)] if step.leaf is not None else active for step in steps)
    return [operation for row in rows for operation in row]
