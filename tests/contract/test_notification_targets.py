"""The contract of NotificationTarget, on every adapter; webhooks and mail on real servers of this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import pytest

from fleet.extensions.notify.mail import MailServer, MailTarget
from fleet.extensions.notify.webhook import WebhookTarget, signature
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import FleetError, NotFound, PolicyDenied, ToolFailed, ToolTimeout
from fleet.notifications.memory import MemoryNotificationTarget
from fleet.notifications.port import Notification, NotificationTarget
from fleet.secrets.port import SecretValue
from tests.support.http_stand_in import Reply, Request, serving_http
from tests.support.smtp_server import MailStandIn, serving_mail

KEY = "0123456789abcdef0123456789abcdef"
TOLD = Notification("nt-one", "approval_requested", {"delivery_id": "nt-one", "story_title": "Größe „M“", "attempt": 1})
LOOPBACK = ("127.0.0.0/8",)


class Receiver(Protocol):
    """The other end."""

    target: NotificationTarget

    def fail_next(self, error: type[FleetError]) -> None:
        """The next sending ends with this error."""
        ...

    def received(self) -> Sequence[Notification]:
        """Everything that arrived, repeats included."""
        ...


class MemoryReceiver:
    def __init__(self) -> None:
        self.memory = MemoryNotificationTarget()
        self.target: NotificationTarget = self.memory

    def fail_next(self, error: type[FleetError]) -> None:
        self.memory.failures.append(error("made to fail"))

    def received(self) -> Sequence[Notification]:
        return self.memory.received


class HttpReceiver:
    """Answers in turn with what it was told to, and then with 200."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[Request] = []
        self.taken: list[Request] = []
        self.failures: list[FleetError] = []
        self.target: NotificationTarget

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        reply = self.replies.pop(0) if self.replies else Reply(204, raw=b"")
        if reply.status < 300 and not reply.hang:
            self.taken.append(request)
        return reply

    async def key(self) -> SecretValue:
        if self.failures:
            raise self.failures.pop(0)
        return SecretValue(KEY, name="bot-key", provider="memory", version=None, ttl_s=60)

    def fail_next(self, error: type[FleetError]) -> None:
        if error is ToolFailed:
            self.replies.append(Reply(500))
        elif error is ToolTimeout:
            self.replies.append(Reply(hang=True))
        else:
            self.failures.append(error("made to fail"))

    def received(self) -> Sequence[Notification]:
        bodies = [json.loads(request.body) for request in self.taken]
        return [Notification(r.headers["webhook-id"], TOLD.kind, b) for r, b in zip(self.taken, bodies, strict=True)]


@asynccontextmanager
async def webhook(
    path: str = "/hooks/T0K3N", *, allowed: Sequence[str] = LOOPBACK, timeout_s: float = 0.5
) -> AsyncGenerator[HttpReceiver]:
    receiver = HttpReceiver()
    async with serving_http(receiver.answer) as url:
        receiver.target = WebhookTarget(
            url + path,
            secret=receiver.key,
            clock=MemoryClock(1_700_000_000_000),
            allowed_addresses=allowed,
            timeout_s=timeout_s,
        )
        yield receiver


class MailReceiver:
    """A mail server without TLS on loopback, and a password that is asked for before each sending."""

    def __init__(self, at: MailStandIn) -> None:
        self.at = at
        self.failures: list[FleetError] = []
        server = MailServer("localhost", at.port, "none", None, ("127.0.0.0/8",), timeout_s=0.5)
        self.target: NotificationTarget = MailTarget(
            server,
            sender="fleet@example.com",
            recipients=("ana@example.com",),
            desk_url="https://fleet.example.com",
            password=None,
            clock=MemoryClock(1_700_000_000_000),
            lookup=self.lookup,
        )

    async def lookup(self, host: str, port: int) -> Sequence[str]:
        if self.failures:
            raise self.failures.pop(0)
        return ["127.0.0.1"]

    def fail_next(self, error: type[FleetError]) -> None:
        if error is ToolFailed:
            self.at.answers["MAIL"] = "451 later"
        elif error is ToolTimeout:
            self.at.answers["DATA"] = "hang"
        else:
            self.failures.append(error("made to fail"))

    def received(self) -> Sequence[Notification]:
        found: list[Notification] = []
        for mail in (taken.mail for taken in self.at.taken):
            told = mail.get_content()
            assert "story title: Größe „M“" in told
            assert "attempt: 1" in told
            found.append(Notification(mail["X-Fleet-Delivery"], mail["X-Fleet-Kind"], TOLD.body))
        return found


