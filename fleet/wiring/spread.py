"""The supervisors of a fleet, as its callers and as they themselves know each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.ports import Peers
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.roster import home_supervisor, spreads_runs

if TYPE_CHECKING:
    from fleet.adapters.ray import ActorResolver, RaySandbox

__all__ = ["make_peers", "make_sandbox"]


def make_sandbox(endpoints: Endpoints, resolver: ActorResolver) -> RaySandbox:
    """The runs of a fleet as its callers ask for them, spread over the nodes where that is done."""
    from fleet.adapters.ray import RaySandbox, Supervisors

    spread = Supervisors(resolver, home_supervisor(endpoints)) if spreads_runs(endpoints) else None
    return RaySandbox(resolver, endpoints.node, spread=spread)


def make_peers(endpoints: Endpoints) -> Peers | None:
    """What a supervisor knows of the others; None where it is the only one."""
    if not spreads_runs(endpoints):
        return None
    from fleet.adapters.ray import ActorResolver, RayPeers

    return RayPeers(ActorResolver(), home_supervisor(endpoints))
