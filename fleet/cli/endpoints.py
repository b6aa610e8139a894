"""What a command needs to know of a fleet: where its parts are, and the rules that it works under."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fleet.config.settings import FleetSettings
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.places import StorePlaces, endpoints_at
from fleet.wiring.stores.redaction import use_configured_redaction


def endpoints_of(
    settings: FleetSettings,
    addresses: StorePlaces,
    *,
    record_dir: Path | None = None,
    served: Mapping[str, str] = MappingProxyType({}),
) -> Endpoints:
    """What actors and commands need to know of this fleet; `served` are variables of engines that were started."""
    endpoints = endpoints_at(settings, addresses, environ=os.environ, record_dir=record_dir, served=served)
    use_configured_redaction(endpoints.files)
    return endpoints
