"""A story: its state, what may happen to it, and what it still owes (pure)."""

from fleet.story.approvals import (
    check_approver,
    check_delegable,
    check_notes,
    delegation_for,
    last_request,
    subject_of,
    valid_grant,
)
from fleet.story.commands import Caller, StoryText, cancel, decide_gate, find_approval, fire, parse, refusal, unpark
from fleet.story.evolve import NO_STATE, evolve, fold
from fleet.story.guards import GUARDS, GuardContext, evaluate
from fleet.story.intents import Intent
from fleet.story.lifecycle import RIGORS, FsmConfig, Gate, Lifecycle, Rigor, TaskWorkflow, Transition
from fleet.story.plan import plan, waiting_for
from fleet.story.state import Approval, CouncilRecord, Decision, Plan, Step, StoryState, TaskState

__all__ = [
    "GUARDS",
    "NO_STATE",
    "RIGORS",
    "Approval",
    "Caller",
    "CouncilRecord",
    "Decision",
    "FsmConfig",
    "Gate",
    "GuardContext",
    "Intent",
    "Lifecycle",
    "Plan",
    "Rigor",
    "Step",
    "StoryState",
    "StoryText",
    "TaskState",
    "TaskWorkflow",
    "Transition",
    "cancel",
    "check_approver",
    "check_delegable",
    "check_notes",
    "decide_gate",
    "delegation_for",
    "evaluate",
    "evolve",
    "find_approval",
    "fire",
    "fold",
    "last_request",
    "parse",
    "plan",
    "refusal",
    "subject_of",
    "unpark",
    "valid_grant",
    "waiting_for",
]
