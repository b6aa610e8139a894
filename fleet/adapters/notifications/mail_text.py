"""A notification as a mail: plain text, whose only link leads to the desk. Pure (LC-80)."""

from __future__ import annotations

import email.policy
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from pydantic import JsonValue

from fleet.ports import NoticeKind, Notification

__all__ = ["mail_of"]

_TITLES: Mapping[NoticeKind, str] = {
    "approval_requested": "An approval waits",
    "time_limit_passed": "A time limit passed",
    "incident_opened": "An incident was opened",
}
_NOT_TOLD = frozenset({"form", "link", "delivery_id", "kind"})
_SUBJECT_CHARS = 150
_LINKING = re.compile(r"(?<=\w)([.:@])(?=[^\W\d]|/)")
_JOINER = "\u2060"


def mail_of(
    notification: Notification, *, sender: str, recipients: Sequence[str], desk_url: str, now_ms: int
) -> EmailMessage:
    """The mail. Its id is that of the delivery, so that a repeat is known as one.

    What people and models wrote stands in it as one line of plain text each, and nothing in it becomes a link.

    Args:
        desk_url: address of the desk without a fragment.
        now_ms: when it is sent, in milliseconds since 1970 UTC.
    """
    body = notification.body
    title, about = _TITLES[notification.kind], _plain(str(body.get("story_title") or ""))
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"] = sender, ", ".join(recipients)
    mail["Subject"] = _cut(f"[SWE Fleet] {title}: {about}" if about else f"[SWE Fleet] {title}")
    mail["Date"] = format_datetime(datetime.fromtimestamp(now_ms // 1000, UTC))
    mail["Message-ID"] = f"<{notification.delivery_id}@{sender.rpartition('@')[2]}>"
    # No out-of-office answer comes to what no person sent (RFC 3834).
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Fleet-Delivery"], mail["X-Fleet-Kind"] = notification.delivery_id, notification.kind
    lines = [f"{title}.", "", *_facts(body)]
    if link := body.get("link"):
        lines += ["", f"{desk_url.rstrip('/')}/{link}"]
    # Receivers that take no 8-bit text take this.
    mail.set_content("\n".join(lines) + "\n", cte="quoted-printable")
    return mail


def _facts(body: Mapping[str, JsonValue], prefix: str = "") -> Iterator[str]:
    for name, value in body.items():
        if value is None or (not prefix and name in _NOT_TOLD):
            continue
        if isinstance(value, dict):
            yield from _facts(value, f"{prefix}{name}.")
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield f"{prefix}{name.replace('_', ' ')}: {_plain(shown)}"


def _plain(text: str) -> str:
    """One line without control characters, in which no mail program finds an address to link to."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return _LINKING.sub(rf"\1{_JOINER}", " ".join(printable.split()))


def _cut(text: str) -> str:
    return text if len(text) <= _SUBJECT_CHARS else f"{text[: _SUBJECT_CHARS - 1]}…"
