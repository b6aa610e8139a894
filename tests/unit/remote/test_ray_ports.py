"""The ports that actors serve: which actor is called, with which method, and how its absence reads."""

from __future__ import annotations

from typing import Any

import pytest

from actors.notary import NotaryShell
from actors.sandbox import SandboxShell
from actors.sandbox_deployments import DeploymentMethods
from actors.sandbox_sessions import SessionMethods
from fleet.context.port import PackRequest
from fleet.deploy.port import Placed
from fleet.forge.port import ChangeRequest, Commit, CommitState, FetchedRepository
from fleet.kernel.errors import (
    InvalidInput,
    ModelUnavailable,
    OutcomeUnknown,
    SandboxUnavailable,
    StoreUnavailable,
    ToolTimeout,
)
from fleet.kernel.ids import CommandId, Digest, Principal, RunKey, StoryId, StreamId
from fleet.models.port import AgentRequest
from fleet.policy.runs.spec import RunSpec
from fleet.remote.deployments import RayDeployments, RayEnvironments
from fleet.remote.losses import RayLosses
from fleet.remote.patience import PatientCalls
from fleet.remote.ports import RayAgents, RayChangeRequests, RayForge, RayPacks, RaySandbox, RayToolHost
from fleet.remote.sandbox_sessions import RaySandboxSessions
from fleet.workspace.project import LayerNeeds
from tests.support.deployed import target_of
from tests.support.tool_calls import call_of, context_of

STORY, KEY = StoryId("st-a"), RunKey("0" * 64)


class Calls:
    """A resolver that notes its calls; an `answer` that is an error is raised."""

    def __init__(self, answer: Any = "answer") -> None:
        self.seen: list[tuple[str, str]] = []
        self.answer = answer

    async def call(self, name: str, method: str, *args: Any, **kwargs: Any) -> Any:
        self.seen.append((name, method))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def request(principal: str = "agent:developer-002", role: str = "developer") -> AgentRequest:
    return AgentRequest(kind="draft", role=role, principal=Principal(principal), shared="s")


@pytest.mark.rule("CN-11")
async def test_seat_always_lands_on_the_same_actor_of_its_pool() -> None:
    calls = Calls()
    agents = RayAgents(calls, {"developer": 3})  # pyright: ignore[reportArgumentType]
    for number in (1, 2, 3, 4):
        await agents.ask(request(f"agent:developer-{number:03d}"), request_id="r", timeout_s=1)
    assert [name for name, _ in calls.seen] == [f"role:developer:{n}" for n in (0, 1, 2, 0)]


async def test_role_without_actors_is_refused_and_a_dead_actor_is_an_absent_model() -> None:
    with pytest.raises(InvalidInput, match="no actor serves role 'qa'"):
        await RayAgents(Calls(), {"developer": 1}).ask(request(role="qa"), request_id="r", timeout_s=1)  # pyright: ignore[reportArgumentType]
    dead = RayAgents(Calls(StoreUnavailable("gone")), {"developer": 1})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelUnavailable, match="gone"):
        await dead.ask(request(), request_id="r", timeout_s=1)


async def test_packs_sandbox_and_forge_call_the_actor_of_their_node() -> None:
    calls: Any = Calls()
    await RayPacks(calls).pack(PackRequest(story_id=STORY, role="qa", phase="TEST", as_of=0))
    await RayPacks(calls).tokens((None,), ("a text",))
    sandbox, forge = RaySandbox(calls, "n1"), RayForge(calls, "n1")
    await sandbox.run(RunSpec(argv=("true",)), story=STORY, key=KEY, epoch=1)
    await sandbox.submit(RunSpec(argv=("true",)), story=STORY, key=KEY, epoch=1)
    await sandbox.progress(KEY, wait_s=1)
    await sandbox.logs(KEY, after=3)
    await sandbox.cancel(KEY)
    await sandbox.health()
    await forge.stage("repo")
    digest = Digest("sha256:" + "0" * 64)
    await forge.publish("repo", "fleet/st-a", Commit("c", "b", digest, digest), expected_old=None)
    await forge.stage_fetched(FetchedRepository("https://h/r", "c", "main", digest, digest))
    assert calls.seen == [
        ("context", "pack"),
        ("context", "tokens"),
        ("sandbox:n1", "run"),
        ("sandbox:n1", "submit"),
        ("sandbox:n1", "progress"),
        ("sandbox:n1", "logs"),
        ("sandbox:n1", "cancel"),
        ("sandbox:n1", "sandbox_health"),
        ("sandbox:n1", "stage"),
        ("sandbox:n1", "publish"),
        ("sandbox:n1", "stage_fetched"),
    ]


async def test_sessions_are_those_of_the_node() -> None:
    calls: Any = Calls()
    sessions = RaySandboxSessions(calls, "n1")
    await sessions.start(RunSpec(argv=("bash",)), story=STORY, key=KEY, epoch=1)
    await sessions.poll(KEY, after_line=3, wait_s=1)
    await sessions.write_stdin(KEY, b"x", seq=1)
    await sessions.snapshot(KEY)
    await sessions.kill(KEY)
    await sessions.close(KEY)
    await sessions.sweep()
    assert [method for name, method in calls.seen if name == "sandbox:n1"] == [
        "start_session",
        "poll_session",
        "write_session",
        "snapshot_session",
        "kill_session",
        "close_session",
        "sweep_sessions",
    ]
    assert all(callable(getattr(SessionMethods, method)) for _, method in calls.seen)


