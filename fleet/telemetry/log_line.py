"""One log record as one line of JSON, or as a readable line (docs/observability.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cause:
    """On whose behalf something happens: empty where nothing is known."""

    story: str = ""
    step: str = ""
    traceparent: str = ""
    """The span of the story's trunk that the work hangs on."""

    @property
    def trace_id(self) -> str:
        """32 hex digits; empty when there is no trace."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """16 hex digits; empty when there is no trace."""
        return self.traceparent[36:52]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """What a record says; its texts have been redacted."""

    at_ms: int
    level: str
    logger: str
    message: str
    process: str
    """Name of the actor, deployment or command."""
    pid: int
    cause: Cause
    traceback: str = ""


def json_line(entry: LogEntry) -> str:
    """One line; absent fields are left out, and no line break is in it."""
    fields: Mapping[str, str | int] = {
        "ts": _rfc3339(entry.at_ms),
        "level": entry.level.lower(),
        "logger": entry.logger,
        "message": entry.message,
        "process": entry.process,
        "pid": entry.pid,
        "story": entry.cause.story,
        "step": entry.cause.step,
        "trace_id": entry.cause.trace_id,
        "span_id": entry.cause.span_id,
        "traceback": entry.traceback,
    }
    return json.dumps({name: value for name, value in fields.items() if value != ""}, ensure_ascii=False)


def text_line(entry: LogEntry) -> str:
    """A line for people; a traceback follows on lines of its own."""
    where = "".join(
        f" {name}={value}" for name, value in (("story", entry.cause.story), ("step", entry.cause.step)) if value
    )
    line = f"{_rfc3339(entry.at_ms)[11:23]} {entry.level:<7} {entry.process}: {entry.message}{where}"
    return f"{line}\n{entry.traceback}" if entry.traceback else line


def _rfc3339(at_ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=at_ms)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"
