"""Dense layers and transitions → blocks in their order, by channel arithmetic: each must read what came before.

Numbers in the names only choose between orders that the arithmetic allows; where neither decides, the file is refused.
The order in the file is not asked: safetensors sorts its names.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deploy_kit.checkpoint.architecture import paths
from deploy_kit.checkpoint.architecture.dense_layers import ChainError, DenseUnit, Joint
from deploy_kit.checkpoint.architecture.paths import Path

_MAX_STEPS = 20_000  # bounds the search on names without numbers, where every order of equal blocks is tried
Run = tuple[DenseUnit, ...]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Blocks in order, and the transition behind each but (usually) the last.

    Attributes:
        blocks: Dense layers of each block.
        transitions: Transitions in order; as many as blocks where one stands behind the last block too.
    """

    blocks: tuple[Run, ...]
    transitions: tuple[Joint, ...]

    @property
    def width(self) -> int:
        """Channels of the last map."""
        if len(self.transitions) == len(self.blocks):
            return self.transitions[-1].out
        return end(self.blocks[-1])


def end(run: Run) -> int:
    """Return the channels behind a run of dense layers."""
    return run[-1].read + run[-1].growth


def home_of(run: Run) -> str:
    """Name the module that a block's layers share."""
    home = ".".join(paths.shared(unit.path for unit in run) if len(run) > 1 else run[0].home)
    return home if home and run[0].wide.name.startswith(home) else run[0].wide.name


def runs(units: Sequence[DenseUnit], transitions: Sequence[Joint]) -> list[Run]:
    """Split dense layers into runs in which each reads what the one before it ends with.

    Args:
        units: Dense layers in any order.
        transitions: Transitions in any order.

    Raises:
        ChainError: A layer in the middle is missing; its siblings say which.
    """
    families: dict[Path, list[DenseUnit]] = {}
    for unit in units:
        families.setdefault(unit.home[:-1], []).append(unit)
    pieces: list[Run] = []
    for parent, members in families.items():
        # Siblings of distinct widths are in order by width; where widths repeat, a module holds several blocks.
        distinct = len({unit.read for unit in members}) == len(members)
        members.sort(key=lambda unit: unit.read if distinct else 0)
        if not distinct or _is_flat(parent, transitions):
            members.sort(key=lambda unit: paths.counting(unit.home))
        pieces += _split(members, parent, transitions)
    return pieces


def arrange(
    units: Sequence[DenseUnit], transitions: Sequence[Joint], start: int, steps: Iterator[int] | None = None
) -> Chain:
    """Put everything into the one order that the widths allow.

    Args:
        units: Dense layers in any order.
        transitions: Transitions in any order.
        start: Channels that the stem gives.
        steps: Steps that searches in one file take together.

    Raises:
        ChainError: There is none, or there are several and the names have no numbers that choose.
    """
    pieces = sorted(runs(units, transitions), key=lambda run: paths.counting(run[0].home))
    joints = sorted(transitions, key=lambda joint: paths.counting(joint.path))
    search = _ChainSearch(pieces, joints, itertools.count() if steps is None else steps)
    orders = list(itertools.islice(_orders(pieces, joints, start, search), 2))  # two are enough to be ambiguous
    if not orders:
        raise ChainError(_break(pieces, joints, start))
    if len(orders) > 1 and not (search.counted and search.joints_counted):
        names = ", ".join(home_of(run) for run in orders[0].blocks)
        raise ChainError(f"the blocks fit in several orders, and their names have no numbers that choose: {names}")
    numbers = [paths.counting(run[0].home) for run in orders[0].blocks]
    if search.counted and numbers != sorted(numbers):  # widths that fit against the numbers: something is missing
        raise ChainError(_break(pieces, joints, start))
    return orders[0]


def _is_flat(parent: Path, transitions: Sequence[Joint]) -> bool:
    """Return whether transitions stand in one list with the dense layers."""
    return any(
        joint.path[: len(parent)] == parent and paths.numbers(joint.path[len(parent) :][:1]) for joint in transitions
    )


def _split(members: Sequence[DenseUnit], parent: Path, transitions: Sequence[Joint]) -> list[Run]:
    """Split siblings where the next does not read what the last ended with, or where a transition stands between."""
    pieces: list[list[DenseUnit]] = [[members[0]]]
    for before, unit in itertools.pairwise(members):
        reached = before.read + before.growth
        between = any(
            (joint.read, joint.out) == (reached, unit.read)
            and joint.path[: len(parent)] == parent
            and paths.counting(before.home) < paths.counting(joint.path) < paths.counting(unit.home)
            for joint in transitions
        )
        if unit.read == reached and not between:
            pieces[-1].append(unit)
        elif unit.read > reached and not between and len(pieces[-1]) + len(members) > 2:
            # A jump upwards is a missing layer; asked before transitions are placed, or the transition gets the blame.
            _refuse_gap(members, parent, unit, reached, transitions)
            pieces.append([unit])
        else:
            pieces.append([unit])
    return [tuple(run) for run in pieces]


