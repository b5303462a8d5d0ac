"""The nouns of a comparison within two networks: what was found at each point, and where the two part."""

from dataclasses import dataclass
from typing import Literal

Sign = Literal["fall", "lost channel", ""]


@dataclass(frozen=True, kw_only=True)
class PointDifference:
    """What was found at one point.

    Attributes:
        point: Its coordinate, e.g. ``denseblock3.denselayer14.conv2``.
        sqnr_db: Of the second against the first; ``inf`` where both are equal, ``-inf`` where one is not finite.
        expected_db: What the points before it let one expect.
        max_error: Largest |difference|, in the network's own units; NaN where one of them is.
        channel: The channel that is worst off, of those that carry a signal; -1 where none does.
        channel_db: That channel's SQNR, the signal being its variance.
        session: Number of the run that observed it: points of one number were observed together.
        undisturbed_db: SQNR of the logits while this was observed against those while nothing was, of the worse of the
            two; ``inf`` where observing changed nothing.
    """

    point: str
    sqnr_db: float
    expected_db: float
    max_error: float
    channel: int
    channel_db: float
    session: int
    undisturbed_db: float


@dataclass(frozen=True, kw_only=True)
class NetworkDifference:
    """Where two forms of one network differ.

    Attributes:
        first: Label of the one that the other is held against.
        second: Label of the other.
        computed_by: What computed each of them.
        n: Images.
        images: Name of their set.
        points: In the order in which they are computed.
        unlike: Points that one of the two does not have.
        part: The first point at which the two part; empty where there is none.
        sign: How that shows.
        every_layer: Whether all layers were looked at; else the blocks' ends, and one block's layers.
        verdict: All that in a sentence.
    """

    first: str
    second: str
    computed_by: tuple[str, str]
    n: int
    images: str
    points: tuple[PointDifference, ...]
    unlike: tuple[str, ...]
    part: str
    sign: Sign
    every_layer: bool
    verdict: str
