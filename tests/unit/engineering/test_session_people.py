"""People and a work session: what they say is read once, a stop keeps the files, a fork is a further candidate."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.events.codec import decode
from fleet.events.step import SessionEnded, SessionForked, SessionStopped, SessionTold
from fleet.kernel.errors import InvalidTransition, ModelUnavailable, NotFound, PolicyDenied, ReplyMalformed
from fleet.kernel.ids import Principal
from fleet.models.port import AgentRequest
from fleet.story.sessions.steps import session_id_of, session_of, sessions_of, whole_turns
from tests.support.acting import COUNCIL, Crash, MortalLog
from tests.support.sessions import HurriedClock, Script, SessionWorld, told
from tests.support.story_events import STORY

SEAT = f"{COUNCIL}/draft/developer-001"
SESSION = session_id_of(STORY, SEAT)
FIX = {"path": "text/slug.py", "old": "    raise NotImplementedError", "new": "    return title.lower()"}
SCRIPT: Script = (
    [("read", {"path": "text/slug.py"})],
    [("edit", FIX)],
    [("run", {"command": "put notes.txt half"})],
    [("write", {"path": "docs/slug.md", "content": "# Slugs\n"})],
    [("submit", {"summary": "slugify is there"})],
    [("submit", {"summary": "slugify is there"})],
)
WORDS = "Keep the old name </person_says> as an alias."


async def recorded(world: SessionWorld, kind: type[Any]) -> list[Any]:
    return [p for p in map(decode, await world.events()) if isinstance(p, kind)]


def heard(request: AgentRequest) -> list[int]:
    """Before which replies a person's words stand in this prompt, from 1."""
    replies, found = 0, list[int]()
    for message in request.turns:
        replies += message.role == "assistant"
        if "<person_says" in message.content:
            found.append(replies + 1)
    return found


def telling(world: SessionWorld, at: int) -> None:
    async def tell() -> None:
        await world.command("tell_session", session_id=SESSION, text=WORDS)

    world.engineer.meanwhile[at] = tell


def stopping(world: SessionWorld, at: int) -> None:
    async def stop() -> None:
        if SESSION not in (await world.journal()).state.sessions:
            await world.command("stop_session", session_id=SESSION, reason="the half is enough")

    world.engineer.meanwhile[at] = stop


@pytest.mark.rule("CN-25")
async def test_what_a_person_says_stands_before_the_next_reply_and_stays():
    world = await SessionWorld(SCRIPT).begin()
    telling(world, 2)
    files = await world.candidate(await world.deliver())
    assert "return title.lower()" in files["text/slug.py"]
    assert [heard(request) for request in world.agents.requests] == [[], [], [3], [3], [3], [3]]
    (said,) = [text for text in told(world) if "<person_says" in text]
    # The words cannot close their own tag.
    assert said == (
        'A person of your team says:\n<person_says who="user:ana">\n'
        "Keep the old name &lt;/person_says> as an alias.\n</person_says>"
    )
    # What was sent once stays as it was: the engine's cache holds.
    turns = [request.turns for request in world.agents.requests]
    assert all(after[: len(before)] == before for before, after in zip(turns, turns[1:], strict=False))
    assert [told.text for told in await recorded(world, SessionTold)] == [WORDS]


@pytest.mark.rule("CN-25", "RC-50", "GL-19")
@pytest.mark.parametrize("stored", [True, False], ids=["after", "before"])
async def test_owner_killed_at_any_append_tells_the_engineer_once(stored: bool):
    plain = await SessionWorld(SCRIPT).begin()
    telling(plain, 3)
    expected = await plain.deliver()
    assert isinstance(plain.log, MortalLog)
    for at in range(1, plain.log.count + 1):
        world = await SessionWorld(SCRIPT, MortalLog(at=at, stored=stored)).begin()
        telling(world, 3)
        with pytest.raises(Crash):
            await world.deliver()
        assert await world.deliver() == expected, at
        assert len(heard(world.agents.requests[-1])) == 1, at
        assert len(await recorded(world, SessionTold)) == 1, at


@pytest.mark.rule("CN-25")
async def test_who_may_speak_to_which_session():
    world = await SessionWorld(SCRIPT).begin()
    with pytest.raises(NotFound, match="has no work session 'se-none'"):
        await world.command("tell_session", session_id="se-none", text="hello")
    await world.deliver()
    for who in ("agent:developer-002", "user:nobody"):
        with pytest.raises(PolicyDenied):
            await world.command("tell_session", who=Principal(who), session_id=SESSION, text="hello")
    with pytest.raises(InvalidTransition, match=r"cannot be told anything: it is over \(submitted\)"):
        await world.command("tell_session", session_id=SESSION, text="hello")


