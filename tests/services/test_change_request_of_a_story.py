"""A story that is done has its one change request at the forge, whatever fails on the way, and closes in any case."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.events.envelope import StoredEvent
from fleet.events.story import StoryClosed
from fleet.extensions.forges.hosted import change_requests_for
from fleet.forge.local.change_requests import LocalChange, LocalChangeRequests, LocalStatus
from fleet.forge.memory import MemoryChangeRequests
from fleet.forge.port import (
    ChangeRequest,
    ChangeRequests,
    CommitState,
    EndedChange,
    OpenedChange,
)
from fleet.forge.service import ChangeTarget, PushTarget
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import RateLimited
from fleet.owner.journal.steps import StepPolicy
from fleet.owner.story_owner import StoryOwner
from fleet.report.service.reports import ReportService
from fleet.sandbox.memory import Program, ProgramEnd, ProgramStart
from fleet.story.state import StoryState
from tests.support.bench import World
from tests.support.forge_stand_ins import STAND_INS, Fault, ForgeStandIn, serving
from tests.support.rules import step_policy
from tests.support.story_events import STORY, story
from tests.support.team import team
from tests.support.team_models import RECORDED, demo_repository, demo_story

TOKEN, COMMIT, BRANCH = "tok-first-SECRET", "0c" * 20, f"fleet/{STORY}"
TRIES = 4


class Crash(BaseException):
    """The process of the owner dies here."""


class Crashing:
    """Change requests whose caller dies before or after the call of this number."""

    def __init__(self, inner: ChangeRequests, point: int) -> None:
        self._inner, self._left = inner, point

    def _pass(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Crash

    async def open_or_update(self, change: ChangeRequest) -> OpenedChange | EndedChange:
        """See the port."""
        self._pass()
        found = await self._inner.open_or_update(change)
        self._pass()
        return found

    async def set_status(
        self, repository: str, commit: str, *, state: CommitState, description: str, link: str = ""
    ) -> None:
        """See the port."""
        self._pass()
        await self._inner.set_status(repository, commit, state=state, description=description, link=link)
        self._pass()


async def finished_world(policy: StepPolicy | None = None, program: Program = lambda _: ProgramEnd()) -> World:
    """A story whose work is done and accepted, and whose branch is published."""
    world, log = World(policy=policy, program=program), story()
    log.events.pop()
    await log.step("publish", kind="run").write_to(world.log)
    return world


async def close_story(world: World, target: ChangeTarget | None) -> StoryState:
    """An owner takes the story and brings it to its end."""
    bench = replace(await world.bench(), target=target)
    async with asyncio.timeout(20):
        await StoryOwner(bench).run()
    return bench.state


def opened(forge: ForgeStandIn, token: str = TOKEN) -> ChangeRequests:
    """Change requests of a stand-in."""
    return change_requests_for(forge.kind, forge.base_url, token=lambda: token, timeout_s=60)  # type: ignore[arg-type]


def target_of(changes: ChangeRequests) -> ChangeTarget:
    """The stand-in's repository, without waiting."""
    return ChangeTarget(changes, "main", "team/app", waits_s=(0,) * (TRIES - 1))


def step_of(state: StoryState) -> tuple[str, str, str | None]:
    """How the step of the change request ended, what people see of it, and the code of its error."""
    finished = state.steps["change_request"].finished
    assert finished is not None
    return finished.outcome, finished.excerpt or "", finished.error_code


@pytest.fixture(params=sorted(STAND_INS))
async def forge(request: pytest.FixtureRequest) -> AsyncGenerator[ForgeStandIn]:
    async with serving(request.param) as found:
        found.branches.add(BRANCH)
        found.commits.add(COMMIT)
        yield found


@pytest.mark.rule("RC-77", "RC-105")
async def test_story_that_is_done_opens_its_change_request_with_verdict_and_report(forge: ForgeStandIn) -> None:
    changes = opened(forge)
    world = await finished_world()
    state = await close_story(world, target_of(changes))

    (pull,) = forge.pulls
    assert (pull.head, pull.base, pull.title) == (BRANCH, "main", state.content.title)
    assert pull.body.startswith("**Verdict:** pass, score 98.7 at rigor ")
    for part in (state.content.description, *(c.text for c in state.content.acceptance_criteria), COMMIT, "sha256:"):
        assert part in pull.body
    (status,) = forge.statuses
    assert (status["sha"], status["state"]) == (COMMIT, "success")
    outcome, shown, _ = step_of(state)
    assert outcome == "succeeded"
    assert shown.startswith(f"Review change request 1: https://{forge.kind}.example/")
    assert state.closed
    assert await next_steps(world) == (shown,)


async def next_steps(world: World) -> tuple[str, ...]:
    """What the story's last report says is left to do."""
    return (await ReportService(world.log, world.blobs).build(STORY)).next_steps


