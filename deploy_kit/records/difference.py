"""Records of a comparison of two forms of one network: the error at each point, and where the two begin to differ."""

from dataclasses import dataclass
from typing import Literal

Sign = Literal["fall", "lost channel", ""]


@dataclass(frozen=True, kw_only=True)
class PointDifference:
    """Error of the second network at one point, against the first.

    Attributes:
        point: Name of the point, e.g. ``denseblock3.denselayer14.conv2``.
        sqnr_db: Signal-to-quantization-noise ratio in dB; ``inf`` where both are equal, ``-inf`` where one is not
            finite.
        expected_db: SQNR in dB that the points before this one lead to expect.
        max_error: Largest absolute difference, in the network's own units; NaN where either network gives NaN.
        channel: Index of the channel with the most error for its variance, among those that carry a signal; -1 where
            none does.
        channel_db: SQNR of that channel in dB, with its variance as the signal.
        session: Number of the session that observed the point; points with the same number were observed together.
        undisturbed_db: SQNR in dB of the logits while the point was observed against the logits while nothing was
            observed, in the more disturbed of the two networks; ``inf`` where observing changed nothing.
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
    """Where two forms of one network begin to differ.

    Attributes:
        first: Label of the reference.
        second: Label of the network that is compared with it.
        computed_by: Runtime that computed the first and the second.
        n: Number of images.
        images: Name of the image set.
        points: Compared points, in order of computation.
        unlike: Points that only one of the two networks has.
        part: First point at which they differ by more than quantization explains; empty where there is none.
        sign: How that shows: a ``fall`` of the SQNR, or a ``lost channel``; empty where there is no such point.
        every_layer: Whether all layers were compared; otherwise only the ends of blocks and the layers of one block.
        verdict: The result in one sentence.
        sha256: sha256 of the first and of the second file; empty in records of earlier versions.
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
    sha256: tuple[str, str] = ("", "")
