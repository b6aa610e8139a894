"""The labelled-block form of a derivation, for models that cannot be constrained (PL-20).

TASK_ID: T1
TITLE: Parse the file
DESCRIPTION: Read the file
line by line.
ROLE: developer
KIND: code
ESTIMATED_HOURS: 2
PRIORITY: 1
KEYWORDS: parser, file
DEPENDS_ON: none
ACCEPTANCE_REFS: ac-1
PATHS: src/parse.py
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from fleet.planning.planning_config import PlanningConfig
from fleet.planning.problem import Problem
from fleet.planning.tasks import DerivedPlan, validate_derivation

__all__ = ["ParsedBlocks", "parse_task_blocks", "validate_task_blocks"]

_LABEL = re.compile(r"([A-Z][A-Z_]{2,}):(?:[ \t]+(.*))?")
_TEXTS = {"TITLE": "title", "DESCRIPTION": "description", "ROLE": "role", "KIND": "kind"}
_NUMBERS = {"ESTIMATED_HOURS": "estimated_hours", "PRIORITY": "priority"}
_LISTS = {"KEYWORDS": "keywords", "ACCEPTANCE_REFS": "acceptance_refs", "PATHS": "paths"}
_LABELS = {"TASK_ID", "DEPENDS_ON", *_TEXTS, *_NUMBERS, *_LISTS}


class ParsedBlocks(NamedTuple):
    """The blocks as the JSON form, and what could not be read."""

    data: dict[str, Any]
    problems: tuple[Problem, ...]


def validate_task_blocks(
    text: str,
    *,
    acceptance_ids: Sequence[str],
    decision_ids: Collection[str],
    assignable_roles: Sequence[str],
    config: PlanningConfig,
) -> list[Problem] | DerivedPlan:
    """The plan that the blocks describe, or all problems of form and content; rules as `validate_derivation`."""
    parsed = parse_task_blocks(text)
    outcome = validate_derivation(
        parsed.data,
        acceptance_ids=acceptance_ids,
        decision_ids=decision_ids,
        assignable_roles=assignable_roles,
        config=config,
    )
    if not parsed.problems:
        return outcome
    return [*parsed.problems, *(outcome if isinstance(outcome, list) else [])]


def parse_task_blocks(text: str) -> ParsedBlocks:
    """The blocks as `{"tasks": [...]}`; a value that is no number stays text, so that validation names it."""
    problems: list[Problem] = []
    blocks = _blocks(text, problems)
    ids = [b["TASK_ID"].strip() for b in blocks]
    for index, task_id in enumerate(ids):
        if not task_id or ids.index(task_id) != index:
            problems.append(_problem(index, f"TASK_ID {task_id!r} is empty or used twice"))
    tasks = [_task(i, block, ids, problems) for i, block in enumerate(blocks)]
    return ParsedBlocks({"tasks": tasks}, tuple(problems))


def _problem(index: int, reason: str) -> Problem:
    return Problem(code="reply", message=f"task {index}: {reason}", task_index=index)


def _blocks(text: str, problems: list[Problem]) -> list[dict[str, str]]:
    blocks: list[dict[str, str]] = []
    label = ""
    for number, line in enumerate(text.splitlines(), 1):
        found = _LABEL.fullmatch(line.rstrip())
        if found is None and label == "DESCRIPTION":
            blocks[-1][label] += "\n" + line
        elif found is None:
            if line.strip():
                problems.append(
                    Problem(code="reply", message=f"line {number} belongs to no label: {line.strip()[:80]!r}")
                )
        else:
            label = _open(found.group(1), found.group(2) or "", blocks, problems)
    return blocks


def _open(label: str, value: str, blocks: list[dict[str, str]], problems: list[Problem]) -> str:
    """Start the field, and a new block at TASK_ID; returns the label that following lines may belong to."""
    if label == "TASK_ID":
        blocks.append({label: value})
    elif label not in _LABELS:
        problems.append(_problem(max(len(blocks) - 1, 0), f"label {label} does not exist"))
        return ""
    elif not blocks:
        problems.append(Problem(code="reply", message=f"{label} stands before the first TASK_ID"))
        return ""
    elif label in blocks[-1]:
        problems.append(_problem(len(blocks) - 1, f"label {label} is there twice"))
        return ""
    else:
        blocks[-1][label] = value
    return label


def _task(index: int, block: dict[str, str], ids: list[str], problems: list[Problem]) -> dict[str, Any]:
    task: dict[str, Any] = {name: block[label].strip() for label, name in _TEXTS.items() if label in block}
    for label, name in _NUMBERS.items():
        if label in block:
            value = block[label].strip()
            task[name] = int(value) if re.fullmatch(r"[0-9]{1,6}", value) else value
    task |= {name: _items(block[label]) for label, name in _LISTS.items() if label in block}
    named = _items(block.get("DEPENDS_ON", ""))
    for task_id in named:
        if task_id not in ids:
            message = f"task {index}: DEPENDS_ON names {task_id!r}, which is no TASK_ID"
            problems.append(Problem(code="task_dependency", message=message, task_index=index))
    task["depends_on"] = [ids.index(t) for t in named if t in ids]
    return task


def _items(value: str) -> list[str]:
    return [] if value.strip().lower() in ("", "none", "-") else [v.strip() for v in value.split(",")]