@pytest.mark.rule("RC-105", "RC-51")
@pytest.mark.parametrize("point", [1, 2, 3, 4])
async def test_owner_that_dies_around_any_call_leaves_one_request_and_one_status(
    forge: ForgeStandIn, point: int
) -> None:
    changes, world = opened(forge), await finished_world()
    with pytest.raises(Crash):
        await close_story(world, target_of(Crashing(changes, point)))
    state = await close_story(world, target_of(changes))
    assert state.closed
    assert step_of(state)[0] == "succeeded"
    assert (len(forge.pulls), len(forge.statuses)) == (1, 1)
    started = [e for e in await world.events() if e.type == "StepStarted" and b'"change_request"' in e.body]
    assert len(started) == 1


@pytest.mark.rule("RC-105")
async def test_forge_that_is_down_and_comes_up_gets_one_request(forge: ForgeStandIn) -> None:
    forge.faults += [Fault("GET", status=503), Fault("POST", status=502), Fault("POST", lost=True)]
    changes, world = opened(forge), await finished_world()
    state = await close_story(world, target_of(changes))
    assert forge.faults == []
    assert step_of(state)[0] == "succeeded"
    assert (len(forge.pulls), len(forge.statuses)) == (1, 1)


@pytest.mark.rule("RC-105", "RC-77")
async def test_forge_that_stays_down_leaves_the_story_closed_and_the_request_owed(forge: ForgeStandIn) -> None:
    forge.faults += [Fault("GET", status=503) for _ in range(TRIES + 1)]
    changes, world = opened(forge), await finished_world()
    state = await close_story(world, target_of(changes))
    assert state.closed
    assert state.scores[state.tree or ""].verdict == "pass"
    outcome, shown, code = step_of(state)
    assert (outcome, code) == ("failed", "store_unavailable")
    assert len(forge.faults) == 1
    assert await next_steps(world) == (f"Open the change request of branch {BRANCH} by hand: {shown}",)
    assert forge.pulls == []


@pytest.mark.rule("RC-105")
async def test_token_that_is_refused_is_asked_once_and_stands_nowhere(forge: ForgeStandIn) -> None:
    changes, world = opened(forge, "tok-wrong-SECRET"), await finished_world()
    state = await close_story(world, target_of(changes))
    assert state.closed
    outcome, shown, code = step_of(state)
    assert (outcome, code) == ("failed", "tool_failed")
    assert len(forge.asked) == 1
    events: list[StoredEvent] = await world.events()
    assert b"tok-wrong-SECRET" not in b"".join(e.body for e in events) + shown.encode()


@pytest.mark.rule("RC-105")
async def test_request_that_somebody_merged_before_stays_so(forge: ForgeStandIn) -> None:
    changes, world = opened(forge), await finished_world()
    with pytest.raises(Crash):
        await close_story(world, target_of(Crashing(changes, 2)))
    forge.end(BRANCH, is_merged=True)
    state = await close_story(world, target_of(changes))
    assert step_of(state)[1].startswith("Change request 1 was merged by somebody and stays so")
    assert len(forge.pulls) == 1


async def test_story_of_a_fleet_without_a_forge_has_no_such_step() -> None:
    world = await finished_world()
    state = await close_story(world, None)
    assert state.closed
    assert [s for s in state.steps if "change" in s] == []
    assert "publish" in state.steps


@pytest.mark.rule("RC-77")
async def test_branch_that_the_forge_does_not_have_is_recorded_and_the_story_closes() -> None:
    changes, world = MemoryChangeRequests(), await finished_world()
    changes.add_repository("team/app", branches={"main"}, commits=set())
    state = await close_story(world, target_of(changes))
    outcome, shown, code = step_of(state)
    assert (outcome, code) == ("failed", "not_found")
    assert BRANCH in shown
    assert (await world.types())[-1] == StoryClosed.__name__


@pytest.mark.rule("RT-30", "RC-77")
async def test_policy_that_denies_the_request_is_on_record_and_the_story_closes() -> None:
    rule = {"id": "no-requests", "effect": "deny", "origin": "any", "roles": ["*"], "reason": "not from here"}
    world = await finished_world(step_policy(json.dumps({**rule, "calls": ["git.open_change_request"]})))
    state = await close_story(world, target_of(MemoryChangeRequests()))
    assert state.closed
    assert "change_request" not in state.steps
    assert "ToolDenied" in await world.types()


async def test_forge_that_asks_for_patience_is_given_it_within_a_limit() -> None:
    class Busy(MemoryChangeRequests):
        async def open_or_update(self, change: ChangeRequest) -> OpenedChange | EndedChange:
            """Too many requests."""
            raise RateLimited("slow down", retry_after_s=90)

    world = await finished_world()
    clock = world.clock
    assert isinstance(clock, MemoryClock)
    closing = asyncio.create_task(close_story(world, ChangeTarget(Busy(), "main", "team/app", waits_s=(1,))))
    while not clock.sleepers:
        await asyncio.sleep(0)
    clock.advance(89)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not closing.done()
    clock.advance(1)
    assert step_of(await closing)[2] == "rate_limited"