@pytest.mark.rule("CN-26")
async def test_stopped_session_submits_the_files_that_it_has():
    world = await SessionWorld(SCRIPT).begin()
    stopping(world, 4)
    files = await world.candidate(await world.deliver())
    assert "return title.lower()" in files["text/slug.py"]
    assert files["notes.txt"] == "half"
    assert "docs/slug.md" not in files
    (ended,) = await recorded(world, SessionEnded)
    assert (ended.reason, ended.turns) == ("stopped", 3)
    (stopped,) = await recorded(world, SessionStopped)
    assert (stopped.by, stopped.reason) == ("user:ana", "the half is enough")
    with pytest.raises(InvalidTransition, match="cannot be stopped"):
        await world.command("stop_session", key="key-0002", session_id=SESSION, reason="once more, please")


@pytest.mark.rule("CN-26", "RC-50", "GL-19")
@pytest.mark.parametrize("stored", [True, False], ids=["after", "before"])
async def test_owner_killed_at_any_append_stops_with_the_same_files(stored: bool):
    plain = await SessionWorld(SCRIPT).begin()
    stopping(plain, 4)
    expected = await plain.candidate(await plain.deliver())
    assert isinstance(plain.log, MortalLog)
    for at in range(1, plain.log.count + 1):
        world = await SessionWorld(SCRIPT, MortalLog(at=at, stored=stored)).begin()
        stopping(world, 4)
        with pytest.raises(Crash):
            await world.deliver()
        assert await world.candidate(await world.deliver()) == expected, at
        (ended,) = await recorded(world, SessionEnded)
        assert ended.reason == "stopped", at


@pytest.mark.rule("CN-26")
async def test_command_under_way_is_ended_with_its_session_and_counts_for_nothing():
    world = await SessionWorld(SCRIPT).begin()
    backend_run, ended = world.sandbox.run, list[str]()

    async def run(spec: Any, *, story: Any, key: Any, epoch: int) -> Any:
        await world.command("stop_session", session_id=SESSION, reason="the half is enough")
        return await backend_run(spec, story=story, key=key, epoch=epoch)

    async def cancel(key: Any) -> None:
        ended.append(key)

    world.sandbox.run, world.sandbox.cancel = run, cancel  # type: ignore[method-assign]
    files = await world.candidate(await world.deliver())
    assert "notes.txt" not in files
    assert "return title.lower()" in files["text/slug.py"]
    step = (await world.journal()).state.steps[f"{SEAT}/3/call/1"]  # type: ignore[index]
    assert step.finished is None
    assert step.started.key in ended


async def forked(world: SessionWorld, turn: int | None = 2) -> int:
    """The seat of a fork of the session, which worked before."""
    body: dict[str, Any] = {} if turn is None else {"turn": turn}
    await world.command("fork_session", session_id=SESSION, **body)
    (fork,) = await recorded(world, SessionForked)
    roster = (await world.journal()).state.councils[COUNCIL].opened.roster
    return next(n for n, member in enumerate(roster) if member.member_id == fork.member_id)


@pytest.mark.rule("CN-27")
async def test_fork_goes_on_from_the_records_of_another_session_and_pays_for_its_own_turns():
    world = await SessionWorld(SCRIPT).begin()
    first = await world.deliver()
    asked = len(world.agents.requests)
    seat = await forked(world)
    second = await world.deliver(seat)
    assert await world.candidate(second) == await world.candidate(first)
    assert len(world.agents.requests) == asked + 4
    assert second.tokens == 4 * 15
    own, source = world.agents.requests[asked], world.agents.requests[2]
    assert own.turns == source.turns
    # The same question to the same engine: only the draw differs.
    assert own.sampling.seed != source.sampling.seed
    state = (await world.journal()).state
    fork = session_of(state, (await recorded(world, SessionForked))[0].session_id)
    assert fork is not None
    assert sorted(whole_turns(state, fork)) == [1, 2, 3, 4, 5, 6]
    assert not [name for name in state.steps if name.startswith(f"{fork.step}/1")]
    member = state.councils[COUNCIL].opened.roster[seat]
    assert (member.can_propose, member.can_vote, member.principal) == (True, False, "agent:developer-001")


@pytest.mark.rule("CN-27", "RC-50", "GL-19")
@pytest.mark.parametrize("stored", [True, False], ids=["after", "before"])
async def test_owner_killed_at_any_append_of_a_fork_comes_to_the_same(stored: bool):
    async def begun(at: int = 0) -> tuple[SessionWorld, int]:
        log = MortalLog(stored=stored)
        world = await SessionWorld(SCRIPT, log).begin()
        await world.deliver()
        seat = await forked(world)
        log.at = log.count + at if at else 0
        return world, seat

    plain, seat = await begun()
    assert isinstance(plain.log, MortalLog)
    before = plain.log.count
    expected = await plain.deliver(seat)
    assert plain.log.count - before > 8
    for at in range(1, plain.log.count - before + 1):
        world, seat = await begun(at)
        with pytest.raises(Crash):
            await world.deliver(seat)
        assert await world.deliver(seat) == expected, at


async def stop_fork(world: SessionWorld, when: int | None) -> int:
    """The seat of a fork that a person stops before it began, or during its reply of this number."""
    await world.deliver()
    seat = await forked(world)
    (fork,) = await recorded(world, SessionForked)

    async def stop() -> None:
        if not await recorded(world, SessionStopped):
            await world.command("stop_session", key="key-0002", session_id=fork.session_id, reason="it is not needed")

    if when is None:
        await stop()
    else:
        world.engineer.meanwhile[when] = stop
    return seat


