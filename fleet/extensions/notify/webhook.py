"""A notification target that is an HTTP endpoint: one signed POST for each notification (LC-80, RT-59)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fleet.extensions.notify.reach import checked_address
from fleet.extensions.operations.http import Lookup, system_lookup
from fleet.kernel.clock import Clock
from fleet.kernel.errors import PolicyDenied, ToolFailed, ToolTimeout
from fleet.kernel.plugin import Secret
from fleet.notifications.port import Notification, NotificationTargetPlugin, TargetParts
from fleet.policy.commands.http import target_of
from fleet.web.answers import Unanswered
from fleet.web.http import HttpExchanges
from fleet.web.trust import trust_of

_PREFIX = "whsec_"


def signature(secret: str, *, delivery_id: str, sent_s: int, body: bytes) -> str:
    """`v1,<base64>`: HMAC-SHA256 of `<delivery id>.<seconds since 1970>.<body>` with the secret's bytes.

    A secret of the form `whsec_<base64>` stands for the bytes that are encoded in it, any other for its own UTF-8.

    Source: Standard Webhooks 1.0, signature scheme v1.
    """
    key = secret.encode()
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error as error:
            raise PolicyDenied(
                "the secret begins with whsec_, and what follows is no base64: store it as the receiver gave it",
                rule_id="RT-65",
            ) from error
    signed = f"{delivery_id}.{sent_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class WebhookTarget:
    """Implements the port NotificationTarget. Each sending looks the name up, and only a checked address is used.

    No message and no error holds more of the address than its host: the path of a webhook is often a secret itself.

    Args:
        url: where to POST; the only address that is ever asked, as no redirect is followed.
        secret: gives what bodies are signed with, asked at each sending, so that it may rotate.
        allowed_addresses: networks of the owner that may be connected to although they are not public.
        timeout_s: for the whole exchange.
        ca_file: certificates of the authority that vouches for the receiver; None trusts the usual ones.
        lookup: of names. Default: the machine's.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: Callable[[], Awaitable[Secret]],
        clock: Clock,
        allowed_addresses: Sequence[str] = (),
        timeout_s: float = 10.0,
        ca_file: Path | None = None,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._target = target_of(url)
        self._secret, self._clock, self._timeout_s = secret, clock, timeout_s
        self._allowed, self._ca_file, self._lookup = tuple(allowed_addresses), ca_file, lookup

    async def send(self, notification: Notification) -> None:
        """See `NotificationTarget.send`: any answer from 200 to 299 says that it was received."""
        body = json.dumps(notification.body, ensure_ascii=False, separators=(",", ":")).encode()
        sent_s = self._clock.now_ms() // 1000
        key = (await self._secret()).reveal()
        headers = {
            "content-type": "application/json",
            "user-agent": "swe-fleet",
            "webhook-id": notification.delivery_id,
            "webhook-timestamp": str(sent_s),
            "webhook-signature": signature(key, delivery_id=notification.delivery_id, sent_s=sent_s, body=body),
        }
        host = self._target.host
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await self._posted(headers, body)
        except TimeoutError as error:
            raise ToolTimeout(f"{host} did not answer within {self._timeout_s:g} s", host=host) from error
        except Unanswered as error:
            raise ToolFailed(
                f"{host} cannot be told ({error.kind}); check that it runs and that it is trusted", host=host
            ) from error
        if 300 <= status < 400:
            raise ToolFailed(
                f"{host} answers {status} and leads elsewhere, which is not followed: give its own address as url",
                host=host,
                status=status,
            )
        if not 200 <= status < 300:
            raise ToolFailed(f"{host} answers {status}; look at what it says of that", host=host, status=status)

    async def _posted(self, headers: Mapping[str, str], body: bytes) -> int:
        target = self._target
        address = await checked_address(target.host, target.port, allowed=self._allowed, lookup=self._lookup)
        # What it says beside the status is of no use here, and could be without end.
        answer = await self._http.ask("POST", target.url, headers=headers, content=body, most=0, at=address)
        return answer.status

    @cached_property
    def _http(self) -> HttpExchanges:
        return HttpExchanges(trust_of(self._ca_file), timeout_s=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOptions:
    """The keys of a target of kind webhook in fleet.yaml."""

    url: str
    networks: tuple[str, ...]
    timeout_s: int
    ca_file: Path | None


def _webhook(options: WebhookOptions, parts: TargetParts) -> WebhookTarget:
    assert parts.secret is not None, "the settings of a webhook name its key"
    return WebhookTarget(
        options.url,
        secret=parts.secret,
        clock=parts.clock,
        allowed_addresses=options.networks,
        timeout_s=options.timeout_s,
        ca_file=options.ca_file,
    )


PLUGIN = NotificationTargetPlugin(name="webhook", options=WebhookOptions, make=_webhook)
