"""A story from its consent to deploy to its end: deployed once, watched, rolled back, mended, whatever dies (LC-49)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from fleet.deploy.memory import MemoryDeployments
from fleet.deploy.port import Placed, Standing
from fleet.desk.gates import GateDesk
from fleet.events.codec import decode
from fleet.events.payload import Payload
from fleet.events.plan import CheckpointSaved
from fleet.events.story import StoryParked, StoryTransitioned
from fleet.events.task import TreeMerged
from fleet.events.workspace import DeploymentRecorded, HealthObserved, IncidentClosed, IncidentOpened
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied, SandboxUnavailable
from fleet.kernel.ids import CommandId, Digest, Principal
from fleet.log.port import Command
from fleet.owner.story_owner import StoryOwner
from fleet.owner.workbench import Workbench
from fleet.policy.deploy import DeployTarget, HealthCheckSpec, HealthSample
from tests.support.acting import Crash, MortalLog
from tests.support.bench import ANA, World, definitions
from tests.support.deployed import target_of
from tests.support.story_events import MERGED, T0, created_payload, digest, story

P = TypeVar("P", bound=Payload)


class QuickClock(MemoryClock):
    """Short sleeps pass at once; long ones, as that for a person's answer, wait."""

    async def sleep(self, seconds: float) -> None:
        if 0 < seconds <= 5:
            self.advance(seconds)
        await super().sleep(0 if seconds <= 5 else seconds)


class Watcher:
    """Stories in DEPLOY, whose deployments answer as a test says."""

    def __init__(
        self,
        *,
        deployments: MemoryDeployments | None = None,
        log: MortalLog | None = None,
        rigor: str = "L1",
        **target: Any,
    ) -> None:
        self.world = World(clock=QuickClock(T0 + 3_600_000), log=log)
        self.deployments = deployments or MemoryDeployments()
        self.target: DeployTarget = target_of(**target)
        self.rigor = rigor
        self.fsm = definitions().fsm

    async def begin(self) -> Watcher:
        log = story(until="merged", created=created_payload(lifecycle="sdlc", environment="preview", rigor=self.rigor))
        log.move("TEST", "tests_done", "REVIEW").move("REVIEW", "review_approved", "DEPLOY")
        await log.write_to(self.world.log)
        return self

    async def bench(self) -> Workbench:
        bench = await self.world.bench()
        return replace(
            bench, rules=replace(definitions(), fsm=self.fsm, targets=(self.target,)), deployments=self.deployments
        )

    async def work(self, until: Callable[[Workbench], bool]) -> Workbench:
        """An owner works, and ana approves what waits for her, until this holds."""
        bench = await self.bench()
        owner = StoryOwner(bench)
        working = asyncio.create_task(owner.run())
        try:
            async with asyncio.timeout(20):
                while not until(bench) and not working.done():
                    await self.approve(bench, owner)
                    await asyncio.sleep(0)
            if working.done():
                working.result()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        return bench

    async def approve(self, bench: Workbench, owner: StoryOwner) -> None:
        for approval in list(bench.state.approvals.values()):
            request = approval.request
            if approval.status == "requested" and not approval.voided and request.gate == "approve_deploy":
                name = CommandId(f"{ANA}/yes-{request.approval_id}")
                command = Command(name, bench.journal.stream, "approve", ANA, {"gate": request.approval_id})
                await self.world.commands.handle(bench, command)
                owner.wake()

    async def payloads(self, kind: type[P]) -> list[P]:
        decoded = [decode(event) for event in await self.world.events()]
        return [payload for payload in decoded if isinstance(payload, kind)]


def in_state(name: str) -> Callable[[Workbench], bool]:
    return lambda bench: bench.state.state == name


def ill(_: Digest, check: HealthCheckSpec) -> HealthSample:
    return HealthSample(1.0, f"status 503 from {check.target}")


def parked(bench: Workbench) -> bool:
    return bench.state.disposition == "parked"


@pytest.mark.rule("LC-36", "LC-37", "LC-49", "LC-61", "LC-62", "LC-63", "PL-47")
async def test_approved_tree_is_deployed_once_and_watched_until_it_is_healthy():
    at = await Watcher(
        monitor={"window_s": 3, "checks": [check("alive"), check("errors", "metric", window_s=2)]}
    ).begin()

    bench = await at.work(lambda b: b.state.deployment is not None and b.state.deployment.is_healthy)

    (placed,) = at.deployments.deployed
    assert (placed.tree, placed.target) == (MERGED, at.target)
    (recorded,) = await at.payloads(DeploymentRecorded)
    assert (recorded.status, recorded.environment, recorded.revision) == ("succeeded", "preview", placed.key)
    assert [p.note for p in await at.payloads(CheckpointSaved)][-1] == "before deployment to preview"
    windows = await at.payloads(HealthObserved)
    assert all(window.ok and len(window.checks) == 2 for window in windows)
    assert windows[-1].to - windows[0].from_ >= 3000
    assert bench.state.state == "MONITOR"
    (started, *watches) = [s.started for s in bench.state.steps.values() if s.started.tool == "environment"]
    assert (started.op, started.effect, started.as_role) == ("start", "UNSAFE", "deployer")
    assert {(w.op, w.effect, w.as_role) for w in watches} == {("observe", "KEYED", "monitor")}