async def test_deployments_are_those_of_the_node() -> None:
    calls: Any = Calls()
    deployments, target = RayDeployments(calls, "n1"), target_of()
    await deployments.deploy(Placed(KEY, STORY, Digest(f"sha256:{KEY}"), "python", target))
    await deployments.standing("preview")
    await deployments.occupancy("preview")
    await deployments.roll_back("preview", failed=KEY)
    await deployments.sample("preview", target.monitor.checks[0])
    await deployments.stop("preview")
    assert [method for name, method in calls.seen if name == "sandbox:n1"] == [
        "deploy",
        "deployment",
        "occupancy",
        "roll_back",
        "sample_deployment",
        "stop_deployment",
    ]
    assert all(callable(getattr(DeploymentMethods, method)) for _, method in calls.seen)


async def test_environments_are_those_of_the_node() -> None:
    calls: Any = Calls()
    needs, tree = LayerNeeds("python", "requirements.txt", {}), Digest(f"sha256:{KEY}")
    await RayEnvironments(calls, "n1").make(needs, tree=tree, commit="0" * 40)
    assert calls.seen == [("sandbox:n1", "make_environment")]
    assert callable(SandboxShell.make_environment)


async def test_change_requests_and_tools_are_those_of_the_node() -> None:
    calls: Any = Calls()
    change = ChangeRequest(repository="a/b", base="main", head="fleet/st-a", title="t", body="b")
    await RayChangeRequests(calls, "n1").open_or_update(change)
    await RayChangeRequests(calls, "n1").set_status("a/b", "0" * 40, state=CommitState.SUCCESS, description="pass")
    await RayToolHost(calls, "n1").call(call_of("files", "list", path="."), context_of())
    await RayToolHost(calls, "n1").preview(call_of("kubectl", "apply"), context_of())
    await RayToolHost(calls, "n1").cancel(KEY)
    assert [method for _, method in calls.seen] == [
        "open_change_request",
        "set_commit_status",
        "call_tool",
        "preview_tool",
        "cancel_tool",
    ]


@pytest.mark.rule("RC-52", "RC-56")
async def test_unsafe_call_whose_actor_died_is_asked_about_once_and_then_unknown() -> None:
    calls: Any = Calls(SandboxUnavailable("gone", actor="sandbox:n1"))
    unsafe = context_of(effect="UNSAFE")
    with pytest.raises(OutcomeUnknown, match="may have happened"):
        await RayToolHost(calls, "n1").call(call_of("http", "post", url="https://a.example/"), unsafe)
    assert len(calls.seen) == 2


async def test_call_that_may_be_repeated_says_that_its_actor_is_gone() -> None:
    calls: Any = Calls(SandboxUnavailable("gone", actor="sandbox:n1"))
    with pytest.raises(SandboxUnavailable):
        await RayToolHost(calls, "n1").call(call_of("files", "list", path="."), context_of())
    assert len(calls.seen) == 1


@pytest.mark.rule("RC-52")
async def test_unsafe_call_that_the_tool_itself_refused_is_not_asked_again() -> None:
    calls: Any = Calls(SandboxUnavailable("no room"))
    with pytest.raises(SandboxUnavailable, match="no room"):
        await RayToolHost(calls, "n1").call(
            call_of("http", "post", url="https://a.example/"), context_of(effect="UNSAFE")
        )
    assert len(calls.seen) == 1


class Restarting(Calls):
    """An actor that Ray starts again: so many calls fail first."""

    def __init__(self, failures: int, *, is_restarting: bool = True) -> None:
        super().__init__()
        self._error = SandboxUnavailable("gone", actor="sandbox:n1", is_restarting=is_restarting)
        self._failures = failures

    async def call(self, name: str, method: str, *args: Any, **kwargs: Any) -> Any:
        await super().call(name, method)
        if len(self.seen) <= self._failures:
            raise self._error
        return self.answer


@pytest.mark.rule("RC-51")
async def test_call_of_an_actor_that_restarts_waits_for_it() -> None:
    calls: Any = Restarting(3)
    assert await PatientCalls(calls, again_s=0).call("sandbox:n1", "call_tool", timeout_s=1) == "answer"
    assert len(calls.seen) == 4


async def test_actor_that_is_gone_for_good_or_too_long_is_told_of() -> None:
    gone: Any = Restarting(9, is_restarting=False)
    with pytest.raises(SandboxUnavailable):
        await PatientCalls(gone).call("sandbox:n1", "call_tool", timeout_s=1)
    assert len(gone.seen) == 1
    slow: Any = Restarting(10_000)
    with pytest.raises(SandboxUnavailable):
        await PatientCalls(slow, within_s=0.05, again_s=0.01).call("sandbox:n1", "call_tool", timeout_s=1)
    assert 1 < len(slow.seen) < 20


@pytest.mark.rule("AP-95", "EV-19")
async def test_losses_are_accepted_by_the_notary_and_its_silence_is_an_outage() -> None:
    calls: Any = Calls()
    who, stream = Principal("user:root"), StreamId.of_story("st-a")
    await RayLosses(calls).accept(stream, by=who, reason="the disk died", command_id=CommandId("user:root/key-1"))
    assert calls.seen == [("notary", "accept_loss")]
    assert callable(NotaryShell.accept_loss)
    silent: Any = Calls(ToolTimeout("actor notary did not answer", actor="notary"))
    # So that the shard keeps the command and asks again.
    with pytest.raises(StoreUnavailable, match="did not answer"):
        await RayLosses(silent).accept(stream, by=who, reason="the disk died")
