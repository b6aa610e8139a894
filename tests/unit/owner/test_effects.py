"""What becomes of a step whose owner died in the middle of it, by effect class (RC-50..RC-57, LC-122)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from fleet.events.codec import decode
from fleet.events.payload import Payload
from fleet.events.step import StepFinished, StepOutcomeUnknown, StepResolved, StepStarted
from fleet.events.story import StoryParked
from fleet.forge.port import Commit
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import (
    FleetError,
    InvalidTransition,
    NondeterministicPlan,
    OutcomeUnknown,
    OwnershipLost,
    PolicyDenied,
    SandboxUnavailable,
    ToolTimeout,
)
from fleet.kernel.ids import CommandId, Digest, Principal, RunKey, StepId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Appended, AppendRequest, Command, Duplicate
from fleet.models.chat import Sampling
from fleet.models.port import AgentRequest
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.step_records import RUN_TRIES, is_no_result
from fleet.owner.journal.steps import Probe, StepTerms, Work
from fleet.owner.workbench import seat
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.memory import ProgramEnd
from fleet.story.tool_steps import step_key
from tests.support.bench import ScriptedAgents, World
from tests.support.story_events import STORY, digest, story

STREAM = StreamId.of_story(STORY)
OPS = Work(seat=seat("devops"), tool="deploy", op="apply")
DEPLOY = {"environment": "staging", "tree": "sha256:1"}
Crashing = Callable[[AppendRequest], bool]


class Crash(BaseException):
    """The process ended here."""


class MortalLog(MemoryEventLog):
    """The process ends before an append whose command id ends so is stored; once."""

    dies_at: str | None = None

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        if self.dies_at and request.command_id.endswith(self.dies_at):
            self.dies_at = None
            raise Crash
        return await super().append(request)


class Receiver:
    """Something outside that does what it is asked, and counts. Without keys it does it as often as it is asked."""

    def __init__(self, *, fails: BaseException | None = None) -> None:
        self.keys: list[RunKey] = []
        self.fails = fails

    async def deploy(self, key: RunKey) -> dict[str, Any]:
        self.keys.append(key)
        if self.fails is not None:
            raise self.fails
        return {"revision": len(self.keys)}

    def probe(self, seen: Literal["happened", "not_happened", "cannot_tell"] | None = None) -> Probe:
        """Looks at what arrived; or says what it is told to."""

        async def look() -> Literal["happened", "not_happened", "cannot_tell"]:
            return seen or ("happened" if self.keys else "not_happened")

        return Probe("look_at_host", look)


async def started(**parts: Any) -> tuple[World, Journal, MortalLog]:
    log = MortalLog()
    world = World(log=log, **parts)
    await story(until="base").write_to(log)
    return world, await world.journal(), log


async def payloads(world: World, *types: type[Payload]) -> list[Any]:
    return [p for p in map(decode, await world.events()) if isinstance(p, types)]


async def crashed(log: MortalLog, at: str, work: Callable[[], Awaitable[object]]) -> None:
    """The owner dies at this append."""
    log.dies_at = at
    with pytest.raises(Crash):
        await work()


def request(own: str = "write it") -> AgentRequest:
    who = seat("developer")
    return AgentRequest(
        kind="draft",
        role="developer",
        principal=who.principal,
        shared="shared",
        own=own,
        sampling=Sampling(max_tokens=100, seed=7),
    )


@pytest.mark.rule("RC-50", "RC-56")
async def test_pure_step_runs_again_and_has_one_recorded_answer():
    answers = iter(["first", "second"])
    world, journal, log = await started(agents=ScriptedAgents(lambda _: {"code": next(answers)}))
    work = Work(seat=seat("developer"), tool="model", op="draft")
    await crashed(log, "/finish", lambda: journal.ask("think/1", request(), work))
    answer = await (await world.journal()).ask("think/1", request(), work)
    assert (answer.value, len(world.agents.asked)) == ({"code": "second"}, 2)
    started_, finished = await payloads(world, StepStarted), await payloads(world, StepFinished)
    assert [p.step_id for p in started_].count("think/1") == [p.step_id for p in finished].count("think/1") == 1


@pytest.mark.rule("RC-51", "RC-53", "RC-54")
@pytest.mark.parametrize("at", ["/start", "/finish"])
async def test_keyed_run_is_asked_of_the_supervisor_by_its_key_and_runs_once(at: str):
    runs: list[int] = []

    def program(_: object) -> ProgramEnd:
        runs.append(1)
        return ProgramEnd(stdout=b"2 passed\n")

    world, journal, log = await started(program=program)
    work, spec = Work(seat=seat("qa"), tool="tests", op="pytest"), RunSpec(argv=("pytest",))
    await crashed(log, at, lambda: journal.run("tests/1", spec, work))
    again = await world.journal()
    assert (await again.run("tests/1", spec, work)).status == "passed"
    assert (len(runs), again.running) == (1, ())
    assert again.state.steps["tests/1"].started.key == step_key(STORY, "tests/1", spec.digest)


@pytest.mark.rule("RC-51")
@pytest.mark.parametrize("at", ["publish/start", "publish/finish"])
async def test_keyed_push_compares_the_old_commit_so_that_repeating_it_changes_nothing(at: str):
    world, journal, log = await started()
    url, pushes = "/srv/text", list[str]()
    world.forge.add_repository(url, branches={"main": "0a" * 20})
    pack = await world.blobs.put(b"pack")
    commit = Commit(commit="0b" * 20, base_commit="0a" * 20, pack=pack, pack_index=pack)

    async def push() -> dict[str, Any]:
        pushes.append("push")
        await world.forge.publish(url, "fleet/x", commit, expected_old=None)
        return {"commit": commit.commit}

    body = {"branch": "fleet/x", "commit": commit.commit}
    await crashed(log, at, lambda: journal.act("publish", body, OPS, push))
    assert await (await world.journal()).act("publish", body, OPS, push) == {"commit": commit.commit}
    assert len(pushes) == (1 if at.endswith("start") else 2)
    assert world.forge.branches(url) == {"main": "0a" * 20, "fleet/x": "0b" * 20}


@pytest.mark.rule("RC-51")
async def test_run_that_a_losing_owner_had_killed_is_no_result_and_runs_under_the_next_key():
    world, journal, _ = await started(program=lambda _: ProgramEnd(stdout=b"2 passed\n"))
    work, spec = Work(seat=seat("qa"), tool="tests", op="pytest"), RunSpec(argv=("pytest",))
    asked: list[RunKey] = []
    real = world.sandbox.run

    class Killed:
        """The first run of a key is killed while it is under way."""

        async def run(self, spec: RunSpec, **more: Any) -> Any:
            asked.append(more["key"])
            result = await real(spec, **more)
            return result if len(asked) > 1 else result.model_copy(update={"status": "cancelled"})

    journal._sandbox = Killed()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    assert (await journal.run("tests/1", spec, work)).status == "passed"
    assert asked == [step_key(STORY, "tests/1", spec.digest, n) for n in (1, 2)]


@pytest.mark.rule("RC-27", "RC-51")
async def test_run_whose_sandbox_was_lost_is_tried_again_under_the_next_key():
    world, journal, _ = await started()
    spec, work = RunSpec(argv=("pytest",)), Work(seat=seat("qa"), tool="tests", op="pytest")
    asked: list[RunKey] = []
    real = world.sandbox.run

    class Dying:
        async def run(self, spec: RunSpec, **more: Any) -> Any:
            asked.append(more["key"])
            lost = RunResult(status="error", reason="sandbox_lost", exit_code=None)
            return lost if len(asked) < 3 else await real(spec, **more)

    journal._sandbox = Dying()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    assert (await journal.run("tests/1", spec, work)).status == "passed"
    assert asked == [step_key(STORY, "tests/1", spec.digest, n) for n in (1, 2, 3)]
    # Nor is one tried again that may have done something, nor one that was refused.
    asked.clear()
    lost = await journal.run_by_key(StepId("deploy/1"), spec, is_unsafe=True)
    assert (lost.reason, len(asked)) == ("sandbox_lost", 1)
    assert not is_no_result(RunResult(status="error", reason="config", exit_code=None))


async def test_run_that_is_killed_each_time_ends_as_cancelled():
    world, journal, _ = await started()

    class Killed:
        calls = 0

        async def run(self, spec: RunSpec, **more: Any) -> Any:
            self.calls += 1
            result = await world.sandbox.run(spec, **more)
            return result.model_copy(update={"status": "cancelled"})

    killed = Killed()
    journal._sandbox = killed  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    work = Work(seat=seat("qa"), tool="tests", op="pytest")
    assert (await journal.run("tests/1", RunSpec(argv=("pytest",)), work)).status == "cancelled"
    assert killed.calls == RUN_TRIES


async def test_run_that_nothing_could_hold_is_not_counted_as_under_way():
    _, journal, _ = await started()

    class Nowhere:
        async def run(self, spec: RunSpec, **more: Any) -> Any:
            raise SandboxUnavailable("no sandbox answers")

    journal._sandbox = Nowhere()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    with pytest.raises(SandboxUnavailable):
        await journal.run("tests/1", RunSpec(argv=("pytest",)), Work(seat=seat("qa"), tool="tests", op="pytest"))
    assert journal.running == ()


@pytest.mark.rule("RC-52", "RC-56")
async def test_unsafe_step_is_done_once_and_answers_from_its_record():
    world, journal, _ = await started()
    host = Receiver()
    assert await journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy) == {"revision": 1}
    assert await (await world.journal()).act_unsafe("deploy/1", DEPLOY, OPS, host.deploy) == {"revision": 1}
    assert host.keys == [step_key(STORY, "deploy/1", digest_of_request())]
    assert journal.state.steps["deploy/1"].started.effect == "UNSAFE"


def digest_of_request() -> Digest:
    from fleet.kernel.digest import digest_of

    return digest_of(canonical_json(DEPLOY))


@pytest.mark.rule("RC-52", "EV-162")
async def test_unsafe_step_without_a_result_is_never_repeated_and_shows_what_was_sent():
    world, journal, log = await started()
    host = Receiver()
    await crashed(log, "/finish", lambda: journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy))
    again = journal
    for _ in range(2):
        again = await world.journal()
        with pytest.raises(OutcomeUnknown, match="staging") as unknown:
            await again.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy)
        assert unknown.value.details["step_id"] == "deploy/1"
    assert len(host.keys) == 1
    (recorded,) = await payloads(world, StepOutcomeUnknown)
    assert json.loads(await world.blobs.get(recorded.sent_digest)) == DEPLOY
    assert (recorded.probe, recorded.sent_at) == (None, again.state.steps["deploy/1"].started_ms)
    assert again.state.unresolved_steps == ("deploy/1",)


@pytest.mark.rule("RC-52")
async def test_unsafe_step_that_never_reached_its_start_has_not_happened():
    world, journal, log = await started()
    host = Receiver()
    await crashed(log, "/start", lambda: journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy))
    assert host.keys == []
    assert await (await world.journal()).act_unsafe("deploy/1", DEPLOY, OPS, host.deploy) == {"revision": 1}


@pytest.mark.rule("RC-52")
async def test_error_of_an_unsafe_effect_says_nothing_about_what_happened():
    world, journal, _ = await started()
    host = Receiver(fails=ToolTimeout("the host did not answer"))
    with pytest.raises(OutcomeUnknown):
        await journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy)
    with pytest.raises(OutcomeUnknown):
        await journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy)
    assert len(host.keys) == 1
    assert len(await payloads(world, StepOutcomeUnknown)) == 1


@pytest.mark.rule("GL-19")
async def test_fenced_unsafe_effect_records_nothing():
    world, journal, _ = await started()
    with pytest.raises(OwnershipLost):
        await journal.act_unsafe("deploy/1", DEPLOY, OPS, Receiver(fails=OwnershipLost("a higher epoch")).deploy)
    assert await payloads(world, StepOutcomeUnknown) == []


@pytest.mark.rule("RC-57", "EV-163")
async def test_probe_that_saw_the_effect_resolves_the_step():
    world, journal, log = await started()
    host = Receiver()
    await crashed(log, "/finish", lambda: journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy))
    again = await world.journal()
    result = await again.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy, probe=host.probe())
    assert (result["outcome"], len(host.keys)) == ("happened", 1)
    (resolved,) = await payloads(world, StepResolved)
    assert (resolved.outcome, resolved.probe_result, resolved.by) == ("happened", "happened", "system:council")
    step = again.state.steps["deploy/1"]
    assert (step.resolution, step.finished is not None, again.state.unresolved_steps) == ("happened", True, ())


@pytest.mark.rule("RC-57")
async def test_probe_that_saw_nothing_lets_the_step_run_again_under_a_new_key():
    world, journal, log = await started()
    host = Receiver()
    await crashed(log, "/finish", lambda: journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy))
    again = await world.journal()
    probe = host.probe("not_happened")
    assert await again.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy, probe=probe) == {"revision": 2}
    assert host.keys == [step_key(STORY, "deploy/1", digest_of_request(), n) for n in (1, 2)]
    assert again.state.steps["deploy/1"].attempt == 2


@pytest.mark.rule("RC-57")
async def test_failed_effect_that_the_probe_did_not_see_is_tried_again_later():
    _, journal, _ = await started()
    host = Receiver(fails=ToolTimeout("the host did not answer"))
    with pytest.raises(ToolTimeout):
        await journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy, probe=host.probe("not_happened"))
    host.fails = None
    probe = host.probe("not_happened")
    assert await journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy, probe=probe) == {"revision": 2}
    assert len(set(host.keys)) == 2


@pytest.mark.rule("RC-57")
async def test_failed_effect_that_the_probe_saw_has_happened():
    _, journal, _ = await started()
    host = Receiver(fails=ToolTimeout("the host did not answer"))
    result = await journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy, probe=host.probe())
    assert (result["outcome"], len(host.keys)) == ("happened", 1)


@pytest.mark.rule("RC-57")
@pytest.mark.parametrize("error", [None, FleetError("the host does not answer")])
async def test_probe_that_cannot_tell_leaves_it_to_a_person(error: FleetError | None):
    world, journal, log = await started()
    host = Receiver()

    async def look() -> Literal["cannot_tell"]:
        if error is not None:
            raise error
        return "cannot_tell"

    await crashed(log, "/finish", lambda: journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy))
    with pytest.raises(OutcomeUnknown, match="look_at_host cannot tell"):
        await (await world.journal()).act_unsafe(
            "deploy/1", DEPLOY, OPS, host.deploy, probe=Probe("look_at_host", look)
        )
    assert len(host.keys) == 1
    assert await payloads(world, StepResolved) == []


async def test_probe_of_a_lost_story_is_no_answer():
    world, journal, log = await started()
    host = Receiver()

    async def look() -> Literal["happened"]:
        raise OwnershipLost("a higher epoch")

    await crashed(log, "/finish", lambda: journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy))
    with pytest.raises(OwnershipLost):
        await (await world.journal()).act_unsafe("deploy/1", DEPLOY, OPS, host.deploy, probe=Probe("look", look))


LIVE = {"environment": "live", "tree": "sha256:1"}


@pytest.mark.rule("RC-52", "RC-58")
async def test_unsafe_step_with_another_request_shows_what_was_sent_and_sends_nothing():
    world, journal, log = await started()
    host = Receiver()
    await crashed(log, "/finish", lambda: journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy))
    with pytest.raises(OutcomeUnknown, match="staging") as unknown:
        await (await world.journal()).act_unsafe("deploy/1", LIVE, OPS, host.deploy)
    sent = await world.blobs.get(unknown.value.details["sent_digest"])
    assert (json.loads(sent), len(host.keys)) == (DEPLOY, 1)


@pytest.mark.rule("RC-52", "RC-58")
async def test_unsafe_step_that_did_not_happen_is_sent_anew_as_it_is_today():
    world, journal, log = await started()
    host = Receiver()
    await crashed(log, "deploy/1/start", lambda: journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy))
    await journal.load()
    await journal._start(StepId("deploy/1"), digest("old"), OPS, StepTerms("tool", "UNSAFE", 60))
    again = await world.journal()
    assert await again.act_unsafe("deploy/1", LIVE, OPS, host.deploy, probe=host.probe()) == {"revision": 1}
    starts = await payloads(world, StepStarted)
    assert [each.request_digest for each in starts][-2:] == [digest("old"), await world.blobs.put(canonical_json(LIVE))]


@pytest.mark.rule("RC-51", "RC-58")
async def test_effect_whose_receiver_compares_is_done_as_it_is_asked_for_today():
    world, journal, log = await started()
    done: list[str] = []

    def effect(name: str) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def send() -> dict[str, Any]:
            done.append(name)
            return {"branch": name}

        return send

    await crashed(log, "/finish", lambda: journal.act("publish", {"branch": "a"}, OPS, effect("a")))
    again = await world.journal()
    assert await again.act("publish", {"branch": "b"}, OPS, effect("b")) == {"branch": "b"}
    assert (done, again.state.steps["publish"].attempt) == (["a", "b"], 2)


@pytest.mark.rule("PL-49", "RC-58")
async def test_unsafe_step_that_is_done_and_would_now_be_another_one_names_both_digests():
    world, journal, _ = await started()
    host = Receiver()
    await journal.act_unsafe("deploy/1", DEPLOY, OPS, host.deploy)
    with pytest.raises(NondeterministicPlan) as refused:
        await (await world.journal()).act_unsafe("deploy/1", LIVE, OPS, host.deploy)
    details = refused.value.details
    assert (details["recorded"], details["wanted"]) != (details["wanted"], details["recorded"])
    assert details["recorded"] in refused.value.message
    assert details["wanted"] in refused.value.message
    assert len(host.keys) == 1


class Front:
    """A story that is parked because of an unknown deployment, and commands on it."""

    def __init__(self, world: World, host: Receiver) -> None:
        self.world, self.host, self._keys = world, host, 0

    @classmethod
    async def opened(cls) -> Front:
        world, journal, log = await started()
        found = cls(world, Receiver())
        await crashed(log, "/finish", lambda: journal.act_unsafe("deploy/1", DEPLOY, OPS, found.host.deploy))
        with pytest.raises(OutcomeUnknown):
            await (await world.journal()).act_unsafe("deploy/1", DEPLOY, OPS, found.host.deploy)
        parked = StoryParked(cause="outcome_unknown", detail="a deployment", ref="deploy/1")
        await (await world.journal()).record("park/1", parked)
        return found

    async def do(self, name: str, body: dict[str, Any], *, who: str = "user:ana") -> Any:
        self._keys += 1
        sent = Command(
            command_id=CommandId(f"{who}/key-{self._keys}"),
            stream=STREAM,
            name=name,
            principal=Principal(who),
            body=body,
        )
        return await self.world.commands.handle(await self.world.bench(), sent)

    async def resolve(self, outcome: str, *, who: str = "user:ana", step: str = "deploy/1") -> Any:
        body = {"step_id": step, "outcome": outcome, "note": "I looked at the host"}
        return await self.do("resolve_step", body, who=who)


@pytest.mark.rule("RC-52", "LC-95")
async def test_story_with_an_unknown_step_goes_on_only_after_somebody_resolved_it():
    at = await Front.opened()
    with pytest.raises(OutcomeUnknown, match="fleet story resolve"):
        await at.do("unpark", {"note": "just go on with it"})
    await at.resolve("happened")
    assert (await at.do("unpark", {"note": "it has happened"}))["disposition"] == "active"


@pytest.mark.rule("RC-52", "EV-163")
async def test_step_that_a_person_saw_counts_as_done():
    at = await Front.opened()
    await at.resolve("happened", who="user:root")
    result = await (await at.world.journal()).act_unsafe("deploy/1", DEPLOY, OPS, at.host.deploy)
    assert result == {"outcome": "happened", "by": "user:root", "note": "I looked at the host"}
    assert len(at.host.keys) == 1


@pytest.mark.rule("RC-52")
async def test_step_that_is_resolved_without_a_result_is_not_repeated_either():
    at = await Front.opened()
    said = StepResolved(step_id=StepId("deploy/1"), outcome="happened", by=Principal("user:ana"), note="it is there")
    await (await at.world.journal()).record("said", said)
    result = await (await at.world.journal()).act_unsafe("deploy/1", DEPLOY, OPS, at.host.deploy)
    assert (result["outcome"], len(at.host.keys)) == ("happened", 1)


@pytest.mark.rule("RC-52")
async def test_step_that_did_not_happen_runs_again_under_a_new_key_once():
    at = await Front.opened()
    await at.resolve("not_happened")
    for _ in range(2):
        journal = await at.world.journal()
        assert await journal.act_unsafe("deploy/1", DEPLOY, OPS, at.host.deploy) == {"revision": 2}
    assert len(set(at.host.keys)) == 2
    assert [p.key for p in await payloads(at.world, StepStarted) if p.step_id == "deploy/1"] == at.host.keys


@pytest.mark.rule("RC-52")
async def test_second_attempt_that_is_interrupted_is_unknown_again():
    at = await Front.opened()
    await at.resolve("not_happened")
    log = at.world.log
    assert isinstance(log, MortalLog)
    journal = await at.world.journal()
    await crashed(log, "/finish", lambda: journal.act_unsafe("deploy/1", DEPLOY, OPS, at.host.deploy))
    with pytest.raises(OutcomeUnknown):
        await (await at.world.journal()).act_unsafe("deploy/1", DEPLOY, OPS, at.host.deploy)
    assert len(at.host.keys) == 2
    assert len(await payloads(at.world, StepOutcomeUnknown)) == 2
    await at.resolve("happened")


async def test_word_on_a_step_is_for_those_who_may_know_and_is_given_once():
    at = await Front.opened()
    with pytest.raises(PolicyDenied, match="neither role 'po' nor 'devops'"):
        await at.resolve("happened", who="user:dev")
    with pytest.raises(FleetError, match="no outcome"):
        await at.resolve("perhaps")
    with pytest.raises(FleetError, match="no step"):
        await at.resolve("happened", step="deploy/9")
    await at.resolve("not_happened")
    with pytest.raises(InvalidTransition, match="not_happened"):
        await at.resolve("happened")
    with pytest.raises(InvalidTransition, match="succeeded"):
        await at.resolve("happened", step="measure/base")
    assert len(await payloads(at.world, StepResolved)) == 1


def test_key_of_a_step_depends_on_story_step_request_and_attempt():
    keys = {
        step_key("st-a1", "s/1", digest("r")),
        step_key("st-b1", "s/1", digest("r")),
        step_key("st-a1", "s/2", digest("r")),
        step_key("st-a1", "s/1", digest("q")),
        step_key("st-a1", "s/1", digest("r"), 2),
    }
    assert len(keys) == 5
    assert step_key("st-a1", "s/1", digest("r"), 1) in keys
    assert StepId("s/1")