def check(name: str, kind: str = "http", **changes: Any) -> dict[str, Any]:
    target = {"http": "/healthz", "metric": "/metrics#errors_total"}[kind]
    return {"name": name, "kind": kind, "target": target, "threshold": 0, "interval_s": 1, "window_s": 1} | changes


@pytest.mark.rule("LC-43", "LC-47", "LC-91")
async def test_deployment_that_fails_comes_back_as_a_task_that_names_what_was_said():
    at = Watcher(deployments=MemoryDeployments(starts=lambda _: "the program ended with 3: no database"))
    bench = await (await at.begin()).work(in_state("BUILD"))

    (recorded,) = await at.payloads(DeploymentRecorded)
    assert (recorded.status, recorded.detail) == ("failed", "the program ended with 3: no database")
    (task,) = [t.task for t in bench.state.tasks.values() if t.task.kind == "fix"]
    assert "Deployment to preview failed: the program ended with 3: no database" in task.description


@pytest.mark.rule("LC-45", "LC-49")
async def test_first_window_that_breaches_is_rolled_back_and_its_incident_becomes_a_task():
    at = await Watcher(deployments=MemoryDeployments(looks=ill)).begin()
    before = Placed(key_of("b"), story_id(), MERGED, "python", at.target)
    await at.deployments.deploy(before)

    bench = await at.work(in_state("BUILD"))

    assert await at.deployments.standing("preview") == Standing("running", key=before.key)
    first, back = await at.payloads(DeploymentRecorded)
    assert (first.status, back.status) == ("succeeded", "rolled_back")
    assert first.rollback_ref == before.key
    (opened,) = await at.payloads(IncidentOpened)
    assert "alive is 1, at most 0 is healthy (status 503 from /healthz)" in opened.summary
    (task,) = [t.task for t in bench.state.tasks.values() if t.task.kind == "fix"]
    assert task.task_id == opened.task_id
    assert "alive is 1" in task.description
    types = await at.world.types()
    # What was seen and that it is wrong are one append: nobody finds the one without the other.
    assert types.index("IncidentOpened") == types.index("HealthObserved") + 1


@pytest.mark.rule("LC-49")
async def test_first_window_that_breaches_without_a_rollback_waits_for_a_person():
    at = await Watcher(deployments=MemoryDeployments(looks=ill), rollback="none").begin()
    bench = await at.work(parked)
    assert bench.state.park is not None
    assert "declares no rollback" in bench.state.park.detail
    assert (await at.deployments.standing("preview")).status == "running"
    assert len(await at.payloads(IncidentOpened)) == 1

    await at.world.commands.handle(
        bench, Command(CommandId(f"{ANA}/go"), bench.journal.stream, "unpark", ANA, {"note": "I have looked at it."})
    )
    assert (await at.work(in_state("BUILD"))).state.state == "BUILD"
    assert [d.status for d in await at.payloads(DeploymentRecorded)] == ["succeeded"]


@pytest.mark.rule("LC-49")
async def test_rollback_that_fails_waits_for_a_person_and_then_goes_back():
    class Stuck(MemoryDeployments):
        async def roll_back(self, environment: str, *, failed: Any) -> Standing:
            return Standing("failed", key=failed, detail="what ran before does not start any more")

    at = await Watcher(deployments=Stuck(looks=ill)).begin()
    bench = await at.work(parked)
    assert bench.state.park is not None
    assert bench.state.park.detail == "the rollback failed: what ran before does not start any more"
    await at.world.commands.handle(
        bench, Command(CommandId(f"{ANA}/go"), bench.journal.stream, "unpark", ANA, {"note": "I have looked at it."})
    )
    assert (await at.work(in_state("BUILD"))).state.state == "BUILD"