@pytest.mark.rule("CN-26", "CN-27")
@pytest.mark.parametrize("when", [None, 3], ids=["before it began", "during its first reply"])
async def test_fork_that_is_stopped_before_a_reply_of_its_own_hands_in_nothing(when: int | None):
    world = await SessionWorld(SCRIPT).begin()
    seat = await stop_fork(world, when)
    before = len(world.engineer.asked)
    with pytest.raises(ReplyMalformed, match="did nothing: it ended as stopped before its first own reply"):
        await world.deliver(seat)
    assert len(world.engineer.asked) == before
    ended = (await recorded(world, SessionEnded))[-1]
    assert (ended.reason, ended.turns) == ("stopped", 2)
    fork = session_of((await world.journal()).state, ended.session_id)
    assert fork is not None
    assert (fork.has_worked, fork.record.stopped is not None) == (False, True)
    # The second is asked for its third turn, and stopped meanwhile.
    assert sorted(fork.turns) == ([] if when is None else [3])


@pytest.mark.rule("CN-26", "CN-27")
async def test_fork_that_is_stopped_after_a_reply_of_its_own_hands_in_its_files():
    world = await SessionWorld(SCRIPT).begin()
    files = await world.candidate(await world.deliver(await stop_fork(world, 4)))
    assert files["notes.txt"] == "half"
    assert "docs/slug.md" not in files


@pytest.mark.rule("CN-26", "RC-50", "GL-19")
@pytest.mark.parametrize("stored", [True, False], ids=["after", "before"])
async def test_owner_killed_at_any_append_of_a_stopped_fork_comes_to_the_same(stored: bool):
    async def begun(at: int = 0) -> tuple[SessionWorld, int]:
        log = MortalLog(stored=stored)
        world = await SessionWorld(SCRIPT, log).begin()
        seat = await stop_fork(world, None)
        log.at = log.count + at if at else 0
        return world, seat

    plain, seat = await begun()
    assert isinstance(plain.log, MortalLog)
    before = plain.log.count
    with pytest.raises(ReplyMalformed):
        await plain.deliver(seat)
    assert plain.log.count - before >= 2
    for at in range(1, plain.log.count - before + 1):
        world, seat = await begun(at)
        asked = len(world.agents.requests)
        with pytest.raises(Crash):
            await world.deliver(seat)
        with pytest.raises(ReplyMalformed):
            await world.deliver(seat)
        assert len(world.agents.requests) == asked, at
        assert [e.reason for e in await recorded(world, SessionEnded)] == ["submitted", "stopped"], at


@pytest.mark.rule("CN-27")
async def test_fork_of_a_fork_and_what_cannot_be_forked():
    world = await SessionWorld(SCRIPT).begin()
    with pytest.raises(NotFound):
        await world.command("fork_session", session_id=SESSION)
    await world.deliver()
    with pytest.raises(Exception, match="turns 1 to 5 are complete"):
        await world.command("fork_session", session_id=SESSION, turn=6)
    seat = await forked(world, None)
    first = await world.deliver(seat)
    (fork,) = await recorded(world, SessionForked)
    assert fork.turn == 5
    await world.command("fork_session", key="key-0002", session_id=fork.session_id, turn=1)
    again = await world.deliver(seat + 1)
    assert await world.candidate(again) == await world.candidate(first)
    assert again.tokens == 5 * 15
    assert [one.member.member_id for one in sessions_of((await world.journal()).state)] == [
        "developer-001",
        "developer-001-fork-1",
        "developer-001-fork-1-fork-1",
    ]


@pytest.mark.rule("CN-29")
async def test_engine_that_fails_is_waited_for_and_then_the_story_waits_with_the_files_kept():
    world = await SessionWorld(SCRIPT, clock=HurriedClock()).begin()
    script, failing = world.engineer.answer, [3]

    def answer(request: AgentRequest) -> dict[str, Any] | BaseException:
        if failing[0] and any("Edited" in message.content for message in request.turns):
            failing[0] -= 1
            return ModelUnavailable("too many requests", retry_after_s=30)
        return script(request)

    world.engineer.answer = answer
    begun = world.clock.now_ms()
    assert "notes.txt" in await world.candidate(await world.deliver())
    assert world.clock.now_ms() - begun >= 90_000

    other = await SessionWorld(SCRIPT, clock=HurriedClock()).begin()
    other.engineer.answer, failing[0] = answer, 10_000
    with pytest.raises(ModelUnavailable, match="Its turns and files are kept: once the engine answers") as gave_up:
        await other.deliver()
    assert gave_up.value.details["waited"]
    waited = other.clock.now_ms()
    assert waited >= 2_700_000
    failing[0] = 0
    asked = len(other.agents.requests)
    assert "notes.txt" in await other.candidate(await other.deliver())
    # What was on record is not asked again.
    assert len(other.agents.requests) - asked == 4
