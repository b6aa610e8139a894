"""Events of the platform's stream (EV-252..EV-254, EV-256)."""

from __future__ import annotations

from typing import ClassVar, Literal

from fleet.events.payload import Payload
from fleet.events.values import DelegateName, EventGroup, GateName, Json, Millis, Origin
from fleet.kernel.ids import EntityId, Principal
from fleet.kernel.types import Rigor, RoleName


class _PlatformEvent(Payload):
    group: ClassVar[EventGroup] = "platform"
    origin: ClassVar[Origin] = "admin"


class _DelegationEvent(_PlatformEvent):
    delegation_id: EntityId
    gate: GateName
    delegate: DelegateName
    granted_by: Principal
    reason: str
    valid_until: Millis
    max_rigor: Rigor
    projects: tuple[EntityId, ...] = ()


# Source: LC-77.
class DelegationGranted(_DelegationEvent):
    """The delegate may decide this gate until `valid_until`."""

    type = "DelegationGranted"


class DelegationRevoked(_DelegationEvent):
    """The delegation no longer holds."""

    type = "DelegationRevoked"


class _FleetEvent(_PlatformEvent):
    scope: Literal["fleet", "project"]
    id: EntityId | None = None
    by: Principal
    reason: str


# Source: PL-50.
class FleetPaused(_FleetEvent):
    """No step of the scope starts from here on."""

    type = "FleetPaused"


class FleetResumed(_FleetEvent):
    """Steps of the scope may start again."""

    type = "FleetResumed"


# Source: CN-16.
class CouncilPoolSet(_PlatformEvent):
    """Councils of this role are staffed like this."""

    type = "CouncilPoolSet"
    role: RoleName
    config: dict[str, Json]


class CouncilPoolRemoved(_PlatformEvent):
    """The role has no pool of its own any more."""

    type = "CouncilPoolRemoved"
    role: RoleName


class AgentRegistered(_PlatformEvent):
    """An agent of the pool is known."""

    type = "AgentRegistered"
    role: RoleName
    agent_id: EntityId
    profile: RoleName
    engine: str
    persona: str | None = None
    """What an admin says of how it works; data, which is shown to its model beside the persona of its role."""


class AgentUnregistered(_PlatformEvent):
    """The agent left the pool."""

    type = "AgentUnregistered"
    role: RoleName
    agent_id: EntityId


class _AccessEvent(_PlatformEvent):
    origin = "approvals"
    principal: Principal
    action: str
    object: str
    rule_id: str
    reason: str | None = None


# Source: CX-16.
class AccessDenied(_AccessEvent):
    """A principal was refused."""

    type = "AccessDenied"


# Source: CX-18.
class OverrideUsed(_AccessEvent):
    """A principal used the incident override."""

    type = "OverrideUsed"