@pytest.mark.rule("LC-49", "LC-63")
async def test_later_breach_opens_an_incident_that_closes_once_a_later_deployment_has_been_healthy():
    looks = iter([0.0, 0.0, 0.0, 1.0])
    at = Watcher(
        deployments=MemoryDeployments(looks=lambda _, __: HealthSample(next(looks, 0.0), "seen")),
        monitor={"window_s": 60, "checks": [check("alive")]},
    )
    # A person sends it back here: what the system does by itself then is asked of the plan.
    fsm = definitions().fsm
    at.fsm = fsm.model_copy(update={"limits": fsm.limits.model_copy(update={"auto_loopback": False})})
    bench = await (await at.begin()).work(lambda b: bool(b.state.open_incidents))
    assert [d.status for d in await at.payloads(DeploymentRecorded)] == ["succeeded"]
    windows = await at.payloads(HealthObserved)
    assert [w.ok for w in windows] == [True, False]
    (incident,) = bench.state.open_incidents
    back = StoryTransitioned(from_="MONITOR", event="incident_found", to="BUILD", loopback=True)
    mended = TreeMerged(base_digest=MERGED, result_digest=digest("mended tree"), commit="0e" * 20)
    on = StoryTransitioned(from_="BUILD", event="build_done", to="DEPLOY")
    await bench.journal.record("test/mended", back, mended, on)

    bench = await at.work(lambda b: not b.state.open_incidents)
    (closed,) = await at.payloads(IncidentClosed)
    assert closed.incident_id == incident.incident_id
    assert bench.state.deployment is not None
    assert bench.state.deployment.is_healthy
    assert str(bench.state.deployment.deployment_id) in (closed.resolution or "")


@pytest.mark.rule("LC-63")
async def test_environment_that_runs_something_else_says_nothing_about_the_story():
    class Busy(MemoryDeployments):
        """As soon as something is watched, another story is deployed there."""

        async def sample(self, environment: str, check: HealthCheckSpec) -> HealthSample:
            current, _ = self._now[environment]
            await self.deploy(replace(current, key=key_of("c"), story=story_id()))
            return HealthSample(0.0, "well")

    at = await Watcher(deployments=Busy(), monitor={"window_s": 600, "checks": [check("alive")]}).begin()
    bench = await at.work(parked)
    assert bench.state.park is not None
    assert "preview does not run what this story deployed any more" in bench.state.park.detail
    assert await at.payloads(HealthObserved) == []


ROOT = Principal("user:root")


def ending(bench: Workbench, *, who: Principal = ROOT, number: int = 1, **changes: Any) -> Command:
    """A person says that it ended the only deployment of the story."""
    (deployment,) = bench.state.deployments.values()
    body = {"environment": "preview", "revision": deployment.revision, "action": "stop", "reason": "it leaks memory"}
    return Command(CommandId(f"{who}/end-{number}"), bench.journal.stream, "end_deployment", who, body | changes)


def long_watched(**changes: Any) -> Watcher:
    return Watcher(monitor={"window_s": 600, "checks": [check("alive")]}, **changes)


@pytest.mark.rule("LC-49", "LC-94")
async def test_story_whose_deployment_a_person_ended_waits_with_who_did_it_and_goes_back_then():
    at = await long_watched().begin()
    bench = await at.work(lambda b: b.state.deployment is not None and b.state.deployment.windows > 1)

    await at.world.commands.handle(bench, ending(bench))

    told = "user:root stopped it by hand: it leaks memory"
    assert bench.state.park is not None
    assert f"preview does not run what this story deployed any more: {told}" in bench.state.park.detail
    assert f"fleet resume {bench.state.story_id}" in bench.state.park.detail
    recorded = (await at.payloads(DeploymentRecorded))[-1]
    assert (recorded.status, recorded.detail) == ("rolled_back", told)
    version = bench.state.version
    await at.world.commands.handle(bench, ending(bench))
    assert bench.state.version == version, "one command is recorded once"

    go = Command(CommandId(f"{ANA}/go"), bench.journal.stream, "unpark", ANA, {"note": "I have looked at it."})
    await at.world.commands.handle(bench, go)
    bench = await at.work(in_state("BUILD"))
    (task,) = [t.task for t in bench.state.tasks.values() if t.task.kind == "fix"]
    assert told in task.description


@pytest.mark.rule("LC-49", "LC-94")
async def test_story_that_sees_it_before_it_is_told_names_who_did_it_too():
    class Ends(MemoryDeployments):
        """A person ends it while it is looked at, and the story is not told yet."""

        async def sample(self, environment: str, check: HealthCheckSpec) -> HealthSample:
            if (await self.standing(environment)).key:
                await self.stop(environment, told="user:root stopped it by hand: it leaks memory")
            return await super().sample(environment, check)

    at = await long_watched(deployments=Ends()).begin()
    bench = await at.work(parked)
    assert bench.state.park is not None
    assert "any more: user:root stopped it by hand: it leaks memory. Let the story" in bench.state.park.detail
    assert await at.payloads(HealthObserved) == []
    parks = len(await at.payloads(StoryParked))
    await at.world.commands.handle(bench, ending(bench))
    assert len(await at.payloads(StoryParked)) == parks == 1
    assert (await at.payloads(DeploymentRecorded))[-1].status == "rolled_back"


