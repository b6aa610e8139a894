"""The act loop of role agents: think, call a tool, observe; bounded, and ended when it goes in circles (pure)."""

from fleet.models.acting.loop import Ended, NextAction, Think, UseTool, next_action
from fleet.models.acting.offers import may_explore, offers_of
from fleet.models.acting.patterns import Ending, pattern_in
from fleet.models.acting.reply import ActReply, UsedTool, act_reply
from fleet.models.acting.shown import ASK, LAST_REPLY, bounded, fenced_result, findings_of, transcript_of
from fleet.models.acting.state import (
    ActState,
    Observation,
    ObservationKind,
    Turn,
    after_reply,
    after_result,
    after_unusable,
    begin,
    call_digest,
)

__all__ = [
    "ASK",
    "LAST_REPLY",
    "ActReply",
    "ActState",
    "Ended",
    "Ending",
    "NextAction",
    "Observation",
    "ObservationKind",
    "Think",
    "Turn",
    "UseTool",
    "UsedTool",
    "act_reply",
    "after_reply",
    "after_result",
    "after_unusable",
    "begin",
    "bounded",
    "call_digest",
    "fenced_result",
    "findings_of",
    "may_explore",
    "next_action",
    "offers_of",
    "pattern_in",
    "transcript_of",
]
