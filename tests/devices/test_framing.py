"""Frames cross whole, however the bytes are cut; half a frame is none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy_kit.devices.framing import Frame, FrameReader


def reader(data: bytes, size: int) -> FrameReader:
    """Give a reader that receives `size` bytes at a time."""
    pieces = iter([data[at : at + size] for at in range(0, len(data), size)])
    return FrameReader(lambda: next(pieces, b""))


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.dictionaries(st.text(), st.integers()), st.binary())), st.integers(1, 50))
def test_frames_arrive_as_they_were_sent(sent: list[tuple[dict[str, int], bytes]], size: int) -> None:
    heads = [{key: value for key, value in head.items() if key != "size"} for head, _ in sent]
    frames = [Frame(head=head, body=body) for head, (_, body) in zip(heads, sent, strict=True)]
    stream = reader(b"".join(frame.to_bytes() for frame in frames), size)

    assert [stream.read_frame() for _ in frames] == frames
    assert stream.read_frame() is None


@pytest.mark.parametrize("cut", [1, 5, 12, 30])
def test_half_a_frame_is_none(cut: int) -> None:
    data = Frame(head={"answer": 1}, body=b"x" * 20).to_bytes()

    assert reader(data[:-cut], 7).read_frame() is None


def test_lines_and_frames_share_one_stream() -> None:
    stream = reader(b"ready\n" + Frame(head={"answer": 0}, body=b"\n\n").to_bytes(), 3)

    assert stream.read_line() == b"ready"
    assert stream.read_frame() == Frame(head={"answer": 0}, body=b"\n\n")
