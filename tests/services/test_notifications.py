"""Notification targets as the fleet wires them: log and book in Redis, key from the environment, HTTP on loopback."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.extensions.notify.webhook import signature
from fleet.kernel.ids import StreamId
from fleet.log.redis.log import RedisEventLog
from fleet.notifications.service import delivery_id
from fleet.secrets.redis import RedisAccessTrail
from fleet.telemetry.memory import MemoryMeter
from fleet.wiring.notifications import check_notifications, tell_target
from tests.support.http_stand_in import Reply, Request, serving_http
from tests.support.stores import empty_database, eventually, own_database
from tests.support.story_events import CONTENT, STORY, story, subject
from tests.unit.notifications.test_notifier import asked
from tests.unit.wiring.test_notifications import GRANT, PROVIDER, TARGET, endpoints_of

KEY = "0123456789abcdef0123456789abcdef"


@pytest.mark.rule("LC-80", "RT-65")
async def test_configured_target_is_told_of_an_approval_and_its_key_is_used_on_record(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_SECRET_BOT_KEY", KEY)
    requests: list[Request] = []

    def answer(request: Request) -> Reply:
        requests.append(request)
        return Reply(202)

    url = own_database(redis_url)
    async with empty_database(url) as client, serving_http(answer) as receiver:
        text = TARGET.replace("https://hooks.example.com", receiver) + "    networks: [127.0.0.0/8]\n"
        endpoints = replace(endpoints_of(tmp_path, text, PROVIDER + GRANT), redis_url=url, cache_url=url)
        check_notifications(endpoints)
        log, told = story(until="started"), RedisEventLog(client)
        await log.write_to(told)
        meter = MemoryMeter()
        (target,) = endpoints.notifications.targets
        task = asyncio.create_task(tell_target(endpoints, target, meter=meter))
        try:
            assert await eventually(lambda: client.hgetall("fleet:{p00}:notices:desk-bot:looked"), within_s=10)
            before = log.version
            log.add(asked(1, subject=subject("content", STORY, CONTENT)))
            await log.write_to(told, after=before)
            sent = lambda: meter.value("fleet_notifications_total", target="desk-bot", outcome="sent")  # noqa: E731
            assert await eventually(lambda: sent() == 1, within_s=20)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        (line,) = await RedisAccessTrail(client).newest()
    (request,) = requests
    name = delivery_id("desk-bot", StreamId.of_story(STORY), log.version)
    assert (request.path, request.headers["webhook-id"]) == ("/T0K3N", name)
    stamp = int(request.headers["webhook-timestamp"])
    expected = signature(KEY, delivery_id=name, sent_s=stamp, body=request.body)
    assert request.headers["webhook-signature"] == expected
    assert (line.name, line.role, line.tool, line.op) == ("bot-key", "devops", "notifications", "send")
