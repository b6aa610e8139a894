"""Mail as a notification target, handed in at a server on loopback that speaks SMTP (LC-80, RT-59)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet.extensions.notify.mail import MailServer, MailTarget
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import PolicyDenied, ToolFailed, ToolTimeout
from fleet.notifications.port import Notification
from fleet.secrets.port import SecretValue
from tests.support.smtp_server import MailStandIn, serving_mail
from tests.support.tool_calls import certificates

LINK = "#/gates/st-slug7/ap-one1"
TOLD = Notification(
    "nt-one",
    "approval_requested",
    {"delivery_id": "nt-one", "story_title": "Größe „M“", "gate": "approve_scope", "link": LINK},
)
PEOPLE = ("ana@example.com", "bob@example.com")
PASSWORD = "0123456789abcdef"


async def _password() -> SecretValue:
    return SecretValue(PASSWORD, name="mail", provider="memory", version=None, ttl_s=60)


def target_of(at: MailStandIn, **changes: Any) -> MailTarget:
    """A target for this server; loopback is a network of ours."""
    user = changes.get("user")
    server: dict[str, Any] = {
        "host": "localhost",
        "port": at.port,
        "security": "none",
        "allowed_addresses": ("127.0.0.0/8", "::1/128"),
        "timeout_s": 5.0,
    }

    async def lookup(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    return MailTarget(
        MailServer(**server | changes),
        sender="fleet@example.com",
        recipients=PEOPLE,
        desk_url="https://fleet.example.com/",
        password=_password if user else None,
        clock=MemoryClock(1_700_000_000_000),
        lookup=lookup,
    )


@asynccontextmanager
async def secure(folder: Path, *, is_implicit: bool = False, name: str = "localhost") -> AsyncGenerator[MailStandIn]:
    """A server with TLS and one user; the file of its certificate is `server.pem`."""
    tls, _ = certificates(folder, name)
    async with serving_mail(MailStandIn(tls, is_implicit, accounts={"fleet": PASSWORD})) as at:
        yield at


@pytest.mark.rule("LC-80")
async def test_mail_says_what_waits_links_to_the_desk_and_is_known_again_by_its_id() -> None:
    async with serving_mail(MailStandIn()) as at:
        target = target_of(at)
        for _ in range(2):
            await target.send(TOLD)
        first, again = at.taken
    assert (first.sender, first.recipients) == ("fleet@example.com", PEOPLE)
    assert first.raw == again.raw
    mail = first.mail
    assert mail["Subject"] == "[SWE Fleet] An approval waits: Größe „M“"
    assert (mail["Message-ID"], mail["X-Fleet-Delivery"]) == ("<nt-one@example.com>", "nt-one")
    assert (mail["Date"], mail["Auto-Submitted"]) == ("Tue, 14 Nov 2023 22:13:20 +0000", "auto-generated")
    lines = mail.get_content().splitlines()
    assert lines[-1] == f"https://fleet.example.com/{LINK}"
    assert "story title: Größe „M“" in lines
    # The name of this machine is not told.
    assert at.said[0].lower() == "ehlo example.com"


@pytest.mark.rule("LC-80", "CX-60")
async def test_text_of_a_story_ends_no_header_adds_no_recipient_and_becomes_no_link() -> None:
    hostile = (
        "x\r\nBcc: eve@evil.example\r\n\r\n.\r\nMAIL FROM:<eve@evil.example> https://evil.example www.evil.org\x07"
    )
    body = {**TOLD.body, "story_title": hostile, "summary": hostile, "list": [hostile]}
    async with serving_mail(MailStandIn()) as at:
        await target_of(at).send(Notification("nt-one", "incident_opened", body))
        (taken,) = at.taken
    assert taken.recipients == PEOPLE
    assert not any("eve@" in line for line in at.said)
    mail = taken.mail
    assert (mail["Bcc"], mail["To"]) == (None, ", ".join(PEOPLE))
    text = mail["Subject"] + mail.get_content()
    assert "https://evil" not in text
    assert "www.evil" not in text
    assert "eve@evil" not in text
    assert "\x07" not in text
    assert text.count("https://") == 1


@pytest.mark.rule("LC-80", "RT-65")
@pytest.mark.parametrize("is_implicit", [False, True])
async def test_password_goes_over_tls_to_a_server_that_is_trusted_alone(tmp_path: Path, is_implicit: bool) -> None:
    security = "tls" if is_implicit else "starttls"
    async with secure(tmp_path, is_implicit=is_implicit) as at:
        await target_of(at, security=security, user="fleet", ca_file=tmp_path / "server.pem").send(TOLD)
        (taken,) = at.taken
        assert (taken.is_encrypted, taken.user) == (True, "fleet")
        at.said.clear()
        with pytest.raises(ToolFailed, match="SSLCertVerificationError"):
            await target_of(at, security=security, user="fleet").send(TOLD)
        assert not any(line.startswith("AUTH") for line in at.said)
        assert len(at.taken) == 1


@pytest.mark.rule("RT-59")
async def test_certificate_of_another_name_is_not_trusted(tmp_path: Path) -> None:
    async with secure(tmp_path, name="other.example") as at:
        with pytest.raises(ToolFailed, match="SSLCertVerificationError"):
            await target_of(at, security="starttls", user="fleet", ca_file=tmp_path / "server.pem").send(TOLD)
        assert at.taken == []


@pytest.mark.rule("RT-65")
async def test_server_that_offers_no_tls_gets_neither_password_nor_mail() -> None:
    async with serving_mail(MailStandIn(accounts={"fleet": PASSWORD})) as at:
        with pytest.raises(ToolFailed, match="does not offer what"):
            await target_of(at, security="starttls", user="fleet").send(TOLD)
        assert at.taken == []
        assert [line.split(" ")[0].lower() for line in at.said] == ["ehlo"]


@pytest.mark.rule("RT-59")
@pytest.mark.parametrize("allowed", [(), ("10.0.0.0/8",)])
async def test_private_address_is_connected_to_only_where_its_network_is_listed(allowed: tuple[str, ...]) -> None:
    async with serving_mail(MailStandIn()) as at:
        with pytest.raises(PolicyDenied, match="list its network under `networks`"):
            await target_of(at, allowed_addresses=allowed).send(TOLD)
        assert at.said == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"refuses": frozenset(PEOPLE)}, "refuses every recipient"),
        ({"refuses": frozenset(PEOPLE[:1])}, "refuses 1 of 2 recipients"),
        ({"answers": {"MAIL": "451 T0P SECRET"}}, "answers 451"),
        ({"answers": {"DATA": "554 T0P SECRET"}}, "answers 554"),
        ({"answers": {"EHLO": "500 no", "HELO": "500 no"}}, "answers 500"),
        ({"answers": {"EHLO": "nonsense"}}, "answers"),
    ],
)
async def test_refusal_is_a_failure_that_does_not_tell_what_the_server_wrote(changes: Any, says: str) -> None:
    async with serving_mail(MailStandIn(**changes)) as at:
        with pytest.raises(ToolFailed, match=says) as caught:
            await target_of(at).send(TOLD)
    assert "T0P SECRET" not in str(caught.value.to_wire())


async def test_wrong_password_is_told_without_it(tmp_path: Path) -> None:
    async with secure(tmp_path) as at:
        at.accounts["fleet"] = "another"
        with pytest.raises(ToolFailed, match="does not accept user and password") as caught:
            await target_of(at, security="starttls", user="fleet", ca_file=tmp_path / "server.pem").send(TOLD)
    assert "T0P SECRET" not in str(caught.value.to_wire())
    assert PASSWORD not in str(caught.value.to_wire())


@pytest.mark.rule("LC-80")
@pytest.mark.parametrize("verb", ["EHLO", "MAIL", "DATA"])
async def test_server_that_says_nothing_is_waited_for_no_longer_than_its_time(verb: str) -> None:
    async with serving_mail(MailStandIn(answers={verb: "hang"})) as at:
        target = target_of(at, timeout_s=0.3)
        with pytest.raises(ToolTimeout, match="did not take the mail within"):
            async with asyncio.timeout(5):
                await target.send(TOLD)
        await target_of(at).send(TOLD)
        assert len(at.taken) == 1


async def test_nobody_at_the_address_is_a_failure() -> None:
    async with serving_mail(MailStandIn()) as at:
        target = target_of(at)
    with pytest.raises(ToolFailed, match=r"localhost cannot be told \(ConnectionRefusedError\)"):
        await target.send(TOLD)
