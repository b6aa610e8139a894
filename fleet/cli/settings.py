"""Settings of a command: the files and the environment, read once per call."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.local import Addresses, find_running
from fleet.config import FleetSettings, load_settings
from fleet.errors import StoreUnavailable

__all__ = ["absolute_model", "needed_addresses", "settings"]

_RECORDED = "recorded:"


def settings() -> FleetSettings:
    """The settings of this command; ConfigError names what is wrong where."""
    return load_settings(os.environ)


def needed_addresses(found: FleetSettings) -> Addresses:
    """The addresses of the running fleet; StoreUnavailable says how to start one."""
    running = find_running(found.home)
    if running is None:
        raise StoreUnavailable(f"no fleet is running in {found.home}: start one with `fleet up --detach`")
    return running.addresses


def absolute_model(model: str | None) -> str | None:
    """The profile with the folder of a recording made absolute, because actors have another working directory."""
    if model is None or not model.startswith(_RECORDED):
        return model
    return _RECORDED + str(Path(model.removeprefix(_RECORDED)).absolute())
