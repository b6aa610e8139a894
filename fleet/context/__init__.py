"""Context packs: what a role may see of a story, within a budget, as stable text (pure)."""

from fleet.context.assemble import HEADINGS, BuiltPack, Dropped, assemble, build_pack
from fleet.context.budget import BudgetRule, ceiling, estimate_tokens
from fleet.context.bundle import (
    BundleStats,
    MilestoneLine,
    RehydrationBundle,
    RolePack,
    TimelineLine,
    bundle_stats,
    role_pack,
)
from fleet.context.compress import PROSE, CompressedSession, compress, recall_of, with_prose
from fleet.context.counting import BY_ESTIMATE, ESTIMATE, Counting, Estimate, TokenCounter
from fleet.context.extract import facts_of, ids_in, paths_in
from fleet.context.high_entropy import is_high_entropy
from fleet.context.history import (
    SUMMING_UP,
    CompressionRule,
    history_of,
    is_long,
    steps_after,
    text_digests,
    told_texts,
    turns_of,
)
from fleet.context.item import MUST_KEEP, TASK_BLOCK, Item, fence, one_line
from fleet.context.known_values import KNOWN_SECRET, MIN_SECRET_CHARS, RedactedText, forms_of, redact_known
from fleet.context.lessons import LESSONS, Lesson, LessonRule, lesson_items, lessons_of, nearest
from fleet.context.operator_patterns import OperatorPattern, OperatorRedaction, check_speed
from fleet.context.redact import Redaction, SecretSpan, find_spans, placeholder, redact, use_operator_patterns
from fleet.context.redact_counts import RedactedField, redacted_fields, redacted_kinds
from fleet.context.redact_json import redact_json, redact_model
from fleet.context.redact_stream import RedactingStream
from fleet.context.row_cut import RowCut, Rows, cut_to, ids_of, rows_about
from fleet.context.scope import SCOPES, ContextConfig, ProfileRow, Scope, ScopeCheck, check, scopes_for
from fleet.context.secret_patterns import KINDS, SECRET_PATTERNS, SecretPattern
from fleet.context.secrets import find_secrets, redact_secrets
from fleet.context.sections import Reader, section, tasks_of
from fleet.context.session import FACT_CLASSES, Fact, Turn
from fleet.context.summary_text import outline_of
from fleet.context.task_block import task_block
from fleet.context.view import Milestone, StoryView, milestones

__all__ = [
    "RowCut",
    "Rows",
    "cut_to",
    "ids_of",
    "rows_about",
    "role_pack",
    "bundle_stats",
    "TimelineLine",
    "RolePack",
    "RehydrationBundle",
    "MilestoneLine",
    "BundleStats",
    "BY_ESTIMATE",
    "ESTIMATE",
    "FACT_CLASSES",
    "HEADINGS",
    "KINDS",
    "KNOWN_SECRET",
    "LESSONS",
    "MIN_SECRET_CHARS",
    "MUST_KEEP",
    "PROSE",
    "SCOPES",
    "SECRET_PATTERNS",
    "SUMMING_UP",
    "TASK_BLOCK",
    "BudgetRule",
    "BuiltPack",
    "CompressedSession",
    "CompressionRule",
    "ContextConfig",
    "Counting",
    "Dropped",
    "Estimate",
    "Fact",
    "Item",
    "Lesson",
    "LessonRule",
    "Milestone",
    "OperatorPattern",
    "OperatorRedaction",
    "ProfileRow",
    "Reader",
    "RedactedField",
    "RedactedText",
    "RedactingStream",
    "Redaction",
    "Scope",
    "ScopeCheck",
    "SecretPattern",
    "SecretSpan",
    "StoryView",
    "TokenCounter",
    "Turn",
    "assemble",
    "build_pack",
    "ceiling",
    "check",
    "check_speed",
    "compress",
    "estimate_tokens",
    "facts_of",
    "fence",
    "find_secrets",
    "find_spans",
    "forms_of",
    "history_of",
    "ids_in",
    "is_high_entropy",
    "is_long",
    "steps_after",
    "told_texts",
    "lesson_items",
    "lessons_of",
    "milestones",
    "nearest",
    "one_line",
    "outline_of",
    "paths_in",
    "placeholder",
    "recall_of",
    "redact",
    "redact_json",
    "redact_known",
    "redact_model",
    "redact_secrets",
    "redacted_fields",
    "redacted_kinds",
    "scopes_for",
    "section",
    "task_block",
    "tasks_of",
    "text_digests",
    "turns_of",
    "use_operator_patterns",
    "with_prose",
]
