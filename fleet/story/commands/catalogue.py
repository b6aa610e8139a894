"""Every command on a story by its name, and how one is read from what lies in an inbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, get_args

from fleet.story.commands.budgets import SetBudget
from fleet.story.commands.calls import CancelRun, InvokeTool, StartRun
from fleet.story.commands.command import StoryCommand, pick_model
from fleet.story.commands.context import ChangeContext
from fleet.story.commands.councils import CancelCouncil, RejectCouncil, RequestCouncil
from fleet.story.commands.decisions import AcceptDecision, ProposeDecision, RejectDecision, SupersedeDecision
from fleet.story.commands.gates import Approve, FireEvent, Reject, Revoke, WaiveCriterion
from fleet.story.commands.interventions import (
    ArchiveStory,
    Cancel,
    EndDeployment,
    PauseStory,
    ResolveStep,
    RestoreStory,
    ResumeStory,
    StartStory,
    Unpark,
)
from fleet.story.commands.plan_adoption import AdoptPlan
from fleet.story.commands.plan_versions import DeriveTasks, ProposePlan, RejectPlan, WritePlan
from fleet.story.commands.request_approval import RequestApproval
from fleet.story.commands.sessions import ForkSession, StopSession, TellSession
from fleet.story.commands.tasks import ActOnTask, ClaimTask, ReleaseTask, UpdateTask
from fleet.story.commands.text import AnswerQuestion, ApplyAdvice, AskQuestion, CreateStory, EditStory, SetRigor
from fleet.story.commands.waivers import WaiveDimension

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
    | CancelCouncil
    | CancelRun
    | ChangeContext
    | ClaimTask
    | CreateStory
    | DeriveTasks
    | EditStory
    | EndDeployment
    | FireEvent
    | ForkSession
    | InvokeTool
    | PauseStory
    | ProposeDecision
    | ProposePlan
    | Reject
    | RejectCouncil
    | RejectDecision
    | RejectPlan
    | ReleaseTask
    | RequestApproval
    | RequestCouncil
    | ResolveStep
    | RestoreStory
    | ResumeStory
    | Revoke
    | SetBudget
    | SetRigor
    | StartRun
    | StartStory
    | StopSession
    | SupersedeDecision
    | TellSession
    | Unpark
    | UpdateTask
    | WaiveCriterion
    | WaiveDimension
    | WritePlan
)

_MODELS: Mapping[str, type[StoryCommand]] = {model.command: model for model in get_args(AnyCommand)}
NAMES = frozenset(_MODELS)
"""The names of all commands, as they are recorded."""


def require_known(name: str) -> None:
    """Returns when there is such a command; InvalidInput with those that there are otherwise."""
    pick_model(_MODELS, name)


def parse_command(name: str, body: Mapping[str, Any]) -> StoryCommand:
    """The command of this name with this body; InvalidInput says what is wrong with it."""
    return pick_model(_MODELS, name).model_validate(body)
