"""What every snapshot store does alike (EV-6)."""

from __future__ import annotations

import zlib

__all__ = ["MAX_SNAPSHOT_BYTES", "packed", "unpacked"]

MAX_SNAPSHOT_BYTES = 8 * 1024 * 1024
"""A snapshot that is larger when packed is not kept: it would take too much room on the log's server."""
_MAX_UNPACKED = 512 * 1024 * 1024
"""Bytes; what claims to be more was not written by `packed`."""
_QUICK = 1
"""States shrink to a twelfth even so, in a fraction of the time that it takes to write them down."""


def packed(data: bytes, *, max_bytes: int) -> bytes | None:
    """The data as it is kept; None when that is over `max_bytes`."""
    small = zlib.compress(data, _QUICK)
    return small if len(small) <= max_bytes else None


def unpacked(small: bytes) -> bytes | None:
    """What `packed` was given; None for anything else."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(small, _MAX_UNPACKED)
    except zlib.error:
        return None
    return data if stream.eof and not stream.unused_data else None
