"""An agent opens the change request of its story while it works; there is one per branch, and the story ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.extensions.forges.hosted import change_requests_for
from fleet.forge.local.change_requests import LocalChangeRequests
from fleet.forge.memory import MemoryChangeRequests
from fleet.forge.port import ChangeRequest, ChangeRequests
from fleet.forge.service import ChangeTarget, PushTarget
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import InvalidInput, PolicyDenied, ToolFailed
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.targets import Targets
from fleet.sandbox.memory import MemorySandboxBackend, ProgramEnd
from fleet.tools.kit.git import GitTool
from fleet.tools.kit.parts import ToolParts
from fleet.trees.memory import MemoryBlobStore
from tests.support.forge_stand_ins import STAND_INS, Fault, serving
from tests.support.tool_kit import DirectSandbox, call_of, context_of

TOKEN, OWN = "tok-first-SECRET", "fleet/st-tools"
ASKED = {"url": "https://git.example/team/app.git", "branch": OWN, "title": "Count words", "body": "Counts them."}


async def asked(target: ChangeTarget | None, **args: str) -> ToolOutcome:
    """One call of role devops, allowed already."""
    blobs, clock = MemoryBlobStore(), SystemClock()
    sandbox = DirectSandbox(MemorySandboxBackend(lambda _: ProgramEnd(), blobs))
    parts = ToolParts(sandbox=sandbox, blobs=blobs, clock=clock, targets=Targets(), change_target=target)
    context = context_of(role="devops", effect="KEYED", repository="a" * 64)
    return await GitTool(parts).call(call_of("git", "open_change_request", **(ASKED | args)), context)


def target_of(changes: ChangeRequests) -> ChangeTarget:
    """A hosted forge."""
    push = PushTarget("https://git.example/team/app.git", "git", None)
    return ChangeTarget(changes, "main", "team/app", push=push)


@pytest.mark.rule("RT-42", "RC-105")
@pytest.mark.parametrize("kind", sorted(STAND_INS))
async def test_agent_opens_the_one_change_request_that_the_story_ends_later(kind: str) -> None:
    async with serving(kind) as forge:
        forge.branches.add(OWN)
        changes = change_requests_for(kind, forge.base_url, token=_token)
        target = target_of(changes)
        opened = await asked(target)
        assert (opened.outcome, opened.reason) == ("succeeded", "opened"), opened.text
        again = await asked(target)
        assert (again.reason, again.content) == ("unchanged", opened.content)
        changed = await asked(target, title="Count words fast")
        assert (changed.reason, changed.content) == ("updated", opened.content)
        [pull] = forge.pulls
        assert (pull.head, pull.base, pull.title) == (OWN, "main", "Count words fast")
        assert "not measured: the story is at work" in pull.body
        assert "Written by role devops of story `st-tools`." in pull.body
        # What the story itself says at its end.
        await changes.open_or_update(ChangeRequest("team/app", "main", OWN, "Count words", "Done.", "pass, score 0.95"))
        [pull] = forge.pulls
        assert "pass, score 0.95" in pull.body
        assert "not measured" not in pull.body


async def _token() -> str:
    return TOKEN


@pytest.mark.rule("RT-42", "RC-105")
async def test_forge_that_fails_or_was_answered_by_somebody_is_an_outcome() -> None:
    async with serving("github") as forge:
        forge.branches.add(OWN)
        changes = change_requests_for("github", forge.base_url, token=_token)
        for status, reason in ((503, "unreachable"), (403, "no_permission"), (404, "not_found")):
            forge.faults.append(Fault("GET", status=status))
            failed = await asked(target_of(changes))
            assert (failed.outcome, failed.reason) == ("failed", reason), failed.text
            assert TOKEN not in failed.model_dump_json()
        await asked(target_of(changes))
        forge.end(OWN, is_merged=False)
        closed = await asked(target_of(changes))
        assert (closed.outcome, closed.reason) == ("failed", "closed")


@pytest.mark.rule("RT-42", "RT-58")
async def test_agent_asks_for_its_own_branch_at_the_forge_of_the_fleet_alone() -> None:
    changes = MemoryChangeRequests()
    target = target_of(changes)
    for args, rule in (
        ({"branch": "fleet/st-other"}, "branch_not_own"),
        ({"branch": "main"}, "branch_not_own"),
        ({"url": "https://git.example/team/other.git"}, "target_not_listed"),
        ({"url": "https://elsewhere.example/team/app.git"}, "target_not_listed"),
    ):
        with pytest.raises(PolicyDenied) as caught:
            await asked(target, **args)
        assert caught.value.details["rule_id"] == rule
    with pytest.raises(InvalidInput):
        await asked(target, url="https://tok@git.example/team/app.git")
    with pytest.raises(PolicyDenied):
        await asked(ChangeTarget(changes, "main", "team/other"))


@pytest.mark.rule("RT-42")
async def test_fleet_without_a_hosted_forge_says_so(tmp_path: Path) -> None:
    for target in (None, ChangeTarget(LocalChangeRequests(tmp_path), "main")):
        with pytest.raises(ToolFailed, match=r"fleet\.yaml"):
            await asked(target)
