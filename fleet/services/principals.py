"""Who may call: principals, their roles, and the bearer tokens that stand for them (AP-1, RT-25)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet.errors import Unauthenticated
from fleet.ids import Principal

__all__ = ["PrincipalEntry", "PrincipalRegistry", "hash_token"]


class PrincipalEntry(BaseModel):
    """One principal of the local token file. The token itself is never stored, only its hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
