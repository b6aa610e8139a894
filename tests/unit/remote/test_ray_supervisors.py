"""Which supervisor of a fleet is asked, when one is silent, gone, or starts again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from fleet.kernel.errors import FleetError, SandboxUnavailable, ToolTimeout
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.runs.spec import LiveFolder, RepoMount, RunSpec
from fleet.remote.nodes import NodeView, NodeWatch
from fleet.remote.ports import RaySandbox
from fleet.remote.supervisors import RayPeers, SearchPatience, Supervisors
from fleet.sandbox.port import SandboxHealth
from fleet.sandbox.service.spread import ranked

HOME, NEAR, FAR = "sandbox:local", "sandbox:aaaaaaaaaaaa", "sandbox:bbbbbbbbbbbb"
ALL = (HOME, NEAR, FAR)
STORY, SPEC = StoryId("st-a"), RunSpec(argv=("true",))


def key_for(*names: str) -> RunKey:
    """A key that belongs to these supervisors, in this order, while all are there."""
    keys = (RunKey(sha256(bytes([n])).hexdigest()) for n in range(255))
    return next(key for key in keys if ranked(key, ALL)[: len(names)] == [*names])


def gone(name: str) -> SandboxUnavailable:
    """What the resolver says of an actor that does not answer."""
    return SandboxUnavailable("it died", actor=name)


class Ray:
    """A resolver and a watch of nodes over supervisors that each answer with their name."""

    def __init__(self) -> None:
        self.listed: list[str] = list(ALL)
        self.dead = set[str]()
        self.nodes = 3
        self.answers: dict[str, Callable[[], object]] = {}
        self.seen: list[tuple[str, str]] = []
        self.folder_at = ""

    async def call(self, name: str, method: str, *args: Any, **kwargs: Any) -> object:
        self.seen.append((name, method))
        if name in self.dead:
            raise gone(name)
        if name in self.answers:
            return self.answers[name]()
        if method == "keeps":
            return name == self.folder_at
        return self.listed if method == "supervisors" else name

    async def has_several(self) -> bool:
        return self.nodes > 1

    async def is_gone(self, name: str) -> bool:
        return name in self.dead and name != HOME

    def asked(self, method: str) -> list[str]:
        return [name for name, called in self.seen if called == method]

    def supervisors(self, *, fresh_s: float = 60, verdict_s: float = 60) -> Supervisors:
        given: Any = self
        return Supervisors(given, HOME, given, patience=SearchPatience(fresh_s, 0.01, verdict_s))

    def sandbox(self, spread: Supervisors | None = None) -> RaySandbox:
        given: Any = self
        return RaySandbox(given, "local", spread=spread or self.supervisors())


@pytest.fixture
def ray() -> Ray:
    return Ray()


async def run(sandbox: RaySandbox, key: RunKey, spec: RunSpec = SPEC) -> Any:
    return await sandbox.run(spec, story=STORY, key=key, epoch=1)


@pytest.mark.rule("RC-26")
@pytest.mark.parametrize("name", ALL)
async def test_run_and_what_is_asked_of_it_go_to_the_supervisor_that_its_key_belongs_to(ray: Ray, name: str) -> None:
    sandbox, key = ray.sandbox(), key_for(name)
    assert await run(sandbox, key) == name
    found: list[Any] = [
        await sandbox.submit(SPEC, story=STORY, key=key, epoch=1),
        await sandbox.progress(key, wait_s=1),
        await sandbox.logs(key),
        await sandbox.cancel(key),
    ]
    assert found == [name] * 4
    assert ray.asked("supervisors") == [HOME]


@pytest.mark.rule("RC-26")
async def test_run_with_a_repository_stays_with_the_home(ray: Ray) -> None:
    assert await run(ray.sandbox(), key_for(FAR), WITH_REPOSITORY) == HOME
    assert ray.asked("supervisors") == []


def in_session(number: int) -> RunSpec:
    """A run of a work session."""
    root = Digest("sha256:" + "0" * 64)
    return RunSpec(argv=("true",), folder=LiveFolder(story=STORY, session=f"draft/{number}", root=root))


@pytest.mark.rule("RC-26")
async def test_runs_of_a_work_session_stay_on_one_node_when_others_come(ray: Ray) -> None:
    ray.listed = [HOME, NEAR]
    sandbox = ray.sandbox(ray.supervisors(fresh_s=0))
    keys = (key_for(HOME), key_for(NEAR), key_for(FAR))
    seats = {n: {await run(sandbox, key, in_session(n)) for key in keys} for n in range(12)}
    assert {len(names) for names in seats.values()} == {1}
    assert set.union(*seats.values()) == {HOME, NEAR}
    ray.listed = list(ALL)
    for n, names in seats.items():
        assert {await run(sandbox, key, in_session(n)) for key in keys} == names
    # A caller that knows nothing yet asks who has the folder.
    ray.folder_at = FAR
    assert {await run(ray.sandbox(), key, in_session(0)) for key in keys} == {FAR}


@pytest.mark.rule("RC-26", "RC-27")
async def test_work_session_moves_when_its_node_is_dead_and_stays_where_it_came_to(ray: Ray) -> None:
    sandbox, keys = ray.sandbox(ray.supervisors(fresh_s=0)), (key_for(HOME), key_for(NEAR), key_for(FAR))
    ray.folder_at = NEAR
    assert await run(sandbox, keys[2], in_session(1)) == NEAR
    ray.dead.add(NEAR)
    ray.listed, ray.folder_at = [HOME, FAR], ""
    (moved,) = {await run(sandbox, key, in_session(1)) for key in keys}
    assert moved in (HOME, FAR)
    ray.dead.clear()
    ray.listed = list(ALL)
    assert {await run(sandbox, key, in_session(1)) for key in keys} == {moved}


@pytest.mark.rule("RC-27")
async def test_run_goes_on_at_the_next_one_when_its_node_is_dead(ray: Ray) -> None:
    sandbox, key = ray.sandbox(), key_for(FAR)

    def dies() -> object:
        ray.dead.add(FAR)
        raise gone(FAR)

    ray.answers[FAR] = dies
    assert await run(sandbox, key) == ranked(key, (HOME, NEAR))[0]


@pytest.mark.rule("RC-27")
async def test_supervisor_that_starts_again_is_waited_for_even_when_another_node_came(ray: Ray) -> None:
    tries = iter(range(3))
    ray.listed = [HOME, NEAR]

    def restarts() -> object:
        ray.listed = list(ALL)
        if next(tries, None) is not None:
            raise gone(NEAR)
        return "again"

    ray.answers[NEAR] = restarts
    assert await run(ray.sandbox(ray.supervisors(fresh_s=0)), key_for(FAR, NEAR)) == "again"
    assert ray.asked("run") == [NEAR] * 4


WITH_REPOSITORY = RunSpec(argv=("git",), mounts=(RepoMount(repo="0" * 64),))


@pytest.mark.parametrize("spec", [SPEC, WITH_REPOSITORY])
async def test_only_supervisor_of_one_node_that_does_not_answer_is_told_at_once(ray: Ray, spec: RunSpec) -> None:
    ray.dead.add(HOME)
    ray.nodes = 1
    with pytest.raises(SandboxUnavailable):
        await run(ray.sandbox(), key_for(HOME), spec)
    assert ray.asked("run") == [HOME]


@pytest.mark.rule("RC-27")
@pytest.mark.parametrize("spec", [SPEC, WITH_REPOSITORY])
async def test_home_that_moves_to_another_node_is_waited_for(ray: Ray, spec: RunSpec) -> None:
    tries = iter(range(3))

    def moves() -> object:
        if ray.seen[-1][1] == "supervisors" or next(tries, None) is not None:
            raise gone(HOME)
        return "moved"

    ray.answers[HOME] = moves
    assert await run(ray.sandbox(), key_for(HOME), spec) == "moved"
    assert ray.asked("run") == [HOME] * 4


async def test_supervisor_of_a_node_that_stays_silent_is_given_up_in_the_end(ray: Ray) -> None:
    def silent() -> object:
        raise gone(FAR)

    ray.answers[FAR] = silent
    with pytest.raises(SandboxUnavailable):
        await run(ray.sandbox(ray.supervisors(verdict_s=0.05)), key_for(FAR))
    assert len(ray.asked("run")) > 2


@pytest.mark.parametrize("error", [SandboxUnavailable("no room", missing="room"), ToolTimeout("slow", actor=FAR)])
async def test_what_a_supervisor_says_itself_is_told_and_not_tried_elsewhere(ray: Ray, error: FleetError) -> None:
    def refuses() -> object:
        raise error

    ray.answers[FAR] = refuses
    with pytest.raises(type(error), match=error.message):
        await run(ray.sandbox(), key_for(FAR))
    assert ray.asked("run") == [FAR]


@pytest.mark.rule("RC-26")
async def test_any_supervisor_answers_for_a_run_when_its_own_does_not(ray: Ray) -> None:
    key = key_for(FAR)
    ray.dead.add(FAR)
    found: Any = await ray.sandbox().progress(key)
    assert found == ranked(key, ALL)[1]
    ray.dead |= set(ALL)
    with pytest.raises(SandboxUnavailable):
        await ray.sandbox().cancel(key)

    def refuses() -> object:
        raise SandboxUnavailable("no room")

    ray.dead, ray.answers[FAR] = set(), refuses
    with pytest.raises(SandboxUnavailable, match="no room"):
        await ray.sandbox().logs(key)


async def test_while_the_home_is_away_those_are_asked_that_it_named_last_and_that_live(ray: Ray) -> None:
    spread = ray.supervisors(fresh_s=0)
    assert await spread.names() == ALL
    ray.dead |= {HOME, NEAR}
    assert await run(ray.sandbox(spread), key_for(NEAR, FAR)) == FAR
    assert await spread.names() == (HOME, FAR)


async def test_home_is_asked_once_by_many_callers(ray: Ray) -> None:
    sandbox = ray.sandbox()
    await asyncio.gather(*(run(sandbox, key_for(name)) for name in ALL * 5))
    assert ray.asked("supervisors") == [HOME]


@pytest.mark.rule("RC-25")
async def test_health_is_that_of_all(ray: Ray) -> None:
    well = SandboxHealth(status="ok", backend="bubblewrap", active=1)
    ray.answers = {HOME: lambda: ray.listed if ray.seen[-1][1] == "supervisors" else well, NEAR: lambda: well}
    ray.dead.add(FAR)
    found = await ray.sandbox().health()
    assert (found.status, found.active, found.unmet) == ("degraded", 2, (f"{FAR}: does not answer",))


class Views:
    """What Ray says of its nodes, and how often it was asked."""

    def __init__(self) -> None:
        self.now: NodeView | None = NodeView(("a" * 56, "b" * 56), frozenset({NEAR, FAR}))
        self.asked = 0

    def __call__(self) -> NodeView | None:
        self.asked += 1
        return self.now


async def test_supervisor_is_gone_with_its_node_or_when_ray_has_none_of_its_name() -> None:
    views = Views()
    watch = NodeWatch(views)
    assert [await watch.is_gone(name) for name in (*ALL, "sandbox:cccccccccccc", "council:0")] == [
        False, False, False, True, False
    ]  # fmt: skip
    views.now = NodeView(("a" * 56,), frozenset({NEAR, FAR}))
    assert [await NodeWatch(views).is_gone(name) for name in ALL] == [False, False, True]
    views.now = NodeView(("a" * 56, "b" * 56), frozenset({FAR}))
    assert [await NodeWatch(views).is_gone(name) for name in ALL] == [False, True, False]


async def test_supervisor_that_came_since_ray_was_asked_is_not_taken_for_gone() -> None:
    views = Views()
    watch, new = NodeWatch(views), "sandbox:cccccccccccc"
    assert not await watch.is_gone(NEAR)
    views.now = NodeView(("a" * 56, "c" * 56), frozenset({NEAR, new}))
    assert not await watch.is_gone(new)
    await asyncio.gather(*(watch.is_gone(NEAR) for _ in range(20)))
    assert await watch.has_several()
    assert views.asked == 2


async def test_nobody_is_gone_while_ray_does_not_answer() -> None:
    views = Views()
    views.now = None
    assert not await NodeWatch(views).is_gone(FAR)
    assert not await NodeWatch(views).has_several()
    # There is no Ray around this test at all.
    assert not await NodeWatch().is_gone(FAR)


@pytest.mark.rule("RC-27")
async def test_peer_has_dropped_a_run_when_it_is_gone_or_says_that_it_has_none(ray: Ray) -> None:
    given: Any = ray
    peers, key = RayPeers(given, HOME, given), key_for(FAR)
    ray.answers = {HOME: lambda: False, NEAR: lambda: True}
    ray.dead.add(FAR)
    assert [await peers.has_dropped(name, key) for name in ALL] == [True, False, True]
    assert not await peers.has_dropped("sandbox:local/tools", key)
    assert ray.asked("holds") == [HOME, NEAR]
    ray.dead.add(HOME)
    assert not await peers.has_dropped(HOME, key)
