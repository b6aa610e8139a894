"""Who may call: principals, their roles, and the bearer tokens that stand for them (AP-1, RT-25)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from fleet.events.budget import BudgetScope
from fleet.kernel.clock import Clock
from fleet.kernel.errors import Unauthenticated
from fleet.kernel.ids import Principal, StoryId, derive_id
from fleet.kernel.types import Frozen
from fleet.models.engine_config import Price
from fleet.models.profiles import Budgets
from fleet.models.routing.budget import BudgetLimits, Spend, fit_max_tokens
from fleet.models.usage import cost_of
from fleet.owner.budgets import PLATFORM, day_of
from fleet.owner.spending.port import DaySpending, SpendingHold


class PrincipalEntry(Frozen):
    """One principal of the local token file. The token itself is never stored, only its hash."""

    principal: Principal
    roles: frozenset[str]
    token_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    enabled: bool = True
    projects: frozenset[str] | None = None
    """The projects that the principal sees; None sees all of them."""
    epics: frozenset[str] | None = None
    """The epics that an architect is assigned to; None is every epic of its projects (CX-11)."""

    @model_validator(mode="after")
    def _is_admin_a_person(self) -> PrincipalEntry:
        if "admin" in self.roles and not self.principal.is_human:
            raise ValueError(f"{self.principal} is no person: role 'admin' is for people alone")
        return self


class PrincipalRegistry:
    """Roles come from here and never from a request (GL-16)."""

    def __init__(self, entries: tuple[PrincipalEntry, ...]) -> None:
        self._by_principal: Mapping[str, PrincipalEntry] = {e.principal: e for e in entries}

    def roles_of(self, principal: Principal) -> frozenset[str]:
        """The roles that the principal holds; none for an unknown or disabled one."""
        entry = self._by_principal.get(principal)
        return entry.roles if entry is not None and entry.enabled else frozenset()

    def projects_of(self, principal: Principal) -> frozenset[str] | None:
        """The projects that the principal sees, None for all; none for an unknown or disabled one."""
        entry = self._by_principal.get(principal)
        return entry.projects if entry is not None and entry.enabled else frozenset()

    def epics_of(self, principal: Principal) -> frozenset[str] | None:
        """The epics that the principal is assigned to, None for all; none for an unknown or disabled one."""
        entry = self._by_principal.get(principal)
        return entry.epics if entry is not None and entry.enabled else frozenset()

    def holders_of(self, role: str, project_id: str) -> tuple[Principal, ...]:
        """The enabled principals that hold the role and see the project, by name."""
        entries = (e for e in self._by_principal.values() if e.enabled and role in e.roles)
        return tuple(sorted(e.principal for e in entries if e.projects is None or project_id in e.projects))

    def authenticate(self, header: str | None) -> Principal:
        """The principal whose bearer token this is; Unauthenticated otherwise."""
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() == "bearer" and token:
            digest = hash_token(token.strip())
            for entry in self._by_principal.values():
                if hmac.compare_digest(entry.token_sha256, digest) and entry.enabled:
                    return entry.principal
        raise Unauthenticated("send `Authorization: Bearer <token>`; the token of a local fleet is in its token file")


def hash_token(token: str) -> str:
    """64 hex digits that stand for the token in the file."""
    return hashlib.sha256(token.encode()).hexdigest()


class PrincipalSpending:
    """The day's budgets of the platform and of each principal, over the totals that stories count in too."""

    def __init__(self, days: DaySpending, budgets: Budgets, clock: Clock) -> None:
        self._days, self._budgets, self._clock = days, budgets, clock

    async def fitted(self, who: Principal, *, prompt_tokens: int, max_tokens: int, price: Price | None) -> int:
        """The longest reply, at most `max_tokens`, that the day has room for; BudgetExceeded below a useful one."""
        day = day_of(self._clock.now_ms())
        limits = self._limits(who)
        totals = await self._days.totals(tuple(limits), day)
        scopes = {_name(scope): (used, limits[scope]) for scope, used in zip(limits, totals, strict=True)}
        return fit_max_tokens(prompt_tokens, max_tokens, scopes=scopes, price=price)

    async def hold(
        self, who: Principal, call_id: str, *, prompt_tokens: int, max_tokens: int, price: Price | None
    ) -> SpendingHold:
        """The most that the call can cost counts as spent from here on; BudgetExceeded when a budget cannot hold it."""
        cost = cost_of(price, tokens_in=prompt_tokens, tokens_out=max_tokens) if price is not None else 0
        need = Spend(tokens=prompt_tokens + max_tokens, output_tokens=max_tokens, calls=1, cost_microusd=cost)
        day = day_of(self._clock.now_ms())
        limits = self._limits(who)
        hold = SpendingHold(hold_id=call_id, story_id=_ledger_of(who, day), day=day, scopes=tuple(limits), need=need)
        await self._days.reserve(hold, limits=limits)
        return hold

    async def settle(self, hold: SpendingHold, actual: Spend) -> None:
        """The hold is replaced by what was used; a hold that is never settled stays spent (MB-23)."""
        await self._days.settle(hold, actual)

    def _limits(self, who: Principal) -> Mapping[BudgetScope, BudgetLimits]:
        scopes = (PLATFORM, BudgetScope(kind="principal", id=who))
        return dict(zip(scopes, (self._budgets.platform, self._budgets.principal), strict=True))


def _ledger_of(who: Principal, day: str) -> StoryId:
    """What the port groups open holds by: here, the calls of one principal on one day."""
    return StoryId(derive_id("st", f"principal:{who}", day))


def _name(scope: BudgetScope) -> str:
    return "platform day" if scope == PLATFORM else f"{scope.id} day"
