"""Background work of an actor goes on after a failure, and `health` tells of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.shell import Shell
from fleet.wiring.endpoints import Endpoints


class Quick(Shell):
    """A shell that does not wait long before it tries again."""

    first_pause_s = 0.001


@pytest.fixture
def endpoints(tmp_path: Path) -> Endpoints:
    return Endpoints(
        home=str(tmp_path),
        config=None,
        redis_url="redis://127.0.0.1:1/0",
        cache_url="redis://127.0.0.1:1/1",
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="neo4j",
        neo4j_password="none",
        neo4j_database="neo4j",
        node="local",
        pools={},
        council_shards=1,
        lease_ttl_s=15,
        sweep_s=5,
        record_dir=None,
        code_digest="sha256:" + "0" * 64,
        environ={},
    )


async def test_work_that_fails_starts_again_and_shows_in_health(
    endpoints: Endpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    shell, tries, running = Quick("council:0", endpoints), list[int](), asyncio.Event()
    assert (await shell.health())["state"] == "ready"

    async def work() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("the store said something new")
        running.set()
        await asyncio.Event().wait()

    shell.background(work)
    await asyncio.wait_for(running.wait(), 60)
    health = await shell.health()
    assert (health["name"], health["state"]) == ("council:0", "failed: RuntimeError: the store said something new")
    assert capsys.readouterr().err.count("RuntimeError: the store said something new") == 2
    await shell.drain()
    assert len(tries) == 3


async def test_work_that_ends_is_not_started_again(endpoints: Endpoints) -> None:
    shell, tries = Quick("sandbox:local", endpoints), list[int]()

    async def work() -> None:
        tries.append(1)

    shell.background(work)
    for _ in range(20):
        await asyncio.sleep(0)
    await shell.drain()
    assert (len(tries), (await shell.health())["state"]) == (1, "ready")


async def test_process_that_ends_gives_back_what_it_holds(endpoints: Endpoints) -> None:
    shell, ended = Quick("council:0", endpoints), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    shell.background(work)
    await asyncio.sleep(0)
    # Ray calls this beside the loop of the actor. From within the loop it could not wait, and must not stop the loop.
    shell.__ray_shutdown__()
    assert not ended.is_set()
    await asyncio.to_thread(shell.__ray_shutdown__)
    assert ended.is_set()


def test_process_that_ends_before_it_began_has_nothing_to_give_back(endpoints: Endpoints) -> None:
    Quick("council:0", endpoints).__ray_shutdown__()
