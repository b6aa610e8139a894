"""What every command has: a model of its body, and one pure decision about what it records.

A command is followed in one place. Its model is the body of its HTTP request, with the ids of the path; its JSON lies
in the inbox of the owner; `decide` holds its guards and makes its events. The owner gathers the facts before that, and
stores what comes of it afterwards.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

from pydantic import ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails

from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import FleetError, InvalidInput, InvalidTransition
from fleet.kernel.ids import CommandId, Digest, EntityId, Principal, StreamId, derive_id
from fleet.kernel.types import Frozen, Rigor
from fleet.models.profiles import Budgets
from fleet.planning.coach_config import CoachConfig
from fleet.planning.planning_config import PlanningConfig
from fleet.policy.deploy import DeployTarget
from fleet.policy.roles import require_chosen, require_role
from fleet.story.lifecycle import FsmConfig
from fleet.story.state import StoryState

Gathered = TypeVar("Gathered")


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated principal and the roles it holds (GL-16: never taken from the request)."""

    principal: Principal
    roles: frozenset[str]

    def acting(self, role: str | None) -> Caller:
        """The caller in this role alone, or in any of its roles for None; PolicyDenied when it does not hold it."""
        if role is None:
            return self
        require_chosen(self.principal, self.roles, role)
        return replace(self, roles=frozenset({role}))

    def require(self, *roles: str, rule_id: str = "role_not_held", why: str = "", listed: bool = False) -> str:
        """The first of these roles that the caller holds; PolicyDenied when it holds none."""
        return require_role(self.principal, self.roles, *roles, rule_id=rule_id, why=why, listed=listed)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a command is decided on beside the state of its story. The owner gathers it."""

    caller: Caller
    stream: StreamId
    command_id: CommandId
    now_ms: int
    fsm: FsmConfig
    budgets: Budgets
    """The limits that config/models.yaml sets."""
    planning: PlanningConfig
    assignable_roles: tuple[str, ...]
    """Roles that tasks may go to."""
    coach: CoachConfig
    thresholds: Mapping[Rigor, int]
    """The readiness score that each rigor level asks for."""
    held: frozenset[str]
    """The roles of the caller in workflows of tasks; an agent that is not registered has the one it is named after."""
    targets: tuple[DeployTarget, ...] = ()
    """Where stories are deployed."""
    history: Sequence[StoredEvent] = ()
    """Every event of the story, for a command that keeps them (`archive_story`); empty for any other."""
    gathered: object = None
    """What one command alone is decided on, as the class that its module defines for that; see `of`."""

    def of(self, kind: type[Gathered]) -> Gathered:
        """What was gathered for this command."""
        assert isinstance(self.gathered, kind), f"the owner gathers {kind.__name__} for it"
        return self.gathered

    def new_id(self, prefix: str, name: str, ordinal: int = 0) -> EntityId:
        """The id of an entity that the story makes under this name; the same on every replay (GL-9)."""
        return derive_id(prefix, self.stream, name, ordinal)


@dataclass(frozen=True, slots=True)
class Attachment:
    """Bytes that an event names by their digest; they are stored before it is recorded."""

    data: bytes

    @property
    def digest(self) -> Digest:
        """How the event names them."""
        return digest_of(self.data)


Outcome: TypeAlias = tuple[Payload | Attachment, ...]
"""What a command records, in order."""


class RefusedOnRecord(Exception):  # noqa: N818
    """A refusal that leaves something on record under a name of its own: what the sender has to wait for.

    Args:
        records: what is recorded before `error` is raised; `name` is its command, so that it is recorded once.
        noticed: what the system records after that, by the name of its command.
    """

    def __init__(
        self, name: str, records: Outcome, error: FleetError, *, noticed: tuple[str, Payload] | None = None
    ) -> None:
        super().__init__(error.message)
        self.name, self.records, self.error, self.noticed = name, records, error, noticed


class TypedCommand(Frozen):
    """A command: its fields are its body, `command` is its name on record.

    A body that is wrong raises InvalidInput, however the command is built. Fields that it does not know are passed
    over: another version may have queued them, and the door that a person uses refuses them before.
    """

    model_config = ConfigDict(extra="ignore")
    command: ClassVar[str]
    sentences: ClassVar[Mapping[str, str]] = {}
    """By its name, what is said of a field that is missing or of a wrong length; see `_LENGTHS`."""

    def body(self) -> dict[str, Any]:
        """The fields that were given, as JSON: what is queued, and what tells two requests under one key apart."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @model_validator(mode="wrap")
    @classmethod
    def _require_fields(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise refuse_body(cls.command, error, cls.sentences) from error


class StoryCommand(TypedCommand):
    """A command on a story."""

    @abstractmethod
    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """What the command records on this story, by rules alone: no clock is read, nothing is sent or stored.

        Raises what the domain refuses; a GateClosed without `task_id` goes on record as TransitionRefused (LC-4).
        """


Model = TypeVar("Model", bound=TypedCommand)


def pick_model(models: Mapping[str, type[Model]], name: str) -> type[Model]:
    """The model of the command of this name; InvalidInput with the names that there are otherwise."""
    if name not in models:
        raise InvalidInput(f"there is no command {name!r}", allowed=sorted(models))
    return models[name]


_LENGTHS: Mapping[str, str] = {
    "gate": "name the gate or the approval id",
    "reason": "reason has {} characters; write 10 to 4,000",
    "note": "note has {} characters; write 10 to 4,000",
}
"""By its name, what is said of a field that is missing, too short or too long."""


def refuse_body(command: str, error: ValidationError, sentences: Mapping[str, str] | None = None) -> InvalidInput:
    """The refusal of a body: the sentence about its one wrong field, or a list of all that is wrong."""
    lengths, found = {**_LENGTHS, **(sentences or {})}, error.errors(include_url=False)
    problems = [
        {"pointer": "/" + "/".join(map(str, e["loc"])), "message": _sentence(lengths, e) or e["msg"]} for e in found
    ]
    if len(found) == 1 and (text := _sentence(lengths, found[0])):
        details = {"allowed": _allowed(found[0])} if _allowed(found[0]) else {}
        return InvalidInput(text, field=str(found[0]["loc"][0]), problems=problems, **details)
    listed = "; ".join(f"{p['pointer']}: {p['message']}" for p in problems)
    field = {"field": ".".join(map(str, found[0]["loc"]))} if len(found) == 1 and found[0]["loc"] else {}
    return InvalidInput(f"{command} is wrong: {listed}; correct it and call again", problems=problems, **field)


def _sentence(lengths: Mapping[str, str], error: ErrorDetails) -> str | None:
    """What is wrong with a field of the body, in our words; None leaves it to the validator."""
    if len(error["loc"]) != 1:
        return None
    field, given = str(error["loc"][0]), error["input"]
    if error["type"] == "literal_error":
        return f"{str(given)[:60]!r} is no {field}: say {' or '.join(_allowed(error))}"
    if error["type"] in ("missing", "too_short", "string_too_short", "string_too_long") and field in lengths:
        return lengths[field].format(len(given.strip()) if isinstance(given, str) else 0)
    return None


def _allowed(error: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", error.get("ctx", {}).get("expected", ""))


def require_not_over(state: StoryState, event: str) -> None:
    """Returns while something may still be done with the story; InvalidTransition once it is over."""
    if state.is_over:
        raise InvalidTransition(f"story {state.story_id} is over", state=state.state, event=event, allowed=[])
