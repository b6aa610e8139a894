"""The repository of a story as its runs see it, wherever it came from (RC-70)."""

from __future__ import annotations

from fleet.forge.port import FetchedRepository, StagedRepository
from fleet.kernel.errors import ToolFailed
from fleet.kernel.ids import Digest
from fleet.owner.workbench import Workbench
from fleet.policy.commands.git import GitAddress, git_address
from fleet.story.state import Step
from fleet.workspace.service.repository_specs import FETCHED, fetched_of

FETCH_STEPS = "base/fetch/"
"""Where the steps that fetch a story's repository begin."""
ENVIRONMENT_STEPS = "environment/"
"""Where the steps begin that make its environment."""


def hosted_at(bench: Workbench) -> GitAddress | None:
    """Where the story's repository is on another machine; None for one of this machine, or before the start."""
    start = bench.state.start
    return git_address(start.repo.url) if start is not None else None


async def staged_repository(bench: Workbench) -> StagedRepository | None:
    """The copy that runs see, at the commit that the story builds on; None before there is one.

    A copy that was lost is made anew: of the repository when that is of this machine, else of what was fetched.

    Raises InvalidInput, StoreUnavailable, ToolFailed when it cannot be made.
    """
    start = bench.state.start
    if start is None:
        return None
    address = git_address(start.repo.url)
    if address is None:
        return await bench.forge.stage(start.repo.url, bench.state.base_commit or start.repo.ref)
    fetched = await _fetched(bench, address)
    return None if fetched is None else await bench.forge.stage_fetched(fetched)


async def _fetched(bench: Workbench, address: GitAddress) -> FetchedRepository | None:
    """What the record says was fetched, last of all; None once its environment could not be made.

    What was fetched is then no base: it may have been mended there, or the story started again on something else.
    """
    last: Step | None = None
    for step_id, step in bench.state.steps.items():
        if step.finished is None:
            continue
        if step_id.startswith(FETCH_STEPS) and step.finished.outcome == "succeeded":
            last = step
        elif step_id.startswith(ENVIRONMENT_STEPS) and step.finished.outcome != "succeeded":
            last = None
    if last is None or last.finished is None:
        return None
    artifacts = {a.path: a.artifact_digest for a in last.finished.artifacts}
    if not set(FETCHED) <= set(artifacts):
        step_id = last.started.step_id
        raise ToolFailed(f"{address.url} was fetched and left no pack: start the story anew", step_id=step_id)
    facts, pack, index = (artifacts[path] for path in FETCHED)
    fetched = fetched_of(address, await bench.blobs.get(facts), pack=pack, pack_index=index)
    if fetched is None:
        raise ToolFailed(f"{address.url} was fetched, and what came is no fetch: start the story anew")
    return fetched


async def packs_of(bench: Workbench, commit: str) -> tuple[Digest, ...]:
    """The pack that holds a commit made in this story, and all that it builds on since the base. None for others."""
    for step in reversed(list(bench.state.steps.values())):
        artifacts = (
            {a.path.rpartition("/")[2]: a.artifact_digest for a in step.finished.artifacts} if step.finished else {}
        )
        if "commit.txt" not in artifacts or "new.pack" not in artifacts:
            continue
        if (await bench.blobs.get(artifacts["commit.txt"])).decode(errors="replace").strip() == commit:
            return (artifacts["new.pack"],)
    return ()
