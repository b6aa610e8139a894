"""The client of API servers: no loop waits for it, no answer is without bounds, and nothing that it opens stays."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fleet.kernel.errors import ConfigError
from fleet.web.answers import Unanswered
from fleet.web.kubernetes import Access, Answer, KubernetesClient, path_of
from tests.support.http_stand_in import Reply, Request, serving_http

LIST = "/api/v1/namespaces/runs/pods"


async def quiet() -> AsyncIterator[bytes]:
    """One part, and then nothing for ever."""
    yield b"first\n"
    await asyncio.Event().wait()


async def test_loop_goes_on_while_a_server_says_nothing() -> None:
    async with serving_http(lambda _: Reply(hang=True)) as url:
        client = KubernetesClient(Access(url), timeout_s=0.5, tries=1)
        asked = asyncio.create_task(client.ask("GET", LIST))
        turns = 0
        while not asked.done():
            await asyncio.sleep(0.01)
            turns += 1

    with pytest.raises(Unanswered, match=r"did not answer in 0\.5 s"):
        await asked
    assert turns > 20


async def test_answer_that_drips_ends_with_its_deadline() -> None:
    async with serving_http(lambda _: Reply(drip=True)) as url:
        with pytest.raises(Unanswered, match="did not answer"):
            await KubernetesClient(Access(url), timeout_s=0.3, tries=1).ask("GET", LIST)


@pytest.mark.parametrize("status", [200, 502])
async def test_no_more_of_an_answer_is_kept_than_was_asked_for(status: int) -> None:
    async with serving_http(lambda _: Reply(status, raw=b"x" * 300_000)) as url:
        answer = await KubernetesClient(Access(url)).fetch_once("/logs", most=1_000)

    assert (answer.status, answer.data, answer.is_whole) == (status, b"x" * 1_000, False)


async def test_connection_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    serve = asyncio.start_server

    async def counted(handle: Any, *given: Any, **options: Any) -> asyncio.Server:
        async def one(reader: Any, writer: Any) -> None:
            opened.append(writer)
            await handle(reader, writer)

        return await serve(one, *given, **options)

    monkeypatch.setattr(asyncio, "start_server", counted)
    async with serving_http(lambda request: Reply(document={"path": request.path})) as url:
        client = KubernetesClient(Access(url))
        for number in range(5):
            assert (await client.ask("GET", f"/a/{number}")).body == {"path": f"/a/{number}"}

    assert len(opened) == 1


async def test_reading_that_is_given_up_ends_at_once_and_frees_its_thread() -> None:
    async with serving_http(lambda _: Reply(stream=quiet())) as url:
        client = KubernetesClient(Access(url), quiet_s=60)
        for _ in range(70):  # more than there are threads for streams
            async with asyncio.timeout(10), client.reading("/log", params={}, limit_s=60) as parts:
                assert parts is not None
                assert await anext(parts) == b"first\n"
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await anext(parts)


async def test_stream_without_end_ends_with_its_limit_or_with_silence() -> None:
    async def ticking() -> AsyncIterator[bytes]:
        while True:
            yield b"."
            await asyncio.sleep(0.01)

    async with serving_http(lambda _: Reply(stream=ticking())) as url:
        begun = time.monotonic()
        async with KubernetesClient(Access(url)).reading("/log", params={}, limit_s=0.2) as parts:
            assert parts is not None
            assert {part.strip(b".") async for part in parts} == {b""}
        assert time.monotonic() - begun < 5

    async with (
        serving_http(lambda _: Reply(stream=quiet())) as url,
        KubernetesClient(Access(url), quiet_s=0.2).reading("/log", params={}, limit_s=60) as parts,
    ):
        assert parts is not None
        assert await anext(parts) == b"first\n"
        with pytest.raises(Unanswered, match="ReadTimeoutError"):
            await anext(parts)


async def test_busy_server_is_asked_again_after_what_it_asks_and_its_redirects_are_not_followed() -> None:
    replies = [Reply(429, {}, headers={"retry-after": "0"}), Reply(307, {}, headers={"location": "/elsewhere"})]
    paths: list[str] = []

    def answer(request: Request) -> Reply:
        paths.append(request.path)
        return replies.pop(0)

    async with serving_http(answer) as url:
        assert (await KubernetesClient(Access(url), pause_s=30).ask("GET", LIST)).status == 307

    assert paths == [LIST, LIST]


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with serving_http(lambda _: Reply(document={"items": [{"a": 1}, "no object"]})) as url:
        assert (await KubernetesClient(Access(url)).ask("GET", LIST)).items == [{"a": 1}]


async def test_error_of_the_token_goes_to_whoever_asks() -> None:
    def token() -> str:
        raise ConfigError("cannot read the token", file="token")

    async with serving_http(lambda _: Reply()) as url:
        with pytest.raises(ConfigError, match="cannot read the token"):
            await KubernetesClient(Access(url, token=token)).ask("GET", LIST)


async def test_nothing_that_is_shown_holds_the_token() -> None:
    access = Access("http://127.0.0.1:1", token=lambda: "hunter2")
    with pytest.raises(Unanswered) as caught:
        await KubernetesClient(access, pause_s=0.001).ask("PATCH", LIST, body={"data": "hunter2"})

    assert "hunter2" not in repr(access) + repr(caught.value) + repr(caught.value.__context__)


def test_answer_that_is_no_object_has_an_empty_body() -> None:
    for data in (b"[]", b"no JSON", b"[" * 100_000, json.dumps({"items": 3}).encode()):
        assert Answer(200, data).items == []


def test_paths_are_those_of_the_api() -> None:
    assert path_of("Namespace", "", "x") == "/api/v1/namespaces/x"
    assert path_of("Job", "runs") == "/apis/batch/v1/namespaces/runs/jobs"


def test_official_client_is_imported_by_the_first_request_and_not_before() -> None:
    users = (
        "fleet.cli.app, cluster.kuberay.api, fleet.deploy.kubernetes.api, fleet.extensions.stores.kubernetes_secrets"
    )
    text = f"import sys, {users}\nprint('kubernetes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
