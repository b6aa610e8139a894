"""The branch of a story reaches the hosted repository, in a run of its own (RC-77)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fleet.forge.service import ChangeTarget, PushTarget
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import (
    ApprovalRequired,
    FleetError,
    InvalidInput,
    PolicyDenied,
    StoreUnavailable,
    ToolFailed,
    ToolTimeout,
)
from fleet.kernel.ids import StepId
from fleet.owner.duties.fetch import listed_target
from fleet.owner.duties.tasks import last_packs
from fleet.owner.journal.steps import Work
from fleet.owner.story_repository import staged_repository
from fleet.owner.workbench import Workbench, seat
from fleet.policy.commands.git import GitAddress, GitTarget, git_target, parse_git_address
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.workspace.service.repository_specs import EXIT_AGAIN, EXIT_NO_PERMISSION, push_spec

_WAITS_S = (2, 10)
"""Seconds between the tries of one `push_to_source`; its caller comes again later."""


async def push_branch(bench: Workbench, target: ChangeTarget, branch: str, commit: str) -> FleetError | None:
    """The branch is at the commit where the target wants it pushed; else the error that says why not.

    Every try is a step of its own, and a try that was cut off is asked for again by its key; one whose outcome nobody
    knows may be repeated, because a branch that is at the commit already is left alone.
    """
    if target.push is None:
        return None
    try:
        address, place = _of(bench, target.push)
        spec = await _spec(bench, address, place, branch=branch, commit=commit)
    except InvalidInput as error:
        return error
    work = Work(seat=seat("devops"), tool="git", op="push_branch", args={"branch": branch, "commit": commit})
    # A repository that is configured anew after a crash is another step, not another request of the same one.
    prefix = f"push/{digest_of(target.push.url.encode()).hex[:8]}"

    async def run(number: int, spec: RunSpec) -> RunResult:
        return await bench.journal.run(f"{prefix}/{number}", spec, work)

    try:
        return await _tries(bench, run, spec, address, branch, target.waits_s)
    except ApprovalRequired:
        raise
    except PolicyDenied as error:
        return error


async def push_to_source(bench: Workbench, address: GitAddress, branch: str, commit: str) -> None:
    """The branch is at the commit in the repository that the story's code came from.

    The start of the step `publish` is on record; its runs go by keys of their own, new ones after the story moved on.

    Raises:
        PolicyDenied: the address is not listed any more. ToolFailed: it refuses. ToolTimeout: it does not answer now.
    """
    spec = await _spec(bench, address, listed_target(bench, address), branch=branch, commit=commit)
    version = bench.state.version

    async def run(number: int, spec: RunSpec) -> RunResult:
        return await bench.journal.run_by_key(StepId(f"publish/{version}/{number}"), spec)

    error = await _tries(bench, run, spec, address, branch, _WAITS_S)
    if isinstance(error, StoreUnavailable):
        # An outage of theirs is none of our stores.
        raise ToolTimeout(error.message, url=address.url)
    if error is not None:
        raise error


def _of(bench: Workbench, push: PushTarget) -> tuple[GitAddress, GitTarget]:
    address = parse_git_address(push.url)
    listed = git_target(bench.journal.policy.policy.targets.git, address) if address.scheme == "ssh" else None
    return address, listed or GitTarget(user=push.user, credentials=push.token)


async def _spec(bench: Workbench, address: GitAddress, target: GitTarget, *, branch: str, commit: str) -> RunSpec:
    staged = await staged_repository(bench)
    assert staged is not None
    packs = last_packs(bench.state, before="push")
    return push_spec(
        staged.name, packs, address=address, target=target, branch=branch, commit=commit, expected_old=None
    )


async def _tries(
    bench: Workbench,
    run: Callable[[int, RunSpec], Awaitable[RunResult]],
    spec: RunSpec,
    address: GitAddress,
    branch: str,
    waits_s: tuple[float, ...],
) -> FleetError | None:
    result = None
    for number, wait_s in enumerate((*waits_s, None), 1):
        result = await run(number, spec)
        if result.exit_code == 0:
            return None
        if wait_s is None or not _may_repeat(result):
            break
        await bench.clock.sleep(wait_s)
    assert result is not None
    return _error(result, branch, address.url)


def _may_repeat(result: RunResult) -> bool:
    return result.exit_code == EXIT_AGAIN or result.status in ("error", "timeout")


def _error(result: RunResult, branch: str, url: str) -> FleetError:
    words = " ".join((result.stderr.text or result.reason).split())[-500:]
    if _may_repeat(result):
        return StoreUnavailable(f"{url} did not take branch '{branch}': {words}; push it when it answers", url=url)
    if result.exit_code == EXIT_NO_PERMISSION:
        return ToolFailed(f"{url} refuses the token for branch '{branch}': {words}; give it the right to push", url=url)
    return ToolFailed(f"{url} refuses branch '{branch}': {words}; look at the branch there", url=url)
