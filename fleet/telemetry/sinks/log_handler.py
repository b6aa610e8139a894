"""Log records of a process as lines of JSON, or as readable lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Literal, TextIO

from fleet.redaction.redact import redact
from fleet.telemetry.log_line import LogEntry, json_line, text_line
from fleet.telemetry.service import current_cause

LogForm = Literal["auto", "json", "text"]
"""`auto` is text on a terminal and JSON elsewhere."""
_OURS = ("fleet", "actors", "serve_apps", "cluster")


class FleetLogHandler(logging.Handler):
    """Writes each record as one line, with story, step and trace of the task that made it.

    Records hold no secrets: `redact_logs` takes them out where they are made.

    Args:
        process: name of the actor, deployment or command.
        stream: None is standard error, whatever that is when a record comes.
        counted: is told the level of every warning and error.
    """

    def __init__(
        self,
        *,
        form: LogForm,
        process: str,
        stream: TextIO | None = None,
        counted: Callable[[str], None] = lambda level: None,
    ) -> None:
        super().__init__()
        self._form, self._process = form, process
        self._stream, self._counted = stream, counted

    def format(self, record: logging.LogRecord) -> str:
        """The line of this record."""
        is_json = self._form == "json" or (self._form == "auto" and not self._open_stream.isatty())
        entry = LogEntry(
            at_ms=int(record.created * 1000),
            level=record.levelname,
            logger=record.name,
            message=record.getMessage(),
            process=self._process,
            pid=record.process or os.getpid(),
            cause=current_cause(),
            traceback=_traceback(record),
        )
        return json_line(entry) if is_json else text_line(entry)

    def emit(self, record: logging.LogRecord) -> None:
        """The line is written; warnings and errors are counted."""
        try:
            if record.levelno >= logging.WARNING:
                self._counted(record.levelname.lower())
            stream = self._open_stream
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:
            # What every handler of the library does: a line that cannot be written must not stop who wrote it.
            self.handleError(record)

    @property
    def _open_stream(self) -> TextIO:
        return self._stream or sys.stderr


def _traceback(record: logging.LogRecord) -> str:
    if record.exc_text:
        return record.exc_text
    error = record.exc_info
    return logging.Formatter().formatException(error) if error and error[1] is not None else ""


def redact_logs() -> None:
    """From here on no log record of this process holds a secret, whoever made it; doing it again changes nothing."""
    inner = logging.getLogRecordFactory()
    if not isinstance(inner, _RedactingRecords):
        logging.setLogRecordFactory(_RedactingRecords(inner))


class _RedactingRecords:
    """Makes records as `inner` does, and takes secrets out of their text and of the traceback they carry."""

    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self._inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._inner(*args, **kwargs)
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # What cannot be formatted is reported by the handler, as ever.
            return record
        plain = redact(text).text
        if plain != text:
            record.msg, record.args = plain, ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info)).text
        return record


def log_to(handler: FleetLogHandler, *, level: str) -> None:
    """Records of this process go without secrets to the handler, in place of one that was set before.

    Those of our own modules do from `level` on, and of libraries only warnings and errors: some tell every request.
    """
    redact_logs()
    root = logging.getLogger()
    for present in [one for one in root.handlers if isinstance(one, FleetLogHandler)]:
        root.removeHandler(present)
    root.addHandler(handler)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
