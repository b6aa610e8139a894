"""Settings of a command: the files and the environment, read once per call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.local.record import find_running
from fleet.config.environment import configuration_warnings, load_settings
from fleet.config.settings import FleetSettings
from fleet.kernel.errors import StoreUnavailable
from fleet.models.engines.recorded import read_about
from fleet.models.profiles import RECORDED_PREFIX, recorded_directory, recorded_profile

if TYPE_CHECKING:
    from fleet.wiring.places import StorePlaces


def settings() -> FleetSettings:
    """The settings of this command; ConfigError names what is wrong where."""
    return load_settings(os.environ)


def warnings_of(fleet_settings: FleetSettings) -> list[str]:
    """Keys of its files and variables that have no effect any more, each with its place and what to do."""
    return configuration_warnings(fleet_settings, os.environ)


def needed_addresses(fleet_settings: FleetSettings) -> StorePlaces:
    """Where the stores of the fleet answer: of the one that is up here, else those that the settings name.

    The latter is so in a pod of a cluster, where the fleet is no process of this home. StoreUnavailable says how to
    start a fleet when neither is there.
    """
    running = find_running(fleet_settings.home)
    if running is not None:
        return running.addresses
    if fleet_settings.redis_url is not None and not fleet_settings.needs_graph:
        from fleet.wiring.places import given_places

        return given_places(fleet_settings)
    raise StoreUnavailable(f"no fleet is running in {fleet_settings.home}: start one with `fleet up --detach`")


def absolute_model(model: str | None) -> str | None:
    """The profile with the folder of a recording made absolute, because actors have another working directory.

    It gets the terms that the recording was made under, where the folder says so.
    """
    named = recorded_directory(model) if model is not None else None
    if model is None or named is None:
        return model
    folder, terms = Path(named).absolute(), model.removeprefix(f"{RECORDED_PREFIX}{named}")
    about = read_about(folder) if not terms else None
    if about is None:
        return f"{RECORDED_PREFIX}{folder}{terms}"
    return recorded_profile(
        str(folder), strategy=about.strategy, max_context=about.max_context, max_output=about.max_output
    )
