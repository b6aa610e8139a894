"""Bring the text of a change request into the form that every forge takes; all of it is data (RC-105)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import urlsplit

from fleet.forge.local.refs import check_branch
from fleet.forge.port import ChangeRequest
from fleet.kernel.errors import InvalidInput

STATUS_NAME = "fleet/verdict"
"""Under this name the verdict stands beside a commit."""
MAX_TITLE = 240
"""Characters; GitLab and Gitea take 255 with their mark for drafts, GitHub 256."""
MAX_TEXT = 60_000
"""Characters; GitHub takes 65,536."""
_MAX_VERDICT = 200
_MAX_DESCRIPTION = 140
_MAX_LABELS, _MAX_LABEL = 20, 50
_MAX_LINK = 2000
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_LINK = re.compile(r"[\x21-\x7e]+")
# At GitLab and Gitea these make a draft; whether it is one is not for the text to say.
_DRAFT_MARK = re.compile(r"^(\s*(\[(draft|wip)\]|\((draft|wip)\)|(draft|wip):|draft\s+-))+\s*", re.IGNORECASE)
_CUT = "\n\n_The rest was cut: see the report._"


@dataclass(frozen=True, slots=True)
class CheckedChange:
    """A change request whose names are checked and whose text has its final form."""

    repository: str
    base: str
    head: str
    title: str
    text: str
    labels: tuple[str, ...]
    is_draft: bool
    patch: bytes


def checked(change: ChangeRequest) -> CheckedChange:
    """What the forge shall show.

    Raises:
        InvalidInput: a branch that git refuses, head and base the same, no title, a label or link of wrong form.
    """
    if _branch(change.head) == _branch(change.base):
        raise InvalidInput(f"'{change.head}' cannot be merged into itself: name another base branch", head=change.head)
    title = one_line(_DRAFT_MARK.sub("", one_line(change.title, 2 * MAX_TITLE), count=1), MAX_TITLE)
    if not title:
        raise InvalidInput("the change request has no title: give it one", head=change.head)
    return CheckedChange(
        repository=change.repository,
        base=change.base,
        head=change.head,
        title=title,
        text=_text(change),
        labels=_labels(change.labels),
        is_draft=change.is_draft,
        patch=change.patch,
    )


def _branch(name: str) -> str:
    if any(unicodedata.category(c) == "Cs" for c in name):
        raise InvalidInput(f"{name[:100]!r} is no branch name: it is not valid text", branch=ascii(name[:100]))
    return check_branch(name)


def checked_commit(commit: str) -> str:
    """The commit id, when it is one; InvalidInput otherwise."""
    if not _COMMIT.fullmatch(commit):
        raise InvalidInput(f"{commit[:80]!r} is no commit id: it has 40 or 64 hexadecimal digits", commit=commit[:80])
    return commit


def checked_link(link: str) -> str:
    """The link, when it is empty or an http(s) address without spaces, quotes and angle brackets; else InvalidInput."""
    if not link:
        return link
    try:
        parts = urlsplit(link)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        is_good = False
    if not is_good or len(link) > _MAX_LINK or not _LINK.fullmatch(link) or set(link) & set("<>\"'`\\"):
        raise InvalidInput(f"{link[:100]!r} is no link: it must be an http or https address", link=link[:200])
    return link


def one_line(text: str, limit: int = _MAX_DESCRIPTION) -> str:
    """The text without control and formatting characters, in one line of at most `limit` characters."""
    shown = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text[: limit * 8])
    line = " ".join(shown.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _text(change: ChangeRequest) -> str:
    # First what must not be lost when the rest is too long.
    head = [f"**Verdict:** {verdict}" for verdict in (one_line(change.verdict, _MAX_VERDICT),) if verdict]
    head += [f"**Report:** <{link}>" for link in (checked_link(change.report_link),) if link]
    body = change.body.replace("\r\n", "\n").replace("\r", "\n")
    text = "\n".join([*head, "", "".join(c for c in body if _is_shown(c))]).strip()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - len(_CUT)].rstrip() + _CUT


def _is_shown(character: str) -> bool:
    """Whether it belongs in a text: marks that turn the direction of writing hide what a reviewer should see."""
    return character in "\n\t\u200c\u200d" or unicodedata.category(character) not in ("Cc", "Cf", "Cs")


def _labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    for label in labels:
        # A comma separates labels at GitLab.
        if not label or len(label) > _MAX_LABEL or "," in label or one_line(label) != label:
            raise InvalidInput(
                f"{label[:60]!r} is no label: it has 1 to {_MAX_LABEL} characters in one line and no comma",
                label=label[:100],
            )
    if len(labels) > _MAX_LABELS:
        raise InvalidInput(f"{len(labels)} labels are too many: give at most {_MAX_LABELS}", count=len(labels))
    return tuple(dict.fromkeys(labels))
