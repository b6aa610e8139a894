"""What a run prints, line by line: live, and as the NDJSON that is kept (RC-22, RC-35)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fleet.kernel.types import Frozen

MAX_LINE_CHARS = 16_384
"""A longer line is cut into several."""


class LogLine(Frozen):
    """One line. `n` counts both streams of a run together from 1, so a reader can go on where it stopped."""

    n: Annotated[int, Field(ge=1)]
    ts_ms: int
    """When it was read, in UTC milliseconds since the Unix epoch."""
    stream: Literal["stdout", "stderr"]
    level: Literal["info", "error"] = "info"
    line: str
    """Without its newline; undecodable bytes replaced, secrets redacted."""
