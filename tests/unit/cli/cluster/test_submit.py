"""A story on a cluster: one job for one plan, its log once, and an end that is told whatever becomes of the job."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fleet.cli.cluster.submit_client import JobClient, JobState, read_ray_token
from fleet.cli.cluster.submit_follow import follow
from fleet.cli.cluster.submit_job import SubmitOptions, placed_job, submit_story
from fleet.cli.cluster.submit_plan import PLAN_FILE, SubmittedPlan
from fleet.cli.output import Output
from fleet.config.environment import load_settings
from fleet.kernel.errors import FleetError, InvalidInput, StoreUnavailable, Unauthenticated
from fleet.kernel.ids import CommandId, Principal
from tests.support.http_stand_in import Reply, Request, serving_http
from tests.support.team_models import demo_story

RUNS, DONE = JobState("RUNNING", "", None), JobState("SUCCEEDED", "", 0)
RESULT = {"outcome": "done", "story_id": "st-word-count-1"}
AWAY = StoreUnavailable("no Ray dashboard answers at http://nowhere")


def plan(**changes: Any) -> SubmittedPlan:
    return SubmittedPlan.model_validate(
        {"story": demo_story(), "repo": "/srv/repo", "principal": Principal("user:ann"), **changes}
    )


@dataclass
class ScriptedJobs:
    """Jobs of a cluster that say what they are told to, one look after the other; the last one again and again."""

    looks: list[JobState | FleetError | KeyboardInterrupt | None] = field(default_factory=list)
    logs: list[str | StoreUnavailable] = field(default_factory=lambda: [""])
    known: dict[str, JobState] = field(default_factory=dict)
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    entrypoints: list[str] = field(default_factory=list)
    refusal: StoreUnavailable | None = None
    is_taken: bool = True

    def state(self, job_id: str) -> JobState | None:
        if not self.looks:
            return self.known.get(job_id)
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(found, BaseException):
            raise found
        return found

    def log(self, job_id: str) -> str:
        found = self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]
        if isinstance(found, BaseException):
            raise found
        return found

    seen = log

    def submit(self, job_id: str, *, entrypoint: str, folder: Path, metadata: Mapping[str, str]) -> None:
        if self.is_taken:
            self.known[job_id] = RUNS
            self.made[job_id] = json.loads((folder / PLAN_FILE).read_text())
            self.entrypoints.append(entrypoint)
        if self.refusal:
            raise self.refusal


def followed(jobs: ScriptedJobs, *, patience_s: float = 60) -> int:
    return follow(jobs, "fleet-1", Output(as_json=True), look_s=0, patience_s=patience_s)


def test_same_plan_is_one_job_until_it_is_over() -> None:
    jobs = ScriptedJobs()
    job_id, is_new = placed_job(jobs, plan(), python="python3")
    assert (is_new, jobs.entrypoints) == (True, ["python3 -m fleet.cli.submitted"])
    sent = SubmittedPlan.model_validate(jobs.made[job_id])
    assert (sent.model_copy(update={"submission": ""}), sent.digest) == (plan(), plan().digest)
    assert placed_job(jobs, plan(), python="python3") == (job_id, False)
    assert placed_job(jobs, plan(repo="/srv/other"), python="python3")[0] != job_id
    jobs.known[job_id] = JobState("FAILED", "", 3)
    assert placed_job(jobs, plan(), python="python3") == (f"{job_id}-2", True)
    assert jobs.made[f"{job_id}-2"]["submission"] != sent.submission


def test_plan_without_packages_is_another_one_and_the_usual_one_is_written_as_before() -> None:
    jobs = ScriptedJobs()
    usual, _ = placed_job(jobs, plan(), python="python")
    bare, is_new = placed_job(jobs, plan(fetches=False), python="python")
    assert (is_new, bare != usual) == (True, True)
    assert "fetches" not in jobs.made[usual]
    assert SubmittedPlan.model_validate(jobs.made[bare]).fetches is False


@pytest.mark.parametrize(
    ("changes", "is_closed", "is_meant"),
    [
        ({}, False, True),
        ({}, True, True),
        ({"submission": "b"}, False, True),
        ({"submission": "b"}, True, False),
        ({"model": "local"}, False, False),
        ({"principal": "user:eve"}, False, False),
    ],
)
def test_story_of_the_same_job_or_an_open_one_of_the_same_plan_is_gone_on_with(
    changes: dict[str, Any], is_closed: bool, is_meant: bool
) -> None:
    first = plan(submission="a")
    created = CommandId(f"{first.principal}/{first.create_key}")
    assert plan(**{"submission": "a"} | changes).created(created, is_closed) is is_meant
    assert not first.created(CommandId(f"{first.principal}/st-word-count-1/create"), is_closed=False)


def test_job_whose_answer_was_lost_is_not_made_twice() -> None:
    jobs = ScriptedJobs(refusal=StoreUnavailable("the answer was lost"))
    job_id, is_new = placed_job(jobs, plan(), python="python")
    assert (list(jobs.made), is_new) == ([job_id], True)
    with pytest.raises(StoreUnavailable, match="the answer was lost"):
        placed_job(ScriptedJobs(refusal=jobs.refusal, is_taken=False), plan(), python="python")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (DONE, 0),
        (JobState("FAILED", "exit code 3", 3), 3),
        (JobState("FAILED", "exit code 4", 4), 4),
        (JobState("FAILED", "exit code 5", 5), 5),
        (JobState("FAILED", "exit code 2", 2), 2),
    ],
)
def test_exit_code_is_that_of_the_run(end: JobState, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = ScriptedJobs(looks=[RUNS, end], logs=["one\n", f"one\ntwo\n{json.dumps(RESULT)}"])
    assert followed(jobs) == code
    assert json.loads(capsys.readouterr().out) == RESULT


def test_every_line_of_the_log_is_shown_once_and_only_when_it_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    logs = ["first [bold]line\nsec", "first [bold]line\nsecond\n", "first [bold]line\nsecond\nlast {", ""]
    logs[-1] = logs[2] + f'"\n{json.dumps(RESULT)}\n'
    assert followed(ScriptedJobs(looks=[RUNS, RUNS, RUNS, DONE], logs=[*logs])) == 0
    assert capsys.readouterr().err.splitlines() == ["first [bold]line", "second", 'last {"']


@pytest.mark.parametrize(
    ("state", "log", "why"),
    [
        (JobState("FAILED", "The node of the job died.\nlong trace", None), "one\n", "The node of the job died."),
        (JobState("STOPPED", "", None), "", "Ray does not say why"),
        (JobState("FAILED", "exit code 1", 1), "Traceback ...\nImportError\n", "exit code 1"),
        (JobState("SUCCEEDED", "", 0), '{"level": "info"}\n', "Ray does not say why"),
        (JobState("FAILED", "killed", -9), json.dumps(RESULT), "killed"),
    ],
)
def test_job_that_died_is_a_failure_that_says_why(
    state: JobState, log: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert followed(ScriptedJobs(looks=[state], logs=[log]), patience_s=0) == 4
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"] | {"status": ""} == {
        "code": "job_failed", "job": "fleet-1", "status": "", "message": why
    }  # fmt: skip
    assert "tries again" in shown.err


@pytest.mark.parametrize("late", ["", 'working\n{"outcome": "do', AWAY], ids=["nothing", "half", "no answer"])
def test_result_that_comes_after_the_end_of_the_job_is_waited_for(
    late: str | StoreUnavailable, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = ScriptedJobs(looks=[RUNS, DONE], logs=["", late, late, f"working\n{json.dumps(RESULT)}\n"])
    assert followed(jobs) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == RESULT
    assert shown.err.splitlines() == ["working"]


def test_log_lines_in_the_form_of_json_are_shown_and_are_not_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    line = json.dumps({"level": "warning", "message": "a connection was not closed"})
    assert followed(ScriptedJobs(looks=[DONE], logs=[f"{line}\n{json.dumps(RESULT)}\n{line}\n"])) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == RESULT
    assert shown.err.splitlines() == [line, line]


def test_cluster_that_is_away_for_a_moment_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = ScriptedJobs(looks=[RUNS, AWAY, AWAY, DONE], logs=["", json.dumps(RESULT)])
    assert followed(jobs) == 0
    with pytest.raises(StoreUnavailable, match="job fleet-1 cannot be followed any more: no Ray dashboard answers"):
        followed(ScriptedJobs(looks=[RUNS, AWAY]), patience_s=0)
    with pytest.raises(StoreUnavailable, match="not known to the cluster any more"):
        followed(ScriptedJobs(looks=[RUNS, None]))


def test_interrupt_leaves_the_job_and_says_how_to_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert followed(ScriptedJobs(looks=[RUNS, KeyboardInterrupt()])) == 4
    assert "the story goes on as job fleet-1" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["ray://head:10001", "head:8265", "", "http://"])
def test_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises((InvalidInput, StoreUnavailable)):
        JobClient(address, "").check()


async def test_dashboard_that_is_none_or_wants_another_token_is_told() -> None:
    async def checked(reply: Reply, token: str = "") -> str:
        async with serving_http(lambda _: reply) as url:
            client = JobClient(url, token)
            return await asyncio.to_thread(client.check)

    assert await checked(Reply(document={"version": "4", "ray_version": "2.60.0"})) == "2.60.0"
    with pytest.raises(StoreUnavailable, match="no Ray dashboard"):
        await checked(Reply(document={"hello": "world"}))
    with pytest.raises(StoreUnavailable, match="no Ray dashboard"):
        await checked(Reply(raw=b"<html>"))
    with pytest.raises(Unauthenticated, match="wants a token"):
        await checked(Reply(status=401))
    with pytest.raises(Unauthenticated, match="wants another token"):
        await checked(Reply(status=403), "mine")
    with pytest.raises(StoreUnavailable, match="is the cluster up"):
        await checked(Reply(is_lost=True))


async def test_running_job_of_the_same_plan_is_followed_over_http(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Request] = []
    states = iter(["RUNNING", "RUNNING", "SUCCEEDED"])

    def answer(request: Request) -> Reply:
        asked.append(request)
        if request.path == "/api/version":
            return Reply(document={"ray_version": "2.60.0"})
        if request.path.endswith("/tail"):
            return Reply(status=404)
        if request.path.endswith("/logs"):
            return Reply(document={"logs": f"working\n{json.dumps(RESULT)}\n"})
        return Reply(document={"status": next(states), "message": "", "driver_exit_code": None})

    token = tmp_path / "token"
    token.write_text("secret-token\n")
    async with serving_http(answer) as url:
        settings = load_settings({"FLEET_HOME": str(tmp_path)})
        options = SubmitOptions(plan(), address=url, token_file=token)
        code = await asyncio.to_thread(submit_story, settings, options, Output(as_json=True))
    assert code == 0
    assert {request.method for request in asked} == {"GET"}
    # The client of Ray has the token from variables that it read when it was imported, perhaps by another test.
    own = [request for request in asked if request.path.startswith("/api/jobs/") and "tail" not in request.path]
    assert {request.headers["authorization"] for request in own} == {"Bearer secret-token"}
    shown = capsys.readouterr()
    assert json.loads(shown.out) == RESULT
    assert "runs already: following it" in shown.err


class Dashboard:
    """A dashboard of Ray as far as jobs need it: the log is sent as it is printed, and the agent comes up late."""

    def __init__(self, *, refusals: int = 0) -> None:
        self.asked: list[tuple[str, str]] = []
        self.refusals, self.is_over = refusals, False
        self.printed: asyncio.Queue[str | None] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        if request.path.endswith("/tail"):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            while (text := await self.printed.get()) is not None:
                await socket.send_str(text)
            await socket.close()
            return socket
        if request.method == "POST" and len([one for one in self.asked if one[0] == "POST"]) <= self.refusals:
            text = "No available agent to submit job, please try again later."
            return web.Response(status=503, text=text)
        if request.path == "/api/version":
            return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"})
        if request.path.endswith("/logs"):
            return web.json_response({"logs": f"working\nand on\n{json.dumps(RESULT)}\n"})
        if request.method == "POST":
            return web.json_response({"job_id": "fleet-1", "submission_id": "fleet-1"})
        if "packages" in request.path:
            return web.Response(status=200)
        status = "SUCCEEDED" if self.is_over else "RUNNING"
        return web.json_response({"status": status, "message": "", "driver_exit_code": None})

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_log_is_shown_while_the_job_runs_and_sent_once(capsys: pytest.CaptureFixture[str]) -> None:
    dashboard = Dashboard()
    shown = ""
    async with dashboard.serve() as url:
        client = JobClient(url, "a-token")
        going = asyncio.create_task(
            asyncio.to_thread(follow, client, "fleet-1", Output(as_json=True), look_s=0.02, patience_s=20)
        )
        for text in ("working\nan", "d on\n"):
            dashboard.printed.put_nowait(text)
        async with asyncio.timeout(60):
            while "and on" not in shown:
                await asyncio.sleep(0.02)
                shown += capsys.readouterr().err
        assert ("GET", "/api/jobs/fleet-1/logs") not in dashboard.asked
        dashboard.is_over = True
        dashboard.printed.put_nowait(None)
        assert await going == 0

    assert shown.splitlines() == ["working", "and on"]
    assert dashboard.asked.count(("GET", "/api/jobs/fleet-1/logs")) == 1


async def test_cluster_that_has_just_come_up_is_asked_again_until_it_takes_the_job(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    dashboard = Dashboard(refusals=2)
    async with dashboard.serve() as url:
        client = JobClient(url, "a-token")
        submit = partial(client.submit, "fleet-1", entrypoint="true", folder=tmp_path, metadata={})
        await asyncio.to_thread(submit)

    assert [method for method, _ in dashboard.asked].count("POST") == 3


async def test_unknown_job_and_an_answer_that_fails_are_told_apart() -> None:
    async with serving_http(lambda r: Reply(status=404 if "gone" in r.path else 500, document={"x": 1})) as url:
        client = JobClient(url, "")
        assert await asyncio.to_thread(client.state, "gone") is None
        assert await asyncio.to_thread(client.log, "gone") == ""
        with pytest.raises(StoreUnavailable, match="answers 500"):
            await asyncio.to_thread(client.state, "there")


def test_token_comes_from_the_file_that_is_given_first(tmp_path: Path) -> None:
    given, named = tmp_path / "given", tmp_path / "named"
    given.write_text("one\n")
    named.write_text("two\n")
    environ = {"RAY_AUTH_TOKEN": "three", "RAY_AUTH_TOKEN_PATH": str(named)}
    assert read_ray_token(given, environ) == "one"
    assert read_ray_token(None, environ) == "three"
    assert read_ray_token(None, {"RAY_AUTH_TOKEN_PATH": str(named)}) == "two"
    assert read_ray_token(None, {}) == ""
    with pytest.raises(InvalidInput, match="cannot read the token of Ray"):
        read_ray_token(tmp_path / "none", {})


def test_nothing_named_and_nothing_up_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(StoreUnavailable, match="give --address"):
        submit_story(load_settings({"FLEET_HOME": str(tmp_path)}), SubmitOptions(plan()), Output(as_json=False))
