"""What a role has said and done in a story so far. It also says when that is long enough to sum up (CX-50)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from fleet.context.budget import estimate_tokens
from fleet.context.session import HistoryTurn, TurnKind
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen
from fleet.story.state import Step, StoryState

SUMMING_UP = "summarize"
"""Operation of the steps in which a model writes about the history."""
_FILES = ("content", "code", "text", "tests")
"""Keys of a reply whose value is a file where a `path` stands beside them."""
_KINDS: Mapping[str | None, TurnKind] = {"tests": "run", "build": "run", "lint": "run", "files": "file"}


class CompressionRule(Frozen):
    """Part `compression` of config/context.yaml: from which length on the history of a role is summed up."""

    steps: Annotated[int, Field(ge=1)] = 40
    """Finished steps of the role since its last summary."""
    tokens: Annotated[int, Field(ge=100)] = 8_000
    """The same in tokens of what it said and was told."""
    shown_tokens: Annotated[int, Field(ge=100)] = 1_200
    """The most that a pack shows of a summary."""
    written_by: Literal["extraction", "model"] = "extraction"
    """Whether the role's model adds some sentences to what is extracted; they are checked, and marked as its words."""


def history_of(state: StoryState, roles: Collection[str]) -> list[Step]:
    """The finished steps of these roles, in the order in which they ended. Those that summed up are no part of it."""
    ended = (step for step in state.steps.values() if step.finished is not None and step.started.op != SUMMING_UP)
    return sorted((s for s in ended if s.started.as_role in roles), key=lambda step: step.finished_version)


def steps_after(steps: Sequence[Step], covered: int) -> list[Step]:
    """Those that ended after version `covered`."""
    return [step for step in steps if step.finished_version > covered]


def told_texts(steps: Sequence[Step]) -> tuple[str, ...]:
    """What the role was told: what came of its runs and calls. Of what it said, its engine counted the tokens."""
    ended = [step for step in steps if step.started.kind != "model" and step.finished is not None]
    return tuple(step.finished.excerpt for step in ended if step.finished is not None and step.finished.excerpt)


def is_long(steps: Sequence[Step], rule: CompressionRule, *, covered: int, told: int | None = None) -> bool:
    """Whether what came after version `covered` is to be summed up.

    Args:
        told: tokens of `told_texts` of these steps, where somebody counted them; they are estimated otherwise.
    """
    new = steps_after(steps, covered)
    heard = sum(map(estimate_tokens, told_texts(new))) if told is None else told
    return len(new) > rule.steps or heard + sum(map(_said, new)) > rule.tokens


def text_digests(steps: Sequence[Step]) -> list[Digest]:
    """The blobs that `turns_of` needs: what models answered."""
    return [step.finished.result_digest for step in steps if step.finished and step.started.kind == "model"]


def turns_of(state: StoryState, steps: Sequence[Step], texts: Mapping[Digest, str]) -> tuple[HistoryTurn, ...]:
    """The steps as turns, and what people refused meanwhile and why; in the order of their versions.

    Args:
        texts: of `text_digests`; a blob that nobody has any more is left out.
    """
    last = steps[-1].finished_version if steps else 0
    said = [turn for step in steps for turn in _turns(step, texts)]
    return tuple(sorted([*said, *_refusals(state, until=last)], key=lambda turn: turn.version))


def _turns(step: Step, texts: Mapping[Digest, str]) -> Iterator[HistoryTurn]:
    started, done, at = step.started, step.finished, step.finished_version
    assert done is not None
    task = started.task_id or ""
    if started.kind == "model":
        answer = texts.get(done.result_digest)
        yield from () if answer is None else _replies(answer, at, task)
        return
    name = started.op and f"{started.tool}.{started.op}" or started.tool or started.kind
    kind = _KINDS.get(started.tool, "run" if started.kind == "run" else "tool")
    status = "passed" if done.outcome == "succeeded" else "failed"
    yield HistoryTurn(at, kind, done.excerpt or done.reason or done.outcome, id=name, status=status, task_id=task)


def _replies(answer: str, at: int, task: str) -> Iterator[HistoryTurn]:
    """One turn for the words of an answer, and one for each file that it holds."""
    try:
        value: Any = json.loads(answer)
    except ValueError:
        value = answer
    if isinstance(value, dict):
        value = cast("dict[str, Any]", value).get("value", value)
    files = list[tuple[str, str]]()
    words = "\n".join(_words(value, files))
    if words.strip():
        yield HistoryTurn(at, "reply", words, task_id=task)
    for path, text in files:
        yield HistoryTurn(at, "diff", text, id=path, task_id=task)


def _words(value: Any, files: list[tuple[str, str]]) -> Iterator[str]:
    """The lines of an answer without its structure; files that it holds go into the list instead."""
    match value:
        case dict():
            fields = cast("dict[str, Any]", value)
            path = fields.get("path")
            for name, item in fields.items():
                if isinstance(path, str) and name in _FILES and isinstance(item, str):
                    files.append((path, item))
                elif lines := list(_words(item, files)):
                    yield from [f"{name}: {lines[0]}", *lines[1:]]
        case list():
            for item in cast("list[Any]", value):
                yield from _words(item, files)
        case None | True | False | "":
            return
        case _:
            yield from str(value).splitlines()


def _refusals(state: StoryState, *, until: int) -> Iterator[HistoryTurn]:
    for approval in state.approvals.values():
        if approval.reason and approval.requested_version <= until:
            gate = approval.request.gate
            yield HistoryTurn(approval.requested_version, "human", f"gate {gate} refused: {approval.reason}")


def _said(step: Step) -> int:
    done = step.finished
    assert done is not None
    return done.cost.tokens_out if step.started.kind == "model" else 0
