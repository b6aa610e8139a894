from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.sandbox.backends.output import EDGE_BYTES, StreamBuffer
from fleet.trees.memory import MemoryBlobStore


async def test_short_stream_is_whole_in_its_head() -> None:
    buffer = StreamBuffer(1 << 20)
    buffer.feed(b"one\n")
    buffer.feed(b"two \xff\n\n")
    stored = await buffer.store(MemoryBlobStore())

    assert (stored.head, stored.tail, stored.truncated, stored.total_bytes) == ("one\ntwo \ufffd\n\n", "", False, 11)
    assert buffer.last_line == "two \ufffd"


async def test_empty_stream_has_no_blob() -> None:
    assert (await StreamBuffer(10).store(MemoryBlobStore())).blob is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 50_000), max_size=8), st.integers(0, 120_000))
async def test_any_stream_keeps_head_tail_and_count(sizes: list[int], max_bytes: int) -> None:
    buffer, blobs = StreamBuffer(max_bytes), MemoryBlobStore()
    data = b"".join(bytes([65 + n % 26]) * size for n, size in enumerate(sizes))
    at = 0
    for size in sizes:
        buffer.feed(data[at : at + size])
        at += size
    stored = await buffer.store(blobs)

    assert stored.total_bytes == len(data)
    if stored.truncated:
        assert stored.head.encode() == data[: min(EDGE_BYTES, max_bytes)]
        assert stored.tail.encode() == data[-EDGE_BYTES:]
    else:
        assert stored.head.encode() == data
    if stored.blob is not None:
        assert await blobs.get(stored.blob) == data[:max_bytes]
