"""Tool `git`: our own scripts over the staged repository, inside the sandbox (RT-41, RT-42, RT-58).

No git state lies between calls: HEAD is the staged commit, and the workspace is its own index. So `add` checks names,
`commit` takes the whole workspace as one commit on HEAD and leaves it as a pack, `branch_create` says where a branch
would begin, and nothing reaches the repository before it is pushed. Hooks, filters and settings of the repository never
take part.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from pydantic import JsonValue

from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import ToolFailed
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import BlobMount, RepoMount, RunResult, RunSpec
from fleet.tools.kit.git_change import open_change
from fleet.tools.kit.git_remote import REMOTE_OPS, RemoteGit, check_branch
from fleet.tools.kit.parts import ToolParts
from fleet.tools.kit.runs import limits_of, outcome_of, printed, run_once
from fleet.tools.port import ToolContext
from fleet.trees.service import read_tree
from fleet.trees.tree import FileEntry, changed_paths

_FOLDER = ".fleet-out"
_PACK = (f"{_FOLDER}/commit.txt", f"{_FOLDER}/new.pack", f"{_FOLDER}/new.idx")
_COMMITTING = frozenset({"commit", "merge_candidate"})
_NEW_TREE = frozenset({"checkout", "merge_candidate"})
_LOCAL = frozenset({"status", "log", "diff", "show", "branch_list", "add", "branch_create"}) | _COMMITTING | _NEW_TREE
_REASONS = {1: "git_failed", 3: "not_found", 4: "conflict"}


class GitTool:
    """Git within the workspace and, for what the policy lists, to other machines. Implements the port Tool."""

    def __init__(self, parts: ToolParts) -> None:
        self._sandbox, self._blobs = parts.sandbox, parts.blobs
        self._remote, self._change_target = RemoteGit(parts), parts.change_target

    @property
    def name(self) -> str:
        """See the port."""
        return "git"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """See the port. Commits carry the artifacts commit.txt, new.pack and new.idx (RC-77)."""
        if call.op in REMOTE_OPS:
            return await self._remote.call(call, context)
        if call.op == "open_change_request":
            check_branch(str(call.args["branch"]), context)
            return await open_change(self._change_target, call, context)
        if call.op not in _LOCAL:
            raise ToolFailed(f"git has no operation {call.op!r}", op=call.op)
        if context.repository is None:
            return ToolOutcome(outcome="failed", reason="no_repository", text="this call is about no repository")
        result = await run_once(self._sandbox, await self._spec(call, context, context.repository), context)
        answer = _answer(result, await printed(result, self._blobs))
        if answer is None:
            return await outcome_of(result, context, self._blobs)
        outcome = await outcome_of(result, context, self._blobs, content=answer["data"], text=str(answer["text"]))
        return outcome.model_copy(update={"reason": _REASONS.get(result.exit_code or 0, outcome.reason)})

    async def _spec(self, call: ToolCall, context: ToolContext, repository: str) -> RunSpec:
        request: dict[str, Any] = {"op": call.op, **call.args}
        if call.op in _COMMITTING:
            request |= _author(context)
        if call.op == "merge_candidate":
            request["base"] = await self._base(context)
        blob = await self._blobs.put(canonical_json(request))
        return RunSpec(
            argv=("python", "/fleet/inside/git_tool.py", "--out", f"/workspace/{_FOLDER}"),
            tree=context.tree,
            mounts=(RepoMount(repo=repository), BlobMount(blob=blob, target="/inputs/git.json")),
            limits=limits_of(context),
            artifacts=_PACK if call.op in _COMMITTING else (),
            keep_tree=call.op in _NEW_TREE,
            discard=(_FOLDER,),
            toolchain=context.toolchain,
        )

    async def _base(self, context: ToolContext) -> dict[str, str | None]:
        """Path -> git's id of what each changed file was before the task."""
        old = await read_tree(self._blobs, context.base_tree) if context.base_tree else {}
        new = await read_tree(self._blobs, context.tree) if context.tree else {}
        paths = [change.path for change in changed_paths(old, new)]
        return {path: await self._git_id(old.get(path)) for path in paths}

    async def _git_id(self, entry: FileEntry | None) -> str | None:
        if entry is None or entry.mode == "160000":
            return None
        data = await self._blobs.get(entry.blob)
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _author(context: ToolContext) -> dict[str, str]:
    name = str(context.principal).partition(":")[2]
    return {"author_name": name, "author_email": f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}@fleet.invalid"}


def _answer(result: RunResult, text: str) -> dict[str, JsonValue] | None:
    """What the script said; None when it did not come to say anything."""
    if result.status not in ("passed", "failed") or result.exit_code not in (0, *_REASONS):
        return None
    try:
        answer: Any = json.loads(text)
        return {"text": str(answer["text"]), "data": answer["data"]}
    except (ValueError, KeyError, TypeError):
        return None
