"""The content of a story: its limits and the digest that scores, approvals and plans are bound to."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest

MAX_TITLE, MAX_DESCRIPTION, MAX_CRITERION, MAX_CRITERIA = 200, 20_000, 2_000, 50
MAX_TAG, MAX_TAGS = 40, 20
"""GL-14, in characters after NFC and in entries."""


class ReadableText(NamedTuple):
    """What people read of a story."""

    title: str
    description: str
    acceptance_criteria: tuple[str, ...]


def content_digest(
    title: str,
    description: str,
    acceptance_criteria: Sequence[str],
    constraints: Mapping[str, Any],
    tags: Sequence[str],
) -> Digest:
    """The story's content digest: that of the canonical JSON of these five fields, as stored (GL-13).

    Raises:
        TypeError: a constraint holds a float or something that JSON has no form for.
    """
    return digest_of_json(
        {
            "title": title,
            "description": description,
            "acceptance_criteria": list(acceptance_criteria),
            "constraints": dict(constraints),
            "tags": list(tags),
        }
    )


def check_content(
    title: str, description: str, acceptance_criteria: Sequence[str], *, tags: Sequence[str] = ()
) -> None:
    """Nothing, when every text is inside the limits of GL-14.

    Raises:
        InvalidInput: a text is over its limit or holds a control character; `problems` names all of them (GL-15).
    """
    problems = [*_problems("/title", title, MAX_TITLE), *_problems("/description", description, MAX_DESCRIPTION)]
    problems += _count_problems("/acceptance_criteria", len(acceptance_criteria), MAX_CRITERIA)
    for i, text in enumerate(acceptance_criteria):
        problems += _problems(f"/acceptance_criteria/{i}", text, MAX_CRITERION)
    problems += _count_problems("/tags", len(tags), MAX_TAGS)
    for i, text in enumerate(tags):
        problems += _problems(f"/tags/{i}", text, MAX_TAG)
    if problems:
        raise InvalidInput(
            f"{problems[0]['field']} {problems[0]['message']} ({len(problems)} problems in all)", problems=problems
        )


def _count_problems(field: str, count: int, most: int) -> list[dict[str, str]]:
    return [] if count <= most else [{"field": field, "message": f"has {count} entries, at most {most} are allowed"}]


def _problems(field: str, text: str, most: int) -> list[dict[str, str]]:
    problems: list[str] = []
    length = len(unicodedata.normalize("NFC", text))
    if length > most:
        problems.append(f"has {length} characters, at most {most} are allowed")
    if bad := next((c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"), None):
        problems.append(f"holds the control character U+{ord(bad):04X}; remove it")
    return [{"field": field, "message": m} for m in problems]
