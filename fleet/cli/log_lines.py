"""`fleet --log-json`: the log lines of the command, and of what it starts, are JSON."""

from __future__ import annotations

import os
from typing import Annotated

import typer

__all__ = ["LogJson", "write_json_logs"]

_VARIABLE = "FLEET_OBSERVABILITY_LOG_FORM"


def write_json_logs(is_wanted: bool) -> bool:
    """Log records of this process become lines of JSON on standard error; a fleet that it starts does the same."""
    if is_wanted:
        from fleet.adapters.memory import NoMeter
        from fleet.config import ObservabilitySettings
        from fleet.wiring.telemetry import set_up_logs

        os.environ[_VARIABLE] = "json"
        set_up_logs(ObservabilitySettings(log_form="json"), "command-line", meter=NoMeter())
    return is_wanted


LogJson = Annotated[bool, typer.Option("--log-json", callback=write_json_logs, help="Write log lines as JSON.")]
