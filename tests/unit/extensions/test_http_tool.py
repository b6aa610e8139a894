"""Tool http against a stand-in of a server in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from fleet.extensions.operations.http import MAX_BODY_BYTES, HttpTool, system_lookup
from fleet.kernel.errors import InvalidInput, PolicyDenied, ToolFailed, ToolTimeout
from fleet.policy.runs.outcome import ToolOutcome
from fleet.tools.port import Tool
from fleet.trees.memory import MemoryBlobStore
from tests.support.http_stand_in import Reply, Request, serving_http
from tests.support.tool_calls import TableOfSecrets, call_of, certificates, context_of

HERE = ("127.0.0.1/32",)


class Server:
    """Keeps what it was asked and answers by path."""

    def __init__(self, **replies: Reply) -> None:
        self.replies = replies
        self.asked: list[Request] = []

    def answer(self, request: Request) -> Reply:
        self.asked.append(request)
        return self.replies.get(request.path.strip("/") or "root", Reply(404, raw=b"nothing here"))

    def serving(self) -> AbstractAsyncContextManager[str]:
        return serving_http(self.answer)


def lookup_of(*answers: Sequence[str]) -> Callable[[str, int], Any]:
    """Each look-up gets the next answer, the last one stays."""
    waiting = list(answers)

    async def lookup(host: str, port: int) -> Sequence[str]:
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return lookup


def tool(**options: Any) -> HttpTool:
    given: dict[str, Any] = {
        "hosts": ["a.test", "b.test"],
        "plain_hosts": ["a.test", "b.test"],
        "allowed_addresses": HERE,
        "lookup": lookup_of(["127.0.0.1"]),
        **options,
    }
    return HttpTool(MemoryBlobStore(), **given)


def at(url: str, path: str = "", host: str = "a.test") -> str:
    return url.replace("127.0.0.1", host) + path


async def ask(one: Tool, op: str, url: str, **args: Any) -> ToolOutcome:
    return await one.call(call_of("http", op, url=url, **args), context_of(timeout_s=10))


@pytest.mark.rule("RT-47", "RT-59")
async def test_get_goes_to_the_checked_address_under_the_name() -> None:
    server = Server(root=Reply(raw=b"hello"))
    async with server.serving() as url:
        found = await ask(tool(), "get", at(url, "/"))

    assert (found.outcome, found.exit_code, found.text) == ("succeeded", 200, "hello")
    assert server.asked[0].headers["host"] == at(url).removeprefix("http://")
    assert isinstance(found.content, dict)
    assert found.content["redirects"] == 0


async def test_status_of_a_refusal_is_an_outcome() -> None:
    async with Server().serving() as url:
        found = await ask(tool(), "get", at(url, "/none"))

    assert (found.outcome, found.reason, found.exit_code) == ("failed", "http_status", 404)


@pytest.mark.parametrize("op", ["post", "put", "patch", "delete"])
async def test_write_sends_body_and_key_of_the_step(op: str) -> None:
    server = Server(root=Reply(201, raw=b"{}"))
    body = {} if op == "delete" else {"body": '{"a": 1}', "content_type": "application/json"}
    async with server.serving() as url:
        await ask(tool(), op, at(url, "/"), **body)

    asked = server.asked[0]
    assert asked.method == op.upper()
    assert asked.headers["idempotency-key"] == "ab" * 32
    assert asked.body.decode() == body.get("body", "")


@pytest.mark.rule("RT-59")
async def test_host_that_turns_to_this_machine_at_the_second_lookup_is_refused() -> None:
    server = Server(root=Reply(302, raw=b"", headers={"location": "/again"}), again=Reply(raw=b"secret"))
    async with server.serving() as url:
        turned = tool(lookup=lookup_of(["127.0.0.1"], ["127.0.0.2"]))
        with pytest.raises(PolicyDenied, match="127.0.0.2"):
            await ask(turned, "get", at(url, "/"))

    assert [r.path for r in server.asked] == ["/"]


@pytest.mark.rule("RT-59")
@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"], []])
async def test_name_that_leads_to_an_address_that_is_not_public_is_refused(addresses: list[str]) -> None:
    server = Server()
    async with server.serving() as url:
        with pytest.raises(PolicyDenied):
            await ask(tool(allowed_addresses=(), lookup=lookup_of(addresses)), "get", at(url))

    assert server.asked == []


@pytest.mark.rule("RT-59")
async def test_redirect_to_another_listed_host_loses_the_credential() -> None:
    server = Server(**{"next": Reply(raw=b"done")})
    async with server.serving() as url:
        server.replies["root"] = Reply(302, raw=b"", headers={"location": at(url, "/next", "b.test")})
        one = tool(secrets=TableOfSecrets({"token": "s3cr3t-value"}))
        found = await ask(one, "get", at(url, "/"), headers={"Authorization": "secret://token"})

    first, second = server.asked
    assert first.headers["authorization"] == "Bearer s3cr3t-value"
    assert "authorization" not in second.headers
    assert second.headers["host"].startswith("b.test:")
    assert found.text == "done"


@pytest.mark.rule("RT-59")
async def test_redirect_to_a_host_that_is_not_listed_is_denied() -> None:
    server = Server(root=Reply(302, raw=b"", headers={"location": "https://evil.test/"}))
    async with server.serving() as url:
        with pytest.raises(PolicyDenied, match="evil.test"):
            await ask(tool(), "get", at(url, "/"))


@pytest.mark.rule("RT-59")
async def test_sixth_redirect_is_denied() -> None:
    server = Server(root=Reply(302, raw=b"", headers={"location": "/"}))
    async with server.serving() as url:
        with pytest.raises(PolicyDenied, match="more than 5"):
            await ask(tool(), "get", at(url, "/"))

    assert len(server.asked) == 6


async def test_redirect_of_a_post_is_asked_with_get_and_without_body() -> None:
    server = Server(root=Reply(303, raw=b"", headers={"location": "/done"}), done=Reply(raw=b"ok"))
    async with server.serving() as url:
        await ask(tool(), "post", at(url, "/"), body="x", content_type="text/plain")

    assert [(r.method, r.body) for r in server.asked] == [("POST", b"x"), ("GET", b"")]
    assert "content-type" not in server.asked[1].headers


@pytest.mark.rule("RT-59")
async def test_body_over_the_limit_is_cut() -> None:
    blobs = MemoryBlobStore()
    server = Server(root=Reply(raw=b"x" * (MAX_BODY_BYTES + 10)))
    async with server.serving() as url:
        one = HttpTool(
            blobs, hosts=["a.test"], plain_hosts=["a.test"], allowed_addresses=HERE, lookup=lookup_of(["127.0.0.1"])
        )
        found = await ask(one, "get", at(url, "/"))

    assert isinstance(found.content, dict)
    assert found.content["is_cut"] is True
    assert found.output is not None
    assert len(await blobs.get(found.output)) == MAX_BODY_BYTES
    assert len(found.text) <= 10_000


@pytest.mark.rule("RT-65")
async def test_server_that_sends_a_secret_back_does_not_show_it() -> None:
    server = Server(root=Reply(raw=b"you sent key-abcdefgh"))
    async with server.serving() as url:
        one = tool(secrets=TableOfSecrets({"key": "key-abcdefgh"}))
        found = await ask(one, "get", at(url, "/"), headers={"x-api-key": "secret://key"})

    assert server.asked[0].headers["x-api-key"] == "key-abcdefgh"
    assert found.text == "you sent [REDACTED]"


async def test_reference_without_secrets_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no secrets"):
        await ask(tool(), "get", "http://a.test/", headers={"x-api-key": "secret://key"})


@pytest.mark.rule("RT-59")
async def test_certificate_is_checked_against_the_name(tmp_path: Path) -> None:
    served, trusting = certificates(tmp_path, "a.test")
    async with serving_http(lambda _: Reply(raw=b"hello"), tls=served) as url:
        found = await ask(tool(tls=trusting), "get", at(url, "/"))
        with pytest.raises(ToolFailed, match="certificate"):
            await ask(tool(tls=trusting), "get", at(url, "/", "b.test"))

    assert found.text == "hello"


async def test_server_that_hangs_is_a_timeout() -> None:
    async with Server(root=Reply(hang=True)).serving() as url:
        with pytest.raises(ToolTimeout):
            await tool().call(call_of("http", "get", url=at(url, "/")), context_of(timeout_s=1))


async def test_server_that_is_not_there_or_breaks_off_is_a_failure() -> None:
    async with Server().serving() as url:
        gone = url
    with pytest.raises(ToolFailed, match="cannot be reached"):
        await ask(tool(), "get", at(gone, "/"))
    async with Server(root=Reply(raw=b"", headers={"content-length": "x"})).serving() as url:
        with pytest.raises(ToolFailed, match="broke the exchange"):
            await ask(tool(), "get", at(url, "/"))


async def test_name_without_address_is_a_failure() -> None:
    async def nothing(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    with pytest.raises(ToolFailed, match="no address"):
        await ask(tool(lookup=nothing), "get", "http://a.test/")


async def test_unlisted_host_plain_scheme_and_unknown_operation_are_refused() -> None:
    with pytest.raises(PolicyDenied):
        await ask(tool(), "get", "https://other.test/")
    with pytest.raises(PolicyDenied):
        await ask(tool(plain_hosts=()), "get", "http://a.test/")
    with pytest.raises(InvalidInput):
        await ask(tool(), "trace", "http://a.test/")
    assert tool().name == "http"


async def test_lookup_of_the_machine_gives_each_address_once() -> None:
    assert await system_lookup("127.0.0.1", 80) == ["127.0.0.1"]
