"""A long session: its turns, and the facts in them that no compression may lose (CX-50, CX-52)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

TurnKind = Literal[
    "human",
    "criterion",
    "constraint",
    "decision",
    "question",
    "answer",
    "task",
    "prompt",
    "reply",
    "reasoning",
    "tool",
    "run",
    "diff",
    "file",
    "step",
]
FactClass = Literal[
    "instruction", "criterion", "constraint", "decision", "question", "failure", "promise", "id", "path"
]
FACT_CLASSES: tuple[FactClass, ...] = get_args(FactClass)
"""In the order in which a ledger shows them."""


@dataclass(frozen=True, slots=True)
class HistoryTurn:
    """One thing that was said or done.

    Attributes:
        version: of the event that records it; turns of one event share it.
        text: redacted.
        id: of a decision, question, criterion, task or step; the command of a run; the path of a file or diff.
        status: of a decision as recorded; of a question `open` or `answered`; of a run `passed` or `failed`; of a step
            `started` or `finished`.
        task_id: whose work it was.
    """

    version: int
    kind: TurnKind
    text: str
    id: str = ""
    status: str = ""
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """One line that has to survive word for word; `key` is the same for the same fact said again."""

    kind: FactClass
    key: str
    line: str
