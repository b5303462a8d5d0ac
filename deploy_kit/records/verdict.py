"""The verdict on an engine in three words, with its reasons and the limits in force."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Word = Literal["accepted", "rejected", "undecided"]
NO_LIMIT = "no limit is set"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What limits and measurements say of one engine.

    Attributes:
        word: ``accepted``: every limit is shown to be kept. ``rejected``: a limit is shown not to be kept.
            ``undecided``: the measurement shows neither, e.g. on too few or doubtful images.
        reasons: Why it is not accepted, as sentences; empty where it is.
        limits: The limits in force, e.g. ``drop ≤ 0.5 points``.
    """

    word: Word
    reasons: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The verdict in one line: its reasons, or the limits that an accepted engine keeps."""
        if self.word == "accepted":
            return f"accepted ({', '.join(self.limits) or NO_LIMIT})"
        return f"{self.word}: {'; '.join(self.reasons)}"

    def with_broken(self, limits: tuple[str, ...]) -> "Verdict":
        """Return the verdict once more limits are shown not to be kept: they reject, whatever else is in doubt."""
        if not limits:
            return self
        earlier = self.reasons if self.word == "rejected" else ()
        return Verdict(word="rejected", reasons=(*earlier, *limits), limits=self.limits)

    def with_doubts(self, doubts: Iterable[str]) -> "Verdict":
        """Return the verdict once there are further reasons for doubt: they accept nothing, and reject nothing."""
        more = tuple(doubts)
        if not more or self.word == "rejected":
            return self
        return Verdict(word="undecided", reasons=(*self.reasons, *more), limits=self.limits)


def decide(*, broken: Iterable[str], doubts: Iterable[str], limits: Iterable[str]) -> Verdict:
    """Return the verdict on one engine.

    Args:
        broken: Limits that are shown not to be kept, as sentences.
        doubts: What keeps the measurement from deciding, as sentences.
        limits: The limits in force.
    """
    return Verdict(word="accepted", limits=tuple(limits)).with_broken(tuple(broken)).with_doubts(doubts)
