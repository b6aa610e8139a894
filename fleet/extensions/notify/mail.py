"""A notification target that is a mail server: one mail for each notification, over SMTP (LC-80, RT-59)."""

from __future__ import annotations

import asyncio
import email.policy
import re
import smtplib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from fleet.extensions.notify.reach import checked_address
from fleet.extensions.operations.http import Lookup, system_lookup
from fleet.kernel.clock import Clock
from fleet.kernel.errors import ToolFailed, ToolTimeout
from fleet.kernel.plugin import Secret
from fleet.kernel.types import NoticeKind
from fleet.notifications.port import Notification, NotificationTargetPlugin, TargetParts

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


Security = Literal["starttls", "tls", "none"]


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mails are handed in, and as whom.

    Args:
        security: `starttls` turns to TLS before anything is said, `tls` speaks it from the start.
        user: who logs in, with the password of the target; None logs nobody in.
        allowed_addresses: networks of the owner that may be connected to although they are not public.
        timeout_s: for the whole exchange.
        ca_file: certificates of the authority that vouches for the server; None trusts the usual ones.
    """

    host: str
    port: int
    security: Security
    user: str | None = None
    allowed_addresses: tuple[str, ...] = ()
    timeout_s: float = 30.0
    ca_file: Path | None = None


class MailTarget:
    """Implements the port NotificationTarget. Each sending looks the name up, and only a checked address is used.

    Received is what the server took for every recipient: it answers for the mail from then on.

    Args:
        sender, recipients: addresses without names.
        desk_url: address of the desk, the only one that a mail links to.
        password: asked at each sending, so that it may rotate; None where the server has no user.
        lookup: of names. Default: the machine's.
    """

    def __init__(
        self,
        server: MailServer,
        *,
        sender: str,
        recipients: Sequence[str],
        desk_url: str,
        password: Callable[[], Awaitable[Secret]] | None,
        clock: Clock,
        lookup: Lookup = system_lookup,
    ) -> None:
        assert (server.user is None) == (password is None), "a user has a password"
        assert server.user is None or server.security != "none", "no password goes over a line that others may read"
        self._server, self._sender, self._recipients, self._desk_url = server, sender, tuple(recipients), desk_url
        self._password, self._clock, self._lookup = password, clock, lookup

    async def send(self, notification: Notification) -> None:
        """See `NotificationTarget.send`."""
        server, host = self._server, self._server.host
        mail = mail_of(
            notification,
            sender=self._sender,
            recipients=self._recipients,
            desk_url=self._desk_url,
            now_ms=self._clock.now_ms(),
        )
        password = (await self._password()).reveal() if self._password is not None else ""
        line = _Line(server, sender=self._sender, recipients=self._recipients)
        try:
            async with asyncio.timeout(server.timeout_s):
                line.address = await checked_address(
                    host, server.port, allowed=server.allowed_addresses, lookup=self._lookup
                )
                refused = await asyncio.to_thread(line.hand_in, mail, password)
        except TimeoutError as error:
            raise ToolTimeout(f"{host} did not take the mail within {server.timeout_s:g} s", host=host) from error
        except OSError as error:
            raise _failed(host, error) from error
        finally:
            # The thread of a server that says one byte a minute ends with its connection.
            line.cut()
        if refused:
            raise ToolFailed(
                f"{host} refuses {refused} of {len(self._recipients)} recipients: look at their addresses", host=host
            )


def _failed(host: str, error: OSError) -> ToolFailed:
    """What went wrong, without what the server wrote."""
    match error:
        case smtplib.SMTPAuthenticationError():
            why = "does not accept user and password"
        case smtplib.SMTPRecipientsRefused():
            why = "refuses every recipient: look at their addresses"
        case smtplib.SMTPResponseException():
            why = f"answers {error.smtp_code}; look at what it says of that"
        case smtplib.SMTPNotSupportedError():
            why = "does not offer what `security` and `user` of the target need"
        case _:
            why = f"cannot be told ({type(error).__name__}); check that it runs and that it is trusted"
    return ToolFailed(f"{host} {why}", host=host)


@dataclass(slots=True)
class _Line:
    """One connection; `hand_in` runs in a thread, `cut` may come from any other."""

    server: MailServer
    sender: str
    recipients: tuple[str, ...]
    address: str = ""
    _held: list[socket.socket] = field(default_factory=list[socket.socket])
    _is_cut: bool = False

    def hand_in(self, mail: EmailMessage, password: str) -> int:
        """The server has the mail; the number of recipients that it refuses. OSError, of which smtplib's are."""
        server = self.server
        trust = None if server.security == "none" else ssl.create_default_context(cafile=server.ca_file)
        client = _Smtp(self._connected, server, trust if server.security == "tls" else None, domain=self._domain)
        try:
            if server.security == "starttls":
                client.starttls(context=trust)
            if server.user is not None:
                client.login(server.user, password)
            refused = client.send_message(mail, self.sender, self.recipients)
            with suppress(OSError):
                # Its answer is not waited for: the mail is the server's already.
                client.putcmd("quit")
        finally:
            client.close()
        return len(refused)

    @property
    def _domain(self) -> str:
        # What it greets with: the name of this machine is nobody's business.
        return self.sender.rpartition("@")[2]

    def _connected(self) -> socket.socket:
        found = socket.create_connection((self.address, self.server.port), self.server.timeout_s)
        # Of its own: what turns to TLS takes the first one over.
        self._held.append(found.dup())
        if self._is_cut:
            raise TimeoutError("the connection came too late")
        return found

    def cut(self) -> None:
        """Nothing waits for the connection any more."""
        self._is_cut = True
        for one in self._held:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class _Smtp(smtplib.SMTP):
    """A client that connects to the address that was checked, and knows the server by its name."""

    def __init__(
        self,
        connected: Callable[[], socket.socket],
        server: MailServer,
        trust: ssl.SSLContext | None,
        *,
        domain: str,
    ) -> None:
        self._connected, self._trust = connected, trust
        super().__init__(server.host, server.port, local_hostname=domain, timeout=server.timeout_s)

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:
        plain = self._connected()
        return plain if self._trust is None else self._trust.wrap_socket(plain, server_hostname=host)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailOptions:
    """The keys of a target of kind mail in fleet.yaml."""

    host: str
    port: int
    security: Security
    user: str | None
    sender: str
    recipients: tuple[str, ...]
    desk_url: str
    networks: tuple[str, ...]
    timeout_s: int
    ca_file: Path | None


def _mail(options: MailOptions, parts: TargetParts) -> MailTarget:
    server = MailServer(
        host=options.host,
        port=options.port,
        security=options.security,
        user=options.user,
        allowed_addresses=options.networks,
        timeout_s=options.timeout_s,
        ca_file=options.ca_file,
    )
    return MailTarget(
        server,
        sender=options.sender,
        recipients=options.recipients,
        desk_url=options.desk_url,
        password=parts.secret,
        clock=parts.clock,
    )


PLUGIN = NotificationTargetPlugin(name="mail", options=MailOptions, make=_mail)
