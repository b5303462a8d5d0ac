"""A file's tensors under canonical names, which are torchvision's, as the rebuilt network loads them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from deploy_kit.checkpoint.architecture.body import Body
from deploy_kit.checkpoint.architecture.dense_layers import DenseUnit
from deploy_kit.checkpoint.architecture.heads import FoundHeads, Step
from deploy_kit.checkpoint.architecture.leaves import Leaf
from deploy_kit.checkpoint.network.densenet_module import DenseNet, is_plain
from deploy_kit.records.densenet import DenseNetSpec


def canonical_names(body: Body, head: FoundHeads, spec: DenseNetSpec) -> Iterator[tuple[str, str]]:
    """Yield (canonical name, name in the file) of every tensor."""
    for at, joint in enumerate(body.stem):
        yield from _parts(f"features.conv{at}", joint.conv)
        yield from _parts(f"features.norm{at}", joint.norm)
    for number, block in enumerate(body.chain.blocks, start=1):
        yield from _block(f"features.denseblock{number}", block)
    for number, joint in enumerate(body.chain.transitions, start=1):
        yield from _parts(f"features.transition{number}.norm", joint.norm)
        yield from _parts(f"features.transition{number}.conv", joint.conv)
    yield from _parts("features.norm5", body.final)
    for number, level in enumerate(body.decoder.levels if body.decoder is not None else (), start=1):
        yield from _parts(f"decoder.level{number}.up", level.up)
        yield from _block(f"decoder.level{number}.block", level.units)
        for at, joint in enumerate(level.convs):
            yield from _parts(f"decoder.level{number}.block.conv{at}", joint.conv)
            yield from _parts(f"decoder.level{number}.block.norm{at}", joint.norm)
    if body.decoder is not None and body.decoder.pyramid is not None:
        for at, leaf in enumerate(body.decoder.pyramid.laterals):
            yield from _parts(f"decoder.laterals.{at}", leaf)
        for at, row in enumerate(body.decoder.pyramid.branches):
            for place, leaf in enumerate(leaf for pair in row for leaf in pair):
                yield from _parts(f"decoder.branches.{at}.{place}", leaf)
    yield from _steps("trunk", head.trunk)
    for at, (_, steps) in enumerate(head.heads):
        yield from _steps(_head_name(at, spec), steps)


def complete_state(stored: dict[str, Tensor], spec: DenseNetSpec, *, channels_last: bool) -> dict[str, Tensor]:
    """Build the state dict that the rebuilt network loads strictly.

    Counters and the weights of BNs that have none are filled in, 1×1 convolutions of heads become matrices.

    Args:
        stored: The file's tensors by canonical name.
        spec: The network.
        channels_last: Whether the file's linear layers read flattened maps as (H, W, C).
    """
    with torch.device("meta"):  # shapes are all that is asked of it
        expected = DenseNet(spec).state_dict()
    state = {}
    for name, tensor in expected.items():
        if name in stored:
            state[name] = stored[name].reshape(tensor.shape).contiguous()
        else:
            state[name] = (torch.ones if name.endswith("weight") else torch.zeros)(tensor.shape, dtype=tensor.dtype)
    if channels_last and spec.head_pool == "flatten":
        first = next(name for name in state if name.startswith(("trunk.", "classifier.", "head.", "heads.")))
        state[first] = _to_channels_first(state[first], spec.width)
    return state


def _block(name: str, units: Sequence[DenseUnit]) -> Iterator[tuple[str, str]]:
    for layer, unit in enumerate(units, start=1):
        start = f"{name}.denselayer{layer}"
        yield from _parts(f"{start}.norm1", unit.norm1)
        yield from _parts(f"{start}.conv1", unit.narrow or unit.wide)
        yield from _parts(f"{start}.norm2", unit.norm2)
        yield from _parts(f"{start}.conv2", unit.wide if unit.narrow else None)


def _to_channels_first(weight: Tensor, channels: int) -> Tensor:
    """Reorder the columns of a linear layer that reads a flattened (H, W, C) map to those of a (C, H, W) map."""
    rows = weight.shape[0]
    return weight.reshape(rows, -1, channels).transpose(1, 2).reshape(rows, -1).contiguous()


def _head_name(at: int, spec: DenseNetSpec) -> str:
    if is_plain(spec):
        return "classifier"
    return "head" if len(spec.heads) == 1 else f"heads.{at}"


def _steps(name: str, steps: Sequence[Step]) -> Iterator[tuple[str, str]]:
    for at, step in enumerate(steps):
        yield from _parts(name if name == "classifier" else f"{name}.{at}", step.leaf)


def _parts(canonical: str, leaf: Leaf | None) -> Iterator[tuple[str, str]]:
    for part, name in leaf.parts.items() if leaf is not None else ():
        yield f"{canonical}.{part}", name
