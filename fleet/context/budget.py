"""How many tokens a text takes and how many a pack may take (CX-20, CX-21)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet.kernel.types import Frozen

Tokens = Annotated[int, Field(ge=0)]


class BudgetRule(Frozen):
    """Part `budget` of config/context.yaml; all values in tokens."""

    base: dict[str, Annotated[int, Field(ge=512)]]
    """Base by base role."""
    default_base: Annotated[int, Field(ge=512)]
    per_task: Tokens
    per_decision: Tokens
    max_extra: Tokens
    max_tokens: Annotated[int, Field(ge=512)]
    """No pack is larger: the smallest context of the models that read packs, minus output and tool schemas."""


def estimate_tokens(text: str) -> int:
    """Upper estimate of the tokens of a text whose tokenizer is unknown: a third of its UTF-8 bytes, rounded up."""
    return -(-len(text.encode()) // 3)


def ceiling(rule: BudgetRule, *, base_role: str, tasks: int, decisions: int) -> int:
    """Return the most tokens that a pack of this base role may take. It depends on how many tasks and decisions a story
    has (CX-21).
    """
    extra = min(rule.max_extra, rule.per_task * tasks + rule.per_decision * decisions)
    return min(rule.base.get(base_role, rule.default_base) + extra, rule.max_tokens)
