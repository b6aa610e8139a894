"""The environment of a story's repository is made before anything is asked of a model (RC-111)."""

from __future__ import annotations

import asyncio
from typing import Any

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput, ToolFailed
from fleet.kernel.ids import Digest, StepId
from fleet.owner.journal.steps import Work
from fleet.owner.story_repository import ENVIRONMENT_STEPS
from fleet.owner.workbench import Workbench, seat
from fleet.policy.runs.toolchains import OWN_TOOLCHAIN
from fleet.policy.workspace_file import WORKSPACE_FILE
from fleet.story.state import StoryState
from fleet.trees.service import read_tree
from fleet.workspace.service.repository_environment import MAKING_S, RepositoryNeeds, repository_needs

_PLAIN = frozenset({"100644", "100755"})
_WITHOUT = "; or go on without its packages: start the story again with --no-fetch (over HTTP: `fetches: false`)"


def failed_environments(state: StoryState) -> int:
    """How often the environment of the story's base could not be made."""
    number = 0
    while (step := state.steps.get(StepId(f"{ENVIRONMENT_STEPS}{number + 1}"))) and step.finished is not None:
        if step.finished.outcome == "succeeded":
            break
        number += 1
    return number


async def make_environment(bench: Workbench, tree: Digest, commit: str) -> str | None:
    """The toolchain with the packages that the tree asks for; None where none are fetched.

    The making is a KEYED step: who makes it finds what is there, so a crash loses nothing and makes nothing twice. A
    failure is on record, and the next try is a step of its own.

    Raises:
        InvalidInput, ToolFailed, SandboxUnavailable: it cannot be made; says why, and what to do.
    """
    start, environments = bench.state.start, bench.environments
    assert start is not None
    if environments is None or start.fetches is False or start.toolchain != OWN_TOOLCHAIN:
        return None
    try:
        found = await _look(bench, tree)
    except InvalidInput as error:
        found = InvalidInput(f"{error.message}{_WITHOUT}", **error.details)
    needs = found.needs if isinstance(found, RepositoryNeeds) else None
    if isinstance(found, RepositoryNeeds) and needs is None and not found.containers:
        return None

    async def make() -> dict[str, Any]:
        if isinstance(found, InvalidInput):
            raise found
        warned = _warning(found.containers)
        if needs is None:
            return {"toolchain": None, "summary": warned}
        try:
            made = await environments.make(needs, tree=tree, commit=commit)
        except ToolFailed as error:
            raise ToolFailed(f"{error.message}{_WITHOUT}", **error.details) from error
        return {"toolchain": made.toolchain, "summary": "; ".join(filter(None, [made.summary, warned]))}

    files = {path: digest_of(content).hex for path, content in needs.files.items()} if needs else {}
    about = f"fetches what {needs.source} asks for, once for this lockfile" if needs else "looks at its environment"
    made = await bench.journal.act(
        f"{ENVIRONMENT_STEPS}{failed_environments(bench.state) + 1}",
        {"files": files, "commit": commit},
        Work(seat=seat("devops"), tool="packages", op="fetch", about=about),
        make,
        keeps_failure=True,
        wall_s=MAKING_S,
    )
    return made["toolchain"]


async def _look(bench: Workbench, tree: Digest) -> RepositoryNeeds:
    entries = await read_tree(bench.blobs, tree)
    loop = asyncio.get_running_loop()

    def read(path: str) -> bytes:
        return asyncio.run_coroutine_threadsafe(bench.blobs.get(entries[path].blob), loop).result()

    # Thousands of files may be looked at, and other stories live on this loop.
    return await asyncio.to_thread(repository_needs, [p for p, e in entries.items() if e.mode in _PLAIN], read)


def _warning(containers: tuple[str, ...]) -> str:
    if not containers:
        return ""
    first, *others = containers
    more = f" and {len(others)} more" if others else ""
    return (
        f"{first}{more} starts containers itself, which no run can do: declare services in {WORKSPACE_FILE}, "
        "or leave those tests out"
    )
