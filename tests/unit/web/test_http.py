"""What is shared by all who ask other servers: addresses, trust, bounds, waits, and errors that hold no secret."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.kernel.errors import ConfigError
from fleet.web.answers import Unanswered, document_of, pauses, seconds_of
from fleet.web.http import HttpExchanges
from fleet.web.trust import safe_address, trust_of
from tests.support.http_stand_in import Reply, Request, serving_http
from tests.support.tool_calls import certificates


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://host:1/path", True),
        ("http://127.0.0.1:80", True),
        ("http://[::1]", True),
        ("http://localhost", True),
        ("http://localhost.example", False),
        ("http://host", False),
        ("https://user:hunter2@host", False),
        ("https://host?x=1", False),
        ("https://host#x", False),
        ("ftp://localhost", False),
        ("https://", False),
        ("https://host:port", False),
        ("https://[", False),
        ("host", False),
        ("", False),
    ],
)
def test_secret_goes_over_tls_or_stays_on_this_machine(url: str, is_safe: bool) -> None:
    assert (safe_address(url) is not None) is is_safe


def test_plain_http_to_another_machine_has_to_be_allowed() -> None:
    assert safe_address("http://host") is None
    assert str(safe_address("http://host", allow_http=True)) == "http://host"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), (" 0 ", 0.0), ("", None), (None, None), ("soon", None), ("-1", None), ("1.5", None), ("9" * 16, None)],
)
def test_wait_is_a_number_of_seconds_or_nothing(text: str | None, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def test_wait_until_a_date_counts_from_the_clock_of_the_server() -> None:
    assert seconds_of(formatdate(1_000_060, usegmt=True), date=formatdate(1_000_000, usegmt=True)) == 60
    assert (seconds_of(formatdate(1_000_000, usegmt=True)) or 0) < 0


def waited(number: int, error: Exception | None, **options: Any) -> float:
    outcome = SimpleNamespace(exception=lambda: error)
    state: Any = SimpleNamespace(attempt_number=number, outcome=outcome)
    return pauses(1.0, **options)(state)


def test_waits_grow_differ_and_end_and_what_a_server_asks_for_goes_first() -> None:
    firsts = {waited(1, Unanswered("x")) for _ in range(20)}
    assert len(firsts) == 20, "whoever lost the same server at the same moment comes back at another"
    assert all(1 <= wait <= 2 for wait in firsts)
    assert 8 <= waited(4, Unanswered("x")) <= 9
    assert 30 <= waited(60, Unanswered("x")) <= 31
    assert waited(1, Unanswered("x", wait_s=12)) == 12
    assert waited(1, Unanswered("x", wait_s=3600)) == 30
    assert waited(1, Unanswered("x", wait_s=-5)) == 0


@pytest.mark.parametrize("data", [b"", b"[]", b"3", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_none(data: bytes) -> None:
    assert document_of(data) is None


async def test_answers_are_bounded_and_redirects_are_answers() -> None:
    asked: list[Request] = []
    replies = [Reply(raw=b"x" * 100_000), Reply(500, raw=b"x" * 100_000), Reply(307, {}, headers={"location": "/b"})]

    def answer(request: Request) -> Reply:
        asked.append(request)
        return replies[len(asked) - 1]

    async with serving_http(answer) as url:
        http = HttpExchanges(trust_of(None), timeout_s=5)
        good = await http.ask("GET", url, headers={}, most=1_000)
        bad = await http.ask("GET", url, headers={}, most=1 << 20)
        moved = await http.ask("POST", url, headers={"x-key": "k"}, most=10, json={"a": 1})

    assert (good.data, good.is_whole, good.is_success) == (b"x" * 1_000, False, True)
    assert (len(bad.data), bad.is_whole, bad.is_success) == (64 << 10, False, False)
    assert (moved.status, asked[2].headers["x-key"], asked[2].body) == (307, "k", b'{"a":1}')
    assert {request.headers["accept-encoding"] for request in asked} == {"identity"}


@pytest.mark.parametrize("reply", [Reply(hang=True), Reply(drip=True)], ids=["silent", "dripping"])
async def test_exchange_ends_with_its_deadline(reply: Reply) -> None:
    async with serving_http(lambda _: reply) as url:
        with pytest.raises(Unanswered, match=r"it did not answer in 0\.2 s"):
            await HttpExchanges(trust_of(None), timeout_s=0.2).ask("GET", url, headers={}, most=1 << 20)


async def test_requests_at_one_time_share_connections_and_none_is_left_for_another_loop() -> None:
    http = HttpExchanges(trust_of(None), timeout_s=5)

    async def ask() -> list[int]:
        async with serving_http(lambda _: Reply()) as url:
            found = await asyncio.gather(*(http.ask("GET", url, headers={}, most=100) for _ in range(4)))
        return [answer.status for answer in found]

    assert await ask() == [200] * 4
    assert await asyncio.to_thread(asyncio.run, ask()) == [200] * 4


async def test_distrust_is_told_and_nothing_of_the_request_is(tmp_path: Path) -> None:
    tls, _ = certificates(tmp_path, "127.0.0.1")
    headers = {"authorization": "Bearer hunter2"}
    async with serving_http(lambda _: Reply(), tls=tls) as url:
        with pytest.raises(Unanswered, match="its TLS certificate is not trusted") as caught:
            await HttpExchanges(trust_of(None), timeout_s=5).ask("GET", url, headers=headers, most=10)
        trusting = HttpExchanges(trust_of(tmp_path / "server.pem"), timeout_s=5)
        assert (await trusting.ask("GET", url, headers=headers, most=10)).status == 200

    assert caught.value.is_distrust
    assert caught.value.__context__ is None
    with pytest.raises(ConfigError, match=r"missing\.pem \(blobs\.ca_file\)"):
        trust_of(tmp_path / "missing.pem", key="blobs.ca_file")


async def test_connection_goes_to_the_given_address_under_the_name_of_the_url(tmp_path: Path) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return Reply(raw=b"hello")

    served, trusting = certificates(tmp_path, "a.test")
    async with serving_http(answer, tls=served) as url:
        http = HttpExchanges(trusting, timeout_s=5)
        named = url.replace("127.0.0.1", "a.test")
        assert (await http.ask("GET", named, headers={}, most=9, at="127.0.0.1")).data == b"hello"
        other = url.replace("127.0.0.1", "b.test")
        with pytest.raises(Unanswered) as caught:
            await http.ask("GET", other, headers={}, most=9, at="127.0.0.1")

    assert [request.headers["host"] for request in asked] == [named.removeprefix("https://")]
    assert (caught.value.is_distrust, caught.value.was_sent) == (True, False)


async def test_body_that_nobody_wants_is_not_waited_for() -> None:
    async with serving_http(lambda _: Reply(drip=True)) as url:
        answer = await HttpExchanges(timeout_s=5).ask("GET", url, headers={}, most=0)
    assert (answer.status, answer.data, answer.is_whole) == (200, b"", False)


async def test_lost_answer_and_a_server_that_is_not_there_are_told_apart() -> None:
    http = HttpExchanges(timeout_s=5)
    async with serving_http(lambda _: Reply(is_lost=True)) as url:
        with pytest.raises(Unanswered) as lost:
            await http.ask("POST", url, headers={}, most=9)
    with pytest.raises(Unanswered) as gone:
        await http.ask("POST", url, headers={}, most=9)
    assert (lost.value.was_sent, gone.value.was_sent, gone.value.kind) == (True, False, "ConnectError")


async def test_connections_are_kept_while_they_are_held_open() -> None:
    http = HttpExchanges(timeout_s=5)
    async with serving_http(lambda _: Reply()) as url:
        async with http.connected() as first:
            await http.ask("GET", url, headers={}, most=9)
            async with http.connected() as second:
                assert second is first
        async with http.connected() as third:
            assert third is not first
        assert first.is_closed


@pytest.mark.parametrize("uses_proxies", [True, False])
async def test_proxy_of_the_environment_is_used_only_where_that_is_asked_for(
    uses_proxies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_http(lambda _: Reply(raw=b"proxy")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "")
        http = HttpExchanges(timeout_s=5, uses_proxies=uses_proxies)
        if uses_proxies:
            assert (await http.ask("GET", "http://cluster.invalid/", headers={}, most=9)).data == b"proxy"
        else:
            with pytest.raises(Unanswered):
                await http.ask("GET", "http://cluster.invalid/", headers={}, most=9)