@pytest.fixture(params=["memory", "webhook", "mail"])
async def receiver(request: pytest.FixtureRequest) -> AsyncGenerator[Receiver]:
    if request.param == "memory":
        yield MemoryReceiver()
        return
    if request.param == "mail":
        async with serving_mail(MailStandIn()) as at:
            yield MailReceiver(at)
        return
    async with webhook() as found:
        yield found


@pytest.mark.rule("LC-80")
async def test_what_was_sent_is_received_with_its_id_each_time(receiver: Receiver) -> None:
    for _ in range(2):
        await receiver.target.send(TOLD)
    assert list(receiver.received()) == [TOLD, TOLD]


@pytest.mark.rule("LC-80")
@pytest.mark.parametrize("error", [ToolFailed, ToolTimeout, NotFound, PolicyDenied])
async def test_failure_is_told_and_the_next_sending_may_succeed(receiver: Receiver, error: type[FleetError]) -> None:
    receiver.fail_next(error)
    with pytest.raises(error):
        await receiver.target.send(TOLD)
    assert list(receiver.received()) == []
    await receiver.target.send(TOLD)
    assert list(receiver.received()) == [TOLD]


@pytest.mark.rule("LC-80", "RT-65")
async def test_webhook_is_one_signed_post_that_does_not_hold_the_key() -> None:
    async with webhook() as receiver:
        await receiver.target.send(TOLD)
        (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", "/hooks/T0K3N")
    assert (request.headers["content-type"], request.headers["webhook-timestamp"]) == ("application/json", "1700000000")
    expected = signature(KEY, delivery_id="nt-one", sent_s=1_700_000_000, body=request.body)
    assert request.headers["webhook-signature"] == expected
    assert KEY not in request.body.decode() + str(request.headers)


def test_signature_is_that_of_the_published_scheme() -> None:
    # Test vector of the Standard Webhooks specification's reference libraries.
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    found = signature(secret, delivery_id="msg_p5jXN8AQM9LWM0D4loKWxJek", sent_s=1614265330, body=body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    with pytest.raises(PolicyDenied, match="no base64"):
        signature("whsec_not base64!", delivery_id="a", sent_s=1, body=b"")


@pytest.mark.rule("RT-59")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(status: int) -> None:
    async with webhook() as receiver, webhook() as elsewhere:
        receiver.replies.append(Reply(status, headers={"location": "http://127.0.0.1:1/other"}))
        with pytest.raises(ToolFailed, match="leads elsewhere"):
            await receiver.target.send(TOLD)
        assert len(receiver.requests) == 1
        assert elsewhere.requests == []


@pytest.mark.rule("RT-59")
@pytest.mark.parametrize("allowed", [(), ("10.0.0.0/8",)])
async def test_private_address_is_connected_to_only_where_its_network_is_listed(allowed: tuple[str, ...]) -> None:
    async with webhook(allowed=allowed) as receiver:
        with pytest.raises(PolicyDenied, match="list its network under `networks`"):
            await receiver.target.send(TOLD)
        assert receiver.requests == []


@pytest.mark.rule("RT-59")
async def test_name_that_also_leads_to_a_listed_network_is_refused_for_its_other_address() -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1", "192.168.7.7"]

    receiver = HttpReceiver()
    target = WebhookTarget(
        "https://bot.example/x", secret=receiver.key, clock=MemoryClock(), allowed_addresses=LOOPBACK, lookup=lookup
    )
    with pytest.raises(PolicyDenied, match=r"192\.168\.7\.7"):
        await target.send(TOLD)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, document={"detail": "T0P SECRET"}),
        Reply(404),
        Reply(is_lost=True),
        Reply(100),
        Reply(599),
    ],
    ids=["500", "404", "lost", "100", "599"],
)
async def test_any_other_answer_is_a_failure_that_tells_neither_path_nor_body(reply: Reply) -> None:
    async with webhook() as receiver:
        receiver.replies.append(reply)
        with pytest.raises((ToolFailed, ToolTimeout)) as caught:
            await receiver.target.send(TOLD)
    assert "T0K3N" not in str(caught.value.to_wire())
    assert "T0P SECRET" not in str(caught.value.to_wire())


async def test_receiver_that_sends_without_end_after_its_status_has_received() -> None:
    async with webhook() as receiver:
        receiver.replies.append(Reply(200, drip=True))
        async with asyncio.timeout(5):
            await receiver.target.send(TOLD)
        assert list(receiver.received()) == [TOLD]


async def test_nobody_at_the_address_is_a_failure() -> None:
    async with webhook() as receiver:
        target = receiver.target
    with pytest.raises(ToolFailed, match=r"127\.0\.0\.1 cannot be told \(ConnectError\)"):
        await target.send(TOLD)
