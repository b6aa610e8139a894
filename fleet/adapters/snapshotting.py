"""What every snapshot store does alike (EV-6)."""

from __future__ import annotations

__all__ = ["MAX_SNAPSHOT_BYTES"]

MAX_SNAPSHOT_BYTES = 8 * 1024 * 1024
"""A snapshot with more data is not kept: folding the stream again costs less than its place on the log's server."""
