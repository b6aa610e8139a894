"""The applications that Serve imports on a cluster: `serve_apps.deployed:gateway` and `serve_apps.deployed:llm`.

They read what a laptop reads: the directory that FLEET_CONFIG names and the variables FLEET_*. What is wrong there ends
the deployment with one line that says so, in the status of the application. Each replica starts the actors of the fleet
that are not there yet; any number of them may do so at the same time.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping

from ray import serve
from ray.exceptions import RayError

from actors.bootstrap import boot
from fleet.config.settings import ServeSettings
from fleet.kernel.errors import ConfigError, FleetError
from fleet.wiring.checks import check_configuration
from fleet.wiring.endpoints import Endpoints, load_principals
from fleet.wiring.places import cluster_endpoints
from serve_apps.app import gateway_application, llm_application

_PAUSE_S = 10.0
_log = logging.getLogger("ray.serve")


def gateway(args: Mapping[str, object]) -> serve.Application:
    """REST, events and health of a fleet on this cluster. Raises ConfigError."""
    return gateway_application(_with_actors, _front(args))


def llm(args: Mapping[str, object]) -> serve.Application:
    """The models of a fleet on this cluster, in OpenAI's wire format. Raises ConfigError."""
    return llm_application(_with_actors, _front(args))


def _front(args: Mapping[str, object]) -> ServeSettings:
    if args:
        raise ConfigError(
            f"serveConfigV2: the applications of a fleet take no arguments, and were given {', '.join(sorted(args))}; "
            "what there is to say stands in fleet.yaml and serve.yaml",
            arguments=sorted(args),
        )
    endpoints = cluster_endpoints(os.environ)
    front = check_configuration(endpoints)
    for line in endpoints.files.warnings():
        _log.warning(line)
    path = endpoints.principals_file
    if not path.exists():
        raise ConfigError(
            f"{path} is missing, so nobody could use the front; mount the file of principals there (docs/api.md)",
            file=str(path),
        )
    load_principals(path)
    return front


def _with_actors() -> Endpoints:
    """The fleet, whose actors are there or are being started beside."""
    endpoints = cluster_endpoints(os.environ)
    threading.Thread(target=_start, args=(endpoints,), name="fleet-actors", daemon=True).start()
    return endpoints


def _start(endpoints: Endpoints) -> None:
    while True:
        try:
            boot(endpoints, progress=_tell)
        except (FleetError, RayError) as error:
            # The front goes on: commands wait in the log until somebody can carry them out.
            _log.warning("fleet: %s; trying again in %g s", error, _PAUSE_S)
            time.sleep(_PAUSE_S)
        else:
            return


def _tell(name: str, state: str) -> None:
    _log.log(logging.WARNING if state.startswith("waiting") else logging.INFO, "fleet: actor %s: %s", name, state)
