"""Frames: a line of JSON, and as many raw bytes behind it as its ``size`` says. What crosses to an agent and back."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PIECE_BYTES = 1 << 18  # bytes of a file in one frame: small enough that replies of other workers do not wait


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One message.

    Attributes:
        head: What it says, as JSON can hold it.
        body: Raw bytes, for a file's content or a worker's line.
    """

    head: dict[str, Any]
    body: bytes = b""

    def packed(self) -> bytes:
        """Write it as it crosses."""
        head = self.head | ({"size": len(self.body)} if self.body else {})
        return json.dumps(head).encode() + b"\n" + self.body


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        """Take bytes from `receive`, which waits for some and gives none at the end of the stream."""
        self._receive = receive
        self._held = b""

    def line(self) -> bytes | None:
        """Give the next line without its end; None at the end of the stream, also in the middle of a line."""
        while b"\n" not in self._held:
            if not self._more():
                return None
        line, _, self._held = self._held.partition(b"\n")
        return line

    def frame(self) -> Frame | None:
        """Give the next frame; None at the end of the stream, also in the middle of a frame."""
        line = self.line()
        if line is None:
            return None
        head = json.loads(line)
        size = int(head.pop("size", 0))
        while len(self._held) < size:
            if not self._more():
                return None
        body, self._held = self._held[:size], self._held[size:]
        return Frame(head=head, body=body)

    def _more(self) -> bool:
        received = self._receive()
        self._held += received
        return bool(received)
