"""The repository of a story is brought from another machine, in a run of its own (RC-70)."""

from __future__ import annotations

from fleet.forge.port import StagedRepository
from fleet.kernel.errors import FleetError, InvalidInput, ToolFailed, ToolTimeout
from fleet.kernel.ids import StepId
from fleet.owner.journal.steps import Work
from fleet.owner.story_repository import FETCH_STEPS, staged_repository
from fleet.owner.workbench import Workbench, seat
from fleet.policy.commands.git import GitAddress, GitTarget, require_target
from fleet.policy.runs.spec import RunResult
from fleet.workspace.service.repository_specs import EXIT_AGAIN, EXIT_NO_PERMISSION, EXIT_TOO_LARGE, fetch_spec


def listed_target(bench: Workbench, address: GitAddress) -> GitTarget:
    """How the policy lets the address be reached.

    Raises:
        PolicyDenied: it is not listed.
    """
    policy = bench.journal.policy.policy
    return require_target(policy.targets.git, address, policy_digest=policy.digest)


async def fetch_repository(bench: Workbench, address: GitAddress) -> StagedRepository:
    """The story's own copy is there, at the commit of its ref. That commit stays pinned by what is on record.

    Every try is a step of its own; one that was cut off is asked for again by its key.

    Raises:
        PolicyDenied: the address is not listed. InvalidInput: it has no such ref, or is too large.
        ToolFailed: it refuses the token, or refuses for good. ToolTimeout: it does not answer now.
    """
    if (staged := await staged_repository(bench)) is not None:
        return staged
    start = bench.state.start
    assert start is not None
    spec = fetch_spec(address, listed_target(bench, address), ref=start.repo.ref, toolchain=bench.toolchain)
    work = Work(seat=seat("devops"), tool="git", op="fetch", args={"url": address.url, "branch": start.repo.ref})
    result = await bench.journal.run(_next_step(bench, f"{FETCH_STEPS}{spec.digest.hex[:8]}"), spec, work)
    if result.exit_code != 0:
        raise _error(result, address)
    staged = await staged_repository(bench)
    assert staged is not None, "a fetch that succeeded is on record"
    return staged


def _next_step(bench: Workbench, prefix: str) -> str:
    """The first try that has not failed."""
    number = 1
    while (step := bench.state.steps.get(StepId(f"{prefix}/{number}"))) and step.finished is not None:
        number += 1
    return f"{prefix}/{number}"


def _error(result: RunResult, address: GitAddress) -> FleetError:
    words = " ".join((result.stdout.text or result.stderr.text or result.reason).split())[-500:]
    if result.status == "timeout" or result.status == "error" or result.exit_code == EXIT_AGAIN:
        return ToolTimeout(f"{address.url} could not be fetched now: {result.reason}; {words}", url=address.url)
    if result.exit_code == EXIT_NO_PERMISSION:
        return ToolFailed(
            f"{address.url} refuses the token, or wants one: {words}; name its secret under targets.git and grant "
            "it to role devops for git.fetch",
            url=address.url,
        )
    if result.exit_code == EXIT_TOO_LARGE or result.reason == "disk_limit":
        return InvalidInput(f"{address.url} is too large to be fetched: name a local clone instead", url=address.url)
    return InvalidInput(f"{address.url} could not be fetched: {words}", url=address.url)