@pytest.mark.rule("LC-49", "LC-11", "GL-14")
async def test_ending_that_nobody_may_or_that_was_before_is_refused_and_recorded_nowhere():
    at = await long_watched().begin()
    bench = await at.work(lambda b: b.state.deployment is not None and b.state.deployment.windows > 0)
    version = bench.state.version
    for number, (error, changes) in enumerate(
        [
            (PolicyDenied, {"who": ANA}),
            (NotFound, {"revision": "f" * 64}),
            (NotFound, {"environment": "elsewhere"}),
            (InvalidInput, {"action": "burn"}),
            (InvalidInput, {"reason": "short"}),
            (InvalidInput, {"colour": "red"}),
        ]
    ):
        with pytest.raises(error):
            await at.world.commands.handle(bench, ending(bench, number=number, **changes))
    assert bench.state.version == version
    await at.world.commands.handle(bench, ending(bench, number=20, action="rollback"))
    with pytest.raises(InvalidTransition, match="ended before: user:root rolled it back by hand"):
        await at.world.commands.handle(bench, ending(bench, number=21))


@pytest.mark.rule("LC-49")
async def test_story_that_is_over_has_the_end_of_its_deployment_on_record_and_stays_over():
    at = await long_watched().begin()
    bench = await at.work(lambda b: b.state.deployment is not None and b.state.deployment.windows > 0)
    over = Command(CommandId(f"{ANA}/over"), bench.journal.stream, "cancel", ANA, {"reason": "nobody needs it"})
    await at.world.commands.handle(bench, over)
    await at.world.commands.handle(bench, ending(bench))
    assert (bench.state.disposition, bench.state.park) == ("cancelled", None)
    assert (await at.payloads(DeploymentRecorded))[-1].status == "rolled_back"
    assert await at.world.log.open_streams() == []


@pytest.mark.rule("LC-79")
async def test_who_is_asked_for_consent_is_shown_what_is_started_and_watched():
    at = await Watcher().begin()
    bench = await at.work(lambda b: b.state.deployment is not None)
    request = next(a.request for a in bench.state.approvals.values() if a.request.gate == "approve_deploy")
    card = json.loads(await at.world.blobs.get(request.card_digest))
    assert card["deployment"]["tree"] == MERGED
    assert DeployTarget.model_validate_json(card["deployment"]["target"]) == at.target
    assert (card["score"], card["verdict"]) == ("98.7", "pass")
    shown = await GateDesk(planning=at.world.desk, blobs=at.world.blobs).card(
        bench.state, bench.state.approvals[request.approval_id]
    )
    assert (shown.tree, shown.score is not None) == (MERGED, True)


@pytest.mark.rule("GL-22")
async def test_environment_that_is_declared_no_more_parks_with_what_to_do():
    at = await Watcher(environment="elsewhere").begin()
    bench = await at.work(parked)
    assert bench.state.park is not None
    assert "environment 'preview' is not declared any more: declare it under deploy.targets" in bench.state.park.detail


@pytest.mark.rule("RC-52", "RC-57")
async def test_target_that_cannot_be_asked_whether_it_happened_is_never_sent_it_again():
    class Away(MemoryDeployments):
        calls = 0

        async def deploy(self, placed: Placed) -> Standing:
            type(self).calls += 1
            await super().deploy(placed)
            raise SandboxUnavailable("the line broke", missing="answer")

        async def standing(self, environment: str) -> Standing:
            raise SandboxUnavailable("the node is away", missing="answer")

    at = await Watcher(deployments=Away()).begin()
    bench = await at.work(parked)
    assert bench.state.park is not None
    assert bench.state.park.cause == "outcome_unknown"
    assert Away.calls == 1
    assert bench.state.deployments == {}


@pytest.mark.rule("RC-52", "PL-48")
@pytest.mark.parametrize("stored", [False, True], ids=["before", "after"])
async def test_owner_that_dies_at_any_append_deploys_and_rolls_back_once(stored: bool):
    fired = 0
    for point in range(1, 60):
        log = MortalLog(at=point, stored=stored)
        at = Watcher(deployments=MemoryDeployments(looks=ill), log=log)
        await at.begin()
        log.is_armed = True
        try:
            await at.work(in_state("BUILD"))
        except* Crash:
            fired += 1
        log.is_armed = False
        bench = await at.work(in_state("BUILD"))
        assert bench.state.disposition == "active", bench.state.park
        assert len(at.deployments.deployed) == 1, point
        assert [d.status for d in await at.payloads(DeploymentRecorded)] == ["succeeded", "rolled_back"]
        assert len(await at.payloads(IncidentOpened)) == 1
        assert len([t for t in bench.state.tasks.values() if t.task.kind == "fix"]) == 1
        if log.count < point:
            break
    assert fired >= 12, "the deployment has that many appends"


def key_of(letter: str) -> Any:
    return letter * 64


def story_id() -> Any:
    return "st-before"
