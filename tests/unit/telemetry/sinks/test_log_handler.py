"""Log lines of a process: JSON or text, with the ids of the task, without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from fleet.telemetry.log_line import Cause
from fleet.telemetry.service import on_behalf_of
from fleet.telemetry.sinks.log_handler import FleetLogHandler, log_to, redact_logs

SECRET = "ghp_" + "a1B2" * 9
CAUSE = Cause(story="st-a-1", step="t/1", traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
LOG = logging.getLogger("fleet.of_a_test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def alone() -> Iterator[None]:
    made = logging.getLogRecordFactory()
    redact_logs()
    LOG.propagate = False
    yield
    LOG.propagate = True
    LOG.handlers.clear()
    logging.setLogRecordFactory(made)


def handler(stream: io.StringIO, **more: object) -> FleetLogHandler:
    found = FleetLogHandler(**{"form": "auto", "process": "council:0", "stream": stream, **more})  # pyright: ignore
    LOG.addHandler(found)
    LOG.setLevel("INFO")
    return found


@pytest.mark.usefixtures("alone")
def test_line_elsewhere_than_on_a_terminal_is_json_with_ids_and_without_secrets() -> None:
    stream, levels = io.StringIO(), list[str]()
    handler(stream, counted=levels.append)
    with on_behalf_of(CAUSE):
        LOG.info("plain")
        try:
            raise ValueError(f"token {SECRET}")
        except ValueError:
            LOG.exception("failed with %s", SECRET)
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["message"], first["story"], first["step"]) == ("plain", "st-a-1", "t/1")
    assert first["trace_id"] == CAUSE.trace_id
    assert second["traceback"].startswith("Traceback")
    assert SECRET not in stream.getvalue()
    assert levels == ["error"]


@pytest.mark.usefixtures("alone")
def test_line_on_a_terminal_is_text() -> None:
    stream = Terminal()
    handler(stream)
    LOG.warning("slow")
    assert stream.getvalue().rstrip().endswith("WARNING council:0: slow")


@pytest.mark.usefixtures("alone")
def test_traceback_that_was_made_before_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    found = handler(stream, form="json")
    record = LOG.makeRecord("fleet.x", logging.ERROR, "f", 1, "m", (), None)
    record.exc_text = "Traceback of another process"
    found.emit(record)
    assert json.loads(stream.getvalue())["traceback"] == "Traceback of another process"
    found.emit(LOG.makeRecord("fleet.x", logging.INFO, "f", 1, "%d", ("no number",), None))
    assert "Logging error" in capsys.readouterr().err


def test_second_set_up_replaces_the_first_and_libraries_stay_quiet() -> None:
    one, two = io.StringIO(), io.StringIO()
    log_to(FleetLogHandler(form="json", process="a", stream=one), level="info")
    log_to(FleetLogHandler(form="json", process="b", stream=two), level="info")
    logging.getLogger("fleet.x").info("ours")
    logging.getLogger("httpx").info("a request")
    logging.getLogger("httpx").warning("a warning")
    assert one.getvalue() == ""
    assert [json.loads(line)["message"] for line in two.getvalue().splitlines()] == ["ours", "a warning"]