def _refuse_gap(
    members: Sequence[DenseUnit], parent: Path, unit: DenseUnit, reached: int, transitions: Sequence[Joint]
) -> None:
    """Refuse a jump of width among siblings: a layer between them is missing."""
    if any(joint.read == reached and joint.out == unit.read for joint in transitions):
        return
    names = [member.home[len(parent)] if len(member.home) > len(parent) else "" for member in members]
    missing = paths.siblings_missing(names)
    siblings = ", ".join(names)
    hint = f"{siblings}: {', '.join(missing)} missing?" if missing else f"its layers: {siblings}"
    raise ChainError(
        f"{'.'.join(parent) or 'the dense layers'}: expected {reached} input channels, found {unit.read} "
        f"in '{unit.name}' ({hint})"
    )


def _orders(pieces: list[Run], joints: list[Joint], width: int, search: "_ChainSearch") -> Iterator[Chain]:
    """Yield the orders depth first, as the numbers sort them; of pieces that are alike, the first by number alone."""
    if next(search.steps) > _MAX_STEPS:
        return
    tried = set()
    for index, run in enumerate(pieces):
        if run[0].read != width or (key := search.key(run)) in tried:
            continue
        tried.add(key)
        rest = pieces[:index] + pieces[index + 1 :]
        if not rest and not joints:
            yield Chain(blocks=(run,), transitions=())
        for chain in _joined(rest, joints, end(run), search):
            yield Chain(blocks=(run, *chain.blocks), transitions=chain.transitions)


def _joined(rest: list[Run], joints: list[Joint], width: int, search: "_ChainSearch") -> Iterator[Chain]:
    """Yield each way to go on with a transition that reads `width`."""
    tried = set()
    for at, joint in enumerate(joints):
        key = search.joint_key(joint)
        if joint.read != width or key in tried:
            continue
        tried.add(key)
        left = joints[:at] + joints[at + 1 :]
        if not rest and not left:
            yield Chain(blocks=(), transitions=(joint,))
        for chain in _orders(rest, left, joint.out, search):
            yield Chain(blocks=chain.blocks, transitions=(joint, *chain.transitions))


class _ChainSearch:
    """State of a search: whether numbers order the pieces, and how many steps it has taken."""

    def __init__(self, pieces: Sequence[Run], joints: Sequence[Joint], steps: Iterator[int]) -> None:
        self.counted = _counted([run[0].home for run in pieces])
        self.joints_counted = _counted([joint.path for joint in joints])
        self.steps = steps

    def key(self, run: Run) -> object:
        """Return what makes two runs the same to the search: where numbers order them, their widths."""
        return tuple((unit.read, unit.growth) for unit in run) if self.counted else run[0].home

    def joint_key(self, joint: Joint) -> object:
        """Return what makes two transitions the same to the search."""
        return joint.out if self.joints_counted else joint.path


def _counted(names: Sequence[Path]) -> bool:
    """Return whether numbers alone put paths into an order."""
    return len({paths.numbers(path) for path in names}) == len(names)


def _break(pieces: Sequence[Run], joints: Sequence[Joint], start: int) -> str:
    """Describe where the widths no longer fit, following the numbers in the names."""
    width, rest, left, after = start, list(pieces), list(joints), "the stem"
    while rest:
        run = next((piece for piece in rest if piece[0].read == width), None)
        if run is None:
            return _no_reader(rest, width, after)
        rest.remove(run)
        width, after = end(run), f"'{home_of(run)}'"
        joint = next((joint for joint in left if joint.read == width), None)
        if joint is None and (rest or left):
            widths = ", ".join(str(joint.read) for joint in left) or "none"
            return f"{after} ends with {width} channels, and no transition reads them (transitions read: {widths})"
        if joint is not None:
            left.remove(joint)
            width, after = joint.out, f"'{joint.conv.name}'"
    names = ", ".join(joint.conv.name for joint in left)
    return f"convolutions that fit nowhere between the blocks: {names}" if names else "the blocks fit in no order"


def _no_reader(rest: Sequence[Run], width: int, after: str) -> str:
    """Describe that no block reads what comes before it."""
    run = rest[0]
    widths = ", ".join(str(piece[0].read) for piece in rest)
    missing = paths.siblings_missing([unit.home[-1] for unit in run if unit.home])
    lacking = f"; {', '.join(missing)} missing?" if missing else ""
    return (
        f"{home_of(run)}: expected {width} input channels behind {after}, found {run[0].read} "
        f"(blocks read: {widths}{lacking})"
    )
