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
from fleet.story.commands import Caller, StoryText, decide_gate, find_approval, fire, parse, refusal
from fleet.story.evolve import NO_STATE, evolve, fold
from fleet.story.guards import GUARDS, GuardContext, evaluate
from fleet.story.intents import Intent
from fleet.story.interventions import cancel, resolve_step, unpark
from fleet.story.lifecycle import RIGORS, FsmConfig, Gate, Lifecycle, Rigor, TaskWorkflow, Transition
from fleet.story.ownership import MAX_TAKEOVERS, TakeoverCause, counts_against, is_suspect, takeover_cause
from fleet.story.plan import plan, waiting_for
from fleet.story.replay import Replayed, replay
from fleet.story.snapshot import decode_state, encode_state, state_schema
from fleet.story.state import Approval, CouncilRecord, Decision, Plan, Step, StoryState, TaskState

__all__ = [
    "GUARDS",
    "MAX_TAKEOVERS",
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
    "Replayed",
    "Rigor",
    "Step",
    "StoryState",
    "StoryText",
    "TaskState",
    "TakeoverCause",
    "TaskWorkflow",
    "Transition",
    "cancel",
    "check_approver",
    "check_delegable",
    "check_notes",
    "counts_against",
    "decide_gate",
    "decode_state",
    "delegation_for",
    "encode_state",
    "evaluate",
    "evolve",
    "find_approval",
    "fire",
    "fold",
    "is_suspect",
    "last_request",
    "parse",
    "plan",
    "refusal",
    "replay",
    "resolve_step",
    "state_schema",
    "subject_of",
    "takeover_cause",
    "unpark",
    "valid_grant",
    "waiting_for",
]
