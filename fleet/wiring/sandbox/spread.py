"""The supervisors of a fleet, as its callers and as they themselves know each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.sandbox.port import Peers
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.roster import home_supervisor, spreads_runs

if TYPE_CHECKING:
    from fleet.remote.ports import RaySandbox
    from fleet.remote.resolver import ActorResolver


def make_sandbox(endpoints: Endpoints, resolver: ActorResolver) -> RaySandbox:
    """The runs of a fleet as its callers ask for them, spread over the nodes where that is done."""
    from fleet.remote.ports import RaySandbox
    from fleet.remote.supervisors import Supervisors

    spread = Supervisors(resolver, home_supervisor(endpoints)) if spreads_runs(endpoints) else None
    return RaySandbox(resolver, endpoints.node, spread=spread)


def make_peers(endpoints: Endpoints) -> Peers | None:
    """What a supervisor knows of the others; None where it is the only one."""
    if not spreads_runs(endpoints):
        return None
    from fleet.remote.resolver import ActorResolver
    from fleet.remote.supervisors import RayPeers

    return RayPeers(ActorResolver(), home_supervisor(endpoints))
