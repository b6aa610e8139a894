"""No path leads a secret into log, graph, prompt, transcript, output, answer or log records (CX-60, CX-75)."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from fleet.events.codec import decode
from fleet.events.payload import Payload
from fleet.events.platform import AccessDenied
from fleet.events.story import StoryParked
from fleet.graph.effects.table import effects
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import CommandId, Digest, Principal, StreamId
from fleet.log.memory import MemoryEventLog, MemoryLeaseStore
from fleet.models.memory import ScriptedChatModel
from fleet.models.port import AgentRequest
from fleet.owner.brief_claims import BriefClaims
from fleet.owner.takeover import Defects
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.outcome import ToolOutcome
from fleet.sandbox.backends.output import RunOutput
from fleet.story.commands.catalogue import parse_command
from fleet.telemetry.sinks.log_handler import redact_logs
from fleet.tools.service import finished
from fleet.trees.memory import MemoryBlobStore
from serve_apps.problems import problem_response
from tests.support.agents import role_agent
from tests.support.bench import STORY_TEXT, World
from tests.support.secrets import NAMED, SAMPLES, PlantedSecret
from tests.support.story_events import STORY, story

ANA = Principal("user:ana")
PLANTED = {**SAMPLES, **NAMED}
EACH = pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
CODE = "```python\ndef add(a, b):\n    return a + b\n```"


def shows(planted: PlantedSecret, *texts: str) -> bool:
    """Whether any of the texts holds the secret, as it is or as JSON writes it."""
    forms = {planted.secret, json.dumps(planted.secret)[1:-1]}
    return any(form in text for form in forms for text in texts)


@pytest.mark.rule("CX-60")
@EACH
async def test_event_and_what_the_graph_is_told_hold_no_secret(planted: PlantedSecret) -> None:
    world = World()
    await story(until="base").write_to(world.log)
    journal = await world.journal()
    await journal.record("park/1", StoryParked(cause="stuck", detail=f"it printed\n{planted.text}"))
    stored = (await world.log.read(StreamId.of_story(STORY)))[-1]
    assert stored.type == "StoryParked"
    assert not shows(planted, stored.body.decode(), str(journal.state.park), str(list(effects(stored, decode(stored)))))


@pytest.mark.rule("CX-60")
@EACH
async def test_park_of_a_story_that_fails_and_events_beside_stories_hold_no_secret(planted: PlantedSecret) -> None:
    log, clock = MemoryEventLog(), MemoryClock()
    leases = MemoryLeaseStore(log, clock)
    await story(until="base").write_to(log)
    defects = Defects(log, leases, clock, owner="council:0/a1", ttl_s=5)
    for _ in range(3):
        await defects.met(StreamId.of_story(STORY), ValueError(f"it read\n{planted.text}"))
    parked = (await log.read(StreamId.of_story(STORY)))[-1]
    assert parked.type == "StoryParked"
    briefly, platform = BriefClaims(log, leases, clock, "front"), StreamId("platform:main")
    denied = AccessDenied(principal=ANA, action="read", object=planted.text[:200], rule_id="rows")

    async def decided() -> list[Payload]:
        return [denied]

    await briefly.record(platform, CommandId("ana/1"), decided, actor=ANA)
    (told,) = await log.read(platform)
    assert told.type == "AccessDenied"
    assert not shows(planted, parked.body.decode(), told.body.decode(), str(decode(parked)), str(decode(told)))


@pytest.mark.rule("CX-60")
@EACH
async def test_command_of_a_person_is_queued_without_secrets(planted: PlantedSecret) -> None:
    world = World()
    assert isinstance(world.clock, MemoryClock)
    body = {"story": {**STORY_TEXT, "description": f"use\n{planted.text}"}}
    asked = asyncio.create_task(
        world.desk.command(STORY, parse_command("create_story", body), principal=ANA, key="k", timeout_s=1)
    )
    for _ in range(20):
        await asyncio.sleep(0)
    world.clock.advance(1)
    await asyncio.wait_for(asked, timeout=60)
    (delivery,) = await world.inbox.take("council:0/a1", timeout_s=0)
    assert not shows(planted, json.dumps(delivery.command.body), str(delivery.command.body))
    assert delivery.command.body["story"]["title"] == STORY_TEXT["title"]


def of_files() -> dict[str, object]:
    content = f"PASSWORD = '{NAMED['python'].secret}'"
    return {
        "session_id": "se-1",
        "invocation": "0a1b2c3d",
        "as_role": "developer",
        "epoch": 1,
        "call": {"tool": "files", "op": "write", "args": {"path": "settings.py", "content": content}},
    }


async def test_files_that_a_command_carries_are_queued_byte_for_byte() -> None:
    world = World()
    assert isinstance(world.clock, MemoryClock)
    asked = asyncio.create_task(
        world.desk.command(STORY, parse_command("invoke_tool", of_files()), principal=ANA, key="k", timeout_s=1)
    )
    for _ in range(20):
        await asyncio.sleep(0)
    world.clock.advance(1)
    await asyncio.wait_for(asked, timeout=60)
    (delivery,) = await world.inbox.take("council:0/a1", timeout_s=0)
    assert delivery.command.body == of_files()


@pytest.mark.rule("CX-60")
@EACH
async def test_prompt_reply_and_answer_hold_no_secret(planted: PlantedSecret) -> None:
    reason = f"I saw\n{planted.text}\nand more"
    model = ScriptedChatModel.of(json.dumps({"broken_criterion": "none", "reason": reason}))
    agent, blobs = role_agent(model)
    request = AgentRequest(
        kind="review",
        role="developer",
        principal=Principal("agent:developer-001"),
        shared=f"Data from a tool:\n{planted.text}",
        own=f"and\n{planted.text}\nhere",
        json_schema={"type": "object"},
    )
    answer = await agent.ask(request, request_id="r", timeout_s=60)
    sent = [message.content for message in model.calls[0].messages]
    kept = [(await blobs.get(digest)).decode() for digest in (answer.prompt, answer.reply)]
    assert not shows(planted, *sent, *kept, json.dumps(answer.value), str(answer.value))


async def test_code_of_a_reply_stays_byte_for_byte_and_its_transcript_does_not() -> None:
    secret = NAMED["python"]
    model = ScriptedChatModel.of(f"```python\n{secret.text}\n```")
    agent, blobs = role_agent(model)
    request = AgentRequest(
        kind="draft",
        role="developer",
        principal=Principal("agent:developer-001"),
        shared="Write it.",
        target_paths=("calc.py",),
    )
    answer = await agent.ask(request, request_id="r", timeout_s=60)
    assert secret.secret in str(answer.value)
    assert secret.secret not in (await blobs.get(answer.reply)).decode()


@pytest.mark.rule("CX-60")
@EACH
async def test_outcome_of_a_tool_holds_no_secret(planted: PlantedSecret) -> None:
    blobs = MemoryBlobStore()
    whole = await blobs.put(f"first\n{planted.text}\nlast".encode())
    outcome = ToolOutcome(
        outcome="succeeded",
        text=f"it says\n{planted.text}",
        content={"lines": [planted.text], "password": "x y"},
        output=whole,
        reason=f"because\n{planted.text}",
    )
    kept = await finished(outcome, blobs=blobs, limit_bytes=1 << 20, secrets=None)
    assert kept.output is not None
    stored = (await blobs.get(Digest(kept.output))).decode()
    assert not shows(planted, kept.model_dump_json(), str(kept), stored)
    assert isinstance(kept.content, dict)
    assert kept.content["password"] == "[REDACTED:KEY_VALUE]"


@pytest.mark.rule("CX-60", "CX-75", "RC-35")
@EACH
@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_output_of_a_run_read_in_pieces_holds_no_secret(planted: PlantedSecret, size: int) -> None:
    told: list[LogLine] = []
    output, blobs = RunOutput(1 << 20, log=told.append), MemoryBlobStore()
    data = f"first é\n{planted.text}\nlast \xff".encode() + b"\xff\xfe\n"
    for at in range(0, len(data), size):
        output.feed("stdout", data[at : at + size])
    output.finish()
    stream, log = await output.stdout.store(blobs), await output.store_log(blobs)
    assert log is not None
    assert stream.blob is not None
    raw = await blobs.get(stream.blob)
    assert raw.startswith("first é\n".encode())
    assert raw.endswith(b"\xff\xfe\n")
    lines = [line.line for line in told]
    assert not shows(
        planted, stream.text, raw.decode(errors="replace"), (await blobs.get(log)).decode(), "\n".join(lines)
    )
    assert lines[0] == "first é"


@pytest.mark.rule("CX-60")
@EACH
def test_problem_document_holds_no_secret(planted: PlantedSecret) -> None:
    error = InvalidInput(
        f"no such thing:\n{planted.text}", field="x", value=planted.text, problems=[{"message": planted.text}]
    )
    body = problem_response(error, instance="/api/stories").body
    assert not shows(planted, bytes(body).decode())
    assert json.loads(bytes(body))["code"] == "invalid_input"


@pytest.fixture
def logs() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    redact_logs()
    redact_logs()
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.rule("CX-60")
@EACH
def test_log_record_and_its_traceback_hold_no_secret(
    planted: PlantedSecret, logs: None, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("fleet.test")
    log.warning("it says\n%s\nand %d", planted.text, 7)
    try:
        raise ValueError(f"it says\n{planted.text}")
    except ValueError:
        log.exception("failed: %s", "x")
    assert not shows(planted, caplog.text)
    assert "and 7" in caplog.text
    assert "ValueError" in caplog.text


def test_log_record_that_cannot_be_formatted_is_left_to_its_handler(logs: None) -> None:
    record = logging.getLogger("fleet.test").makeRecord("n", logging.INFO, "f", 1, "%d", ("x",), None)
    assert (record.msg, record.args) == ("%d", ("x",))
    assert sys.exc_info() == (None, None, None)
