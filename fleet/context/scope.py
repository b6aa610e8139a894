"""Which scopes a role may see in a phase; everything that is not allowed is denied (CX-1..CX-4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from fleet.context.budget import BudgetRule
from fleet.context.history import CompressionRule
from fleet.context.lessons import LessonRule
from fleet.kernel.documents import WrongKey, WrongKeys
from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.kernel.types import Frozen, Phase
from fleet.redaction.operator_patterns import OperatorRedaction

Scope = Literal[
    "CASE_HEADER",
    "PLAN_HEADER",
    "DECISIONS_GLOBAL",
    "DECISIONS_GLOBAL_MIN",
    "DECISIONS_RELEVANT_ROLE",
    "DEPS_DECISIONS",
    "DEPS_RELEVANT",
    "SUBTASKS_ALL",
    "SUBTASKS_ALL_MIN",
    "SUBTASKS_ROLE",
    "SUBTASKS_ROLE_MIN",
    "MILESTONES",
    "SUMMARY_LAST",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_PHASES: dict[str, Phase] = {name: name for name in get_args(Phase)}
Rows = dict[Phase, tuple[Scope, ...]]


class ProfileRow(Frozen):
    """A profile: the base role whose row it uses, and where it differs."""

    extends: str
    rows: Rows = {}
    """Phases in which it has a row of its own."""
    as_author: bool = False
    """It sees what the author of its subject saw."""
    without: tuple[Scope, ...] = ()


class ContextConfig(Frozen):
    """config/context.yaml as a whole."""

    always: tuple[Scope, ...]
    """Scopes that every allowed cell begins with."""
    matrix: dict[Phase, dict[str, tuple[Scope, ...]]]
    """Phase -> base role -> further scopes; a missing cell is denied."""
    profiles: dict[str, ProfileRow]
    budget: BudgetRule
    milestones: Annotated[int, Field(ge=1, le=100)]
    compression: CompressionRule = CompressionRule()
    """When the history of a role is summed up, and how much of it packs show."""
    lessons: LessonRule = LessonRule()
    """Lessons of earlier stories; switched off unless the site switches them on."""
    redaction: OperatorRedaction = OperatorRedaction()
    """Patterns of secrets beside the shipped catalogue (CX-76)."""

    @model_validator(mode="after")
    def _check(self) -> ContextConfig:
        roles = self.roles
        problems: list[WrongKey] = []
        for name, profile in self.profiles.items():
            if profile.extends not in roles:
                problems.append(WrongKey(f"profiles.{name}.extends", f"{profile.extends!r} has no row in the matrix"))
            if name in roles:
                problems.append(WrongKey(f"profiles.{name}", f"{name!r} stands in the matrix and among the profiles"))
        rowless = [role for role in self.budget.base if role not in roles]
        problems += [WrongKey(f"budget.base.{role}", f"{role!r} has no row in the matrix") for role in rowless]
        if problems:
            raise WrongKeys(problems)
        return self

    def unknown_roles(self, names: Set[str]) -> dict[str, str]:
        """Roles of rows and profiles that are none of these, by the path of the key that names them."""
        named = {f"matrix.{phase}.{role}": role for phase, row in self.matrix.items() for role in row}
        named |= {f"profiles.{name}": name for name in self.profiles}
        return {path: role for path, role in named.items() if role not in names}

    @property
    def roles(self) -> frozenset[str]:
        """The base roles."""
        return frozenset(role for row in self.matrix.values() for role in row)

    def with_lineages(self, lineages: Mapping[str, Sequence[str]]) -> ContextConfig:
        """With a profile for each role that has none: its view is that of what it extends."""
        known = {name: ProfileRow(extends=name) for name in self.roles} | self.profiles
        found = {
            name: known[near]
            for name, lineage in lineages.items()
            if name not in known and (near := next((one for one in lineage if one in known), None)) is not None
        }
        return self.model_copy(update={"profiles": {**self.profiles, **found}}) if found else self

    def base_role(self, role: str) -> str:
        """The base role of a profile; a base role is its own."""
        return self.profiles[role].extends if role in self.profiles else role

    def roles_of(self, base: str) -> frozenset[str]:
        """The base role and every profile of it."""
        return frozenset([base, *(name for name, profile in self.profiles.items() if profile.extends == base)])


@dataclass(frozen=True, slots=True)
class ScopeCheck:
    """Whether exactly the right scopes were provided; what is missing and what is too much (CX-4)."""

    allowed: bool
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


def scopes_for(config: ContextConfig, phase: str, role: str, *, author: str | None = None) -> tuple[Scope, ...]:
    """The scopes of one cell of CX-2, in the order of CX-1.

    Args:
        author: role or profile of the author of the subject; what an `as_author` profile needs.

    Raises:
        PolicyDenied: rule `scope_denied`: an unknown role or phase, or a denied cell (CX-3).
    """
    cell = _cell(config, phase, role, author)
    if cell is None:
        raise PolicyDenied(
            f"role {role!r} sees nothing of a story in phase {phase!r}: config/context.yaml has no such cell",
            rule_id="scope_denied",
            role=role,
            phase=phase,
        )
    return cell


def check(
    config: ContextConfig, *, phase: str, role: str, provided: Iterable[str], author: str | None = None
) -> ScopeCheck:
    """Whether `provided` is exactly what the cell allows; a denied cell is never allowed, also with nothing provided.

    Raises:
        InvalidInput: a scope has an unknown name.
    """
    given = set(provided)
    unknown = sorted(given.difference(SCOPES))
    if unknown:
        raise InvalidInput(
            f"no scope is called {', '.join(unknown)}; scopes: {', '.join(SCOPES)}",
            field="provided",
            value=unknown,
            allowed=list(SCOPES),
        )
    cell = _cell(config, phase, role, author)
    missing = tuple(s for s in cell or () if s not in given)
    extra = tuple(s for s in SCOPES if s in given and s not in (cell or ()))
    return ScopeCheck(allowed=cell is not None and not missing and not extra, missing=missing, extra=extra)


def _cell(config: ContextConfig, phase: str, role: str, author: str | None) -> tuple[Scope, ...] | None:
    profile = config.profiles.get(role)
    if profile is not None and profile.as_author and author is not None and author != role:
        seen = _cell(config, phase, author, None)
    else:
        seen = _row(config, phase, role, profile)
    if seen is None:
        return None
    scopes = set(seen).difference(profile.without if profile else ())
    return tuple(s for s in SCOPES if s in scopes)


def _row(config: ContextConfig, phase: str, role: str, profile: ProfileRow | None) -> tuple[Scope, ...] | None:
    row_name = _PHASES.get(phase)
    if row_name is None:
        return None
    own = profile.rows.get(row_name) if profile else None
    row = own if own is not None else config.matrix.get(row_name, {}).get(profile.extends if profile else role)
    return None if row is None else (*config.always, *row)