# The branch is pushed before.


class Remote:
    """The run that pushes, by its exit codes: the last one for ever. `pushed` holds the command lines."""

    def __init__(self, *codes: int) -> None:
        self._codes, self.pushed = list(codes), list[tuple[str, ...]]()

    def __call__(self, start: ProgramStart) -> ProgramEnd:
        self.pushed.append(start.argv)
        code = self._codes.pop(0) if len(self._codes) > 1 else self._codes[0]
        return ProgramEnd(exit_code=code, stderr=b"git says why\n" if code else b"")


async def pushing(*codes: int) -> tuple[World, Remote, MemoryChangeRequests, ChangeTarget]:
    """A finished story whose branch has to be pushed first."""
    remote, changes = Remote(*codes), MemoryChangeRequests()
    world = await finished_world(program=remote)
    world.forge.add_repository("/srv/text", branches={"main": "0a" * 20})
    changes.add_repository("team/app", branches={"main", BRANCH}, commits={COMMIT})
    push = PushTarget("https://forge.example/team/app.git", "git", None)
    return world, remote, changes, replace(target_of(changes), push=push)


@pytest.mark.rule("RC-77")
async def test_branch_is_pushed_under_an_absent_old_commit_before_the_request_is_opened() -> None:
    world, remote, changes, target = await pushing(0)
    state = await close_story(world, target)
    (argv,) = remote.pushed
    assert argv[2:] == ("--url", target.push.url, "--ref", f"refs/heads/{BRANCH}", "--commit", COMMIT)  # type: ignore[union-attr]
    assert step_of(state)[0] == "succeeded"
    assert len(changes.changes("team/app")) == 1
    pushed = next(s for name, s in state.steps.items() if name.startswith("push/"))
    assert (pushed.started.tool, pushed.started.op, pushed.started.effect) == ("git", "push_branch", "KEYED")


@pytest.mark.rule("RC-105")
@pytest.mark.parametrize(
    ("codes", "tries", "code"),
    [
        ((75, 75, 0), 3, None),
        ((75,), TRIES, "store_unavailable"),
        ((77,), 1, "tool_failed"),
        ((1,), 1, "tool_failed"),
    ],
)
async def test_push_that_fails_is_repeated_only_where_that_can_help_and_the_story_closes(
    codes: tuple[int, ...], tries: int, code: str | None
) -> None:
    world, remote, changes, target = await pushing(*codes)
    state = await close_story(world, target)
    assert state.closed
    assert len(remote.pushed) == tries
    assert step_of(state)[2] == code
    assert len(changes.changes("team/app")) == (0 if code else 1)
    assert code is None or "git says why" in step_of(state)[1]


@pytest.mark.rule("RT-65", "RC-105")
async def test_token_that_nobody_serves_leaves_the_push_undone_and_the_story_closed() -> None:
    world, remote, _, target = await pushing(0)
    assert target.push is not None
    target = replace(target, push=replace(target.push, token="secret://forge-token"))
    state = await close_story(world, target)
    assert state.closed
    assert (remote.pushed, step_of(state)[2]) == ([], "policy_denied")


@pytest.mark.rule("RC-51")
async def test_owner_that_dies_after_the_push_pushes_once() -> None:
    world, remote, changes, target = await pushing(0)
    with pytest.raises(Crash):
        await close_story(world, replace(target, changes=Crashing(changes, 1)))
    state = await close_story(world, target)
    assert step_of(state)[0] == "succeeded"
    assert len(remote.pushed) == 1


@pytest.mark.timeout(600)
@pytest.mark.rule("RC-105", "PL-43")
async def test_demo_story_leaves_a_branch_and_its_change_request_beside_the_repository(tmp_path: Path) -> None:
    repo, changes = demo_repository(tmp_path / "stage"), LocalChangeRequests(tmp_path / "changes")
    async with team(tmp_path, target=ChangeTarget(changes, "main")) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, repo, model=RECORDED)
        state = await t.settled(story_id)
        _, report, _ = await t.reports.generate(story_id, format="md", as_of=state.version)
    assert state.closed, state.park
    folder = changes.folder(str(repo))
    (record,) = [LocalChange.model_validate_json(p.read_bytes()) for p in folder.glob("*.json")]
    assert (record.head, record.base, record.commit) == (f"fleet/{story_id}", "main", state.commit)
    assert record.title == demo_story()["title"]
    (status,) = [LocalStatus.model_validate_json(p.read_bytes()) for p in folder.glob("statuses/*.json")]
    assert (status.commit, status.state) == (state.commit, CommitState.SUCCESS)
    finished = state.steps["change_request"].finished
    assert finished is not None
    assert finished.excerpt in report.next_steps
    assert record.text.startswith("**Verdict:** pass")
