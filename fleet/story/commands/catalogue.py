"""Every command on a story by its name, and how one is read from what lies in an inbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, get_args

from fleet.kernel.errors import InvalidInput
from fleet.story.commands.budgets import SetBudget
from fleet.story.commands.command import Facts, Outcome, StoryCommand
from fleet.story.commands.context import ChangeContext
from fleet.story.commands.decisions import AcceptDecision, ProposeDecision, RejectDecision, SupersedeDecision
from fleet.story.commands.gates import Approve, FireEvent, Reject, Revoke
from fleet.story.commands.interventions import (
    ArchiveStory,
    Cancel,
    PauseStory,
    ResolveStep,
    RestoreStory,
    ResumeStory,
    Unpark,
)
from fleet.story.commands.plan_adoption import AdoptPlan
from fleet.story.commands.plan_versions import DeriveTasks, RejectPlan, WritePlan
from fleet.story.commands.request_approval import RequestApproval
from fleet.story.commands.sessions import ForkSession, StopSession, TellSession
from fleet.story.commands.tasks import ActOnTask, ClaimTask, ReleaseTask, UpdateTask
from fleet.story.commands.text import AnswerQuestion, ApplyAdvice, AskQuestion, EditStory, SetRigor
from fleet.story.state import StoryState

AnyCommand: TypeAlias = (
    AcceptDecision
    | ActOnTask
    | AdoptPlan
    | AnswerQuestion
    | ApplyAdvice
    | Approve
    | ArchiveStory
    | AskQuestion
    | Cancel
    | ChangeContext
    | ClaimTask
    | DeriveTasks
    | EditStory
    | FireEvent
    | ForkSession
    | PauseStory
    | ProposeDecision
    | Reject
    | RejectDecision
    | RejectPlan
    | ReleaseTask
    | RequestApproval
    | ResolveStep
    | RestoreStory
    | ResumeStory
    | Revoke
    | SetBudget
    | SetRigor
    | StopSession
    | SupersedeDecision
    | TellSession
    | Unpark
    | UpdateTask
    | WritePlan
)
UNTYPED = frozenset(
    [
        "cancel_council",
        "cancel_run",
        "create_story",
        "end_deployment",
        "invoke_tool",
        "propose_plan",
        "reject_council",
        "request_council",
        "start_run",
        "start_story",
    ]
)
"""Commands without a model of their own yet: their body is read where they are decided."""


class UntypedCommand(StoryCommand):
    """A command of `UNTYPED`, which the owner decides by its own rules."""

    fields: dict[str, Any] = {}

    def body(self) -> dict[str, Any]:
        """The fields as they were given."""
        return self.fields

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """Not here: `fleet/owner/commands` decides it."""
        raise AssertionError(self.command)


def _untyped(name: str) -> type[UntypedCommand]:
    class Untyped(UntypedCommand):
        command = name

    return Untyped


_TYPED: Mapping[str, type[StoryCommand]] = {model.command: model for model in get_args(AnyCommand)}
_UNTYPED: Mapping[str, type[UntypedCommand]] = {name: _untyped(name) for name in UNTYPED}
NAMES = frozenset({*_TYPED, *_UNTYPED})
"""The names of all commands, as they are recorded."""


def require_known(name: str) -> None:
    """Returns when there is such a command; InvalidInput with those that there are otherwise."""
    if name not in NAMES:
        raise InvalidInput(f"there is no command {name!r}", allowed=sorted(NAMES))


def parse_command(name: str, body: Mapping[str, Any]) -> StoryCommand:
    """The command of this name with this body; InvalidInput says what is wrong with it."""
    require_known(name)
    if name in UNTYPED:
        return _UNTYPED[name](fields=dict(body))
    return _TYPED[name].model_validate(body)
