"""From the text of a reply to a validated value, by kind of work; and the schemas of structured replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

from fleet.kernel.errors import ReplyMalformed
from fleet.models.acting.reply import act_reply
from fleet.models.chat import FinishReason, Reasoning, ToolOffer, ToolUse
from fleet.models.replies.change_reply import change_of
from fleet.models.replies.code_reply import TestLanguage, authored_test_file, authored_tests, edits_of
from fleet.models.replies.json_reply import json_object
from fleet.models.replies.json_schema import schema_problems
from fleet.models.replies.session_reply import session_reply

ReplyKind = Literal[
    "propose",
    "critique",
    "vote",
    "derive",
    "draft",
    "tests",
    "repair",
    "review",
    "document",
    "act",
    "advise",
    "summarize",
    "engineer",
    "change",
]
"""The kinds of work that a model is asked for."""

CUT_OFF = "the reply was cut off at its length limit: answer again, shorter"


def parse_reply(
    text: str,
    finish_reason: FinishReason,
    *,
    kind: ReplyKind,
    json_schema: Mapping[str, Any] | None = None,
    target_paths: Sequence[str] = (),
    new_paths: Sequence[str] = (),
    uses: Sequence[ToolUse] = (),
    offers: Sequence[ToolOffer] = (),
    reasoning: Sequence[Reasoning] = (),
    language: TestLanguage | None = None,
) -> dict[str, Any]:
    """The reply's value: edits for draft, repair and change, code and names for tests, the JSON object for all others.

    For act it is an `ActReply`, for engineer a `SessionReply`. Tests of a `language` are one file of it; without one
    they are Python.

    Raises:
        ReplyMalformed: the reply was cut off, or is not of the form; `problems` lists what to show the model (MB-6).
    """
    is_cut = finish_reason == "length"
    if is_cut and kind not in ("tests", "engineer"):
        raise ReplyMalformed(CUT_OFF, problems=[CUT_OFF])
    match kind:
        case "draft" | "repair":
            return edits_of(text, target_paths=target_paths, new_paths=new_paths)
        case "change":
            return change_of(text)
        case "tests":
            return _tests(text, is_cut=is_cut, language=language)
        case "act":
            return act_reply(text, uses, offers).model_dump(mode="json")
        case "engineer":
            return session_reply(text, finish_reason, uses, reasoning).model_dump(mode="json")
        case "propose" | "critique" | "vote" | "derive" | "review" | "document" | "advise" | "summarize":
            return _structured(text, json_schema or {"type": "object"})
        case _:
            assert_never(kind)


def _tests(text: str, *, is_cut: bool, language: TestLanguage | None) -> dict[str, Any]:
    if language is not None:
        if is_cut:
            raise ReplyMalformed(CUT_OFF, problems=[CUT_OFF])
        return authored_test_file(text, language)
    try:
        return authored_tests(text, is_cut=is_cut)
    except ReplyMalformed as error:
        raise (ReplyMalformed(CUT_OFF, problems=[CUT_OFF]) if is_cut else error) from error


def _structured(text: str, json_schema: Mapping[str, Any]) -> dict[str, Any]:
    value = json_object(text)
    if problems := list(schema_problems(value, json_schema)):
        raise ReplyMalformed(f"the reply does not fit its form: {'; '.join(problems)}", problems=problems)
    return value


def _text(max_length: int, *, min_length: int = 1) -> dict[str, Any]:
    return {"type": "string", "minLength": min_length, "maxLength": max_length}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def proposal_schema(acceptance_ids: Sequence[str], paths: Sequence[str] = ()) -> dict[str, Any]:
    """A design proposal: what to build, in which file, and how each acceptance criterion is met.

    Args:
        acceptance_ids: ids of the story's criteria, at least one.
        paths: files to choose from; without any, the path is free text.
    """
    criterion = _closed({"ac": {"type": "string", "enum": list(acceptance_ids)}, "how": _text(160)})
    count = len(acceptance_ids)
    return _closed(
        {
            "summary": _text(300),
            "interface": _text(300),
            "path": {"type": "string", "enum": list(paths)} if paths else _text(200),
            "criteria": {"type": "array", "minItems": count, "maxItems": count, "items": criterion},
            "risk": _text(160, min_length=0),
        }
    )


def advice_schema(refs: Sequence[str]) -> dict[str, Any]:
    """An answer in words, with how it meets each of the requirements and criteria that these ids name."""
    answer = {"summary": _text(300), "text": _text(6000)}
    if not refs:
        return _closed(answer)
    return _closed({**answer, "addressed": addressed_schema(refs)})


def addressed_schema(refs: Sequence[str]) -> dict[str, Any]:
    """How an answer meets each of the things that these ids name, at least one."""
    entry = _closed({"ref": {"type": "string", "enum": list(refs)}, "how": _text(300)})
    return {"type": "array", "minItems": len(refs), "maxItems": len(refs), "items": entry}


def critique_schema() -> dict[str, Any]:
    """The one problem that a critic sees, and how serious it is."""
    return _closed({"severity": {"type": "string", "enum": ["none", "minor", "major"]}, "problem": _text(300)})


def review_schema(acceptance_ids: Sequence[str]) -> dict[str, Any]:
    """The criterion that the work breaks, or `none`, with a reason.

    Small models asked for a verdict reject by reflex; asked to name what is broken, they look.
    """
    broken = {"type": "string", "enum": ["none", *acceptance_ids]}
    return _closed({"broken_criterion": broken, "reason": _text(300)})


def document_schema() -> dict[str, Any]:
    """The documentation of a finished story."""
    return _closed({"title": _text(80), "summary": _text(400), "usage": _text(400)})
