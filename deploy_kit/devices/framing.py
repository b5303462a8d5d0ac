"""Frames between host and agent: a line of JSON, followed by as many raw bytes as its ``size`` gives."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PIECE_BYTES = 1 << 18  # of a file in one frame: small enough that replies of other workers do not wait for long


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One message between host and agent.

    Attributes:
        head: Kind and arguments of the message, as JSON can hold them.
        body: Raw bytes: a piece of a file, or a line of a worker.
    """

    head: dict[str, Any]
    body: bytes = b""

    def to_bytes(self) -> bytes:
        """Return the frame as it is sent."""
        head = self.head | ({"size": len(self.body)} if self.body else {})
        return json.dumps(head).encode() + b"\n" + self.body


class FrameReader:
    """Splits a stream of bytes into frames."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        """Create a reader.

        Args:
            receive: Waits for bytes and returns them; it returns none at the end of the stream.
        """
        self._receive = receive
        self._buffer = b""

    def read_line(self) -> bytes | None:
        """Return the next line without its line feed; None at the end of the stream, even within a line."""
        while b"\n" not in self._buffer:
            if not self._receive_more():
                return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def read_frame(self) -> Frame | None:
        """Return the next frame; None at the end of the stream, even within a frame."""
        line = self.read_line()
        if line is None:
            return None
        head = json.loads(line)
        size = int(head.pop("size", 0))
        while len(self._buffer) < size:
            if not self._receive_more():
                return None
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return Frame(head=head, body=body)

    def _receive_more(self) -> bool:
        received = self._receive()
        self._buffer += received
        return bool(received)
