"""Budget events (EV-220..EV-222)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fleet.events.payload import Payload, Value
from fleet.events.values import BudgetScopeKind, Count, EventGroup, Origin
from fleet.kernel.ids import EntityId, Principal, StepId
from fleet.kernel.types import BudgetLimit


# Source: MB-20.
class BudgetScope(Value):
    """Whose budget it is."""

    kind: BudgetScopeKind
    id: Annotated[str, Field(min_length=1)]


class _BudgetEvent(Payload):
    group: ClassVar[EventGroup] = "budget"
    origin: ClassVar[Origin] = "budget"


# Source: MB-24.
class BudgetSet(_BudgetEvent):
    """The scope has these limits; an absent one is unlimited. Usage is never reset."""

    type = "BudgetSet"
    scope: BudgetScope
    limits: dict[BudgetLimit, Count]
    by: Principal
    approval_id: EntityId | None = None


class _BudgetMark(_BudgetEvent):
    scope: BudgetScope
    limit: BudgetLimit
    used: Count
    max: Count


# Source: MB-25.
class BudgetWarning(_BudgetMark):
    """80 % of a limit are used."""

    type = "BudgetWarning"


# Source: MB-25.
class BudgetExhausted(_BudgetMark):
    """The limit is used up: no new call starts."""

    type = "BudgetExhausted"


FAILED_CALLS = "failed calls"
"""The source of what calls used that no engine answered; anything else settles what is held for lost calls."""


# Source: MB-15, MB-23.
class UsageAdjusted(_BudgetEvent):
    """The engine's own log settled a reservation, or calls that were not answered used something."""

    type = "UsageAdjusted"
    step_id: StepId
    delta: dict[str, int]
    source: str
