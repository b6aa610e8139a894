"""Context packs: what a role may see of a story, within a budget, as stable text (pure)."""

from fleet.context.assemble import HEADINGS, BuiltPack, Dropped, assemble, build_pack
from fleet.context.budget import BudgetRule, ceiling, estimate_tokens
from fleet.context.item import MUST_KEEP, TASK_BLOCK, Item, fence, one_line
from fleet.context.known_values import KNOWN_SECRET, MIN_SECRET_CHARS, RedactedText, forms_of, redact_known
from fleet.context.scope import SCOPES, ContextConfig, ProfileRow, Scope, ScopeCheck, check, scopes_for
from fleet.context.sections import Reader, section, tasks_of
from fleet.context.task_block import task_block
from fleet.context.view import Milestone, StoryView, last_summary, milestones

__all__ = [
    "HEADINGS",
    "KNOWN_SECRET",
    "MIN_SECRET_CHARS",
    "MUST_KEEP",
    "SCOPES",
    "TASK_BLOCK",
    "BudgetRule",
    "BuiltPack",
    "ContextConfig",
    "Dropped",
    "Item",
    "Milestone",
    "ProfileRow",
    "Reader",
    "RedactedText",
    "Scope",
    "ScopeCheck",
    "StoryView",
    "assemble",
    "build_pack",
    "ceiling",
    "check",
    "estimate_tokens",
    "fence",
    "forms_of",
    "last_summary",
    "milestones",
    "one_line",
    "redact_known",
    "scopes_for",
    "section",
    "task_block",
    "tasks_of",
]
