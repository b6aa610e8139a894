"""The contract of ToolSessions, on every adapter (RT-68)."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count

import pytest

from fleet.kernel.ids import EntityId, Principal, StoryId
from fleet.tools.port import ToolOrigin, ToolSession
from tests.support.stores import Stores, eventually

_NUMBERS = count(1)


def session(**changes: object) -> ToolSession:
    whole = ToolSession(
        session_id=EntityId(f"se-n{next(_NUMBERS)}"),
        principal=Principal("agent:developer-001"),
        role="developer",
        story_id=StoryId("st-one1"),
        task_id=EntityId("tk-one1"),
        phase="BUILD",
        epoch=3,
        offered=("files.read", "files.write"),
    )
    return replace(whole, **changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.rule("RT-68")
async def test_opened_session_is_found_by_every_process_and_only_under_its_id(stores: Stores) -> None:
    opened = session()
    assert await stores.sessions.open(opened) == opened
    assert await stores.twin().sessions.use(opened.session_id) == opened
    assert await stores.sessions.use(EntityId("se-none")) is None


async def test_session_opened_again_is_the_one_that_is_there(stores: Stores) -> None:
    opened = session(task_id=None)
    await stores.sessions.open(opened)
    assert await stores.sessions.open(replace(opened, epoch=9)) == opened


async def test_closed_session_is_over_for_everybody(stores: Stores) -> None:
    opened = session()
    await stores.sessions.open(opened)
    assert await stores.twin().sessions.close(opened.session_id)
    assert await stores.sessions.use(opened.session_id) is None
    assert not await stores.sessions.close(opened.session_id)


@pytest.mark.rule("RT-68")
async def test_idle_session_ends_and_a_used_one_lives_on(stores: Stores) -> None:
    idle, used = session(), session()
    await stores.sessions.open(idle, idle_s=1)
    await stores.sessions.open(used, idle_s=1)
    await stores.sessions.use(used.session_id, idle_s=60)
    began = time.monotonic()
    assert await eventually(lambda: time.monotonic() - began > 1.1, within_s=60)
    assert await stores.sessions.use(idle.session_id) is None
    assert await stores.sessions.use(used.session_id) == used


async def test_id_leads_to_its_story_for_a_while(stores: Stores) -> None:
    kept, gone = session(), session()
    origin = ToolOrigin(story_id=kept.story_id, principal=kept.principal)
    await stores.sessions.remember(kept.session_id, origin)
    await stores.sessions.remember(gone.session_id, origin, ttl_s=1)
    assert await stores.twin().sessions.origin_of(kept.session_id) == origin
    assert await stores.sessions.origin_of(EntityId("se-none")) is None
    began = time.monotonic()
    assert await eventually(lambda: time.monotonic() - began > 1.1, within_s=60)
    assert await stores.sessions.origin_of(gone.session_id) is None
