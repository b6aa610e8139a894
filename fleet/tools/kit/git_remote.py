"""Tool `git`, operations that reach another machine: refs, one branch, a push; each a run of its own (RT-42, RT-58).

Such a run reaches the host of its repository alone, has the secret that the policy names for it, and sees no workspace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from fleet.kernel.errors import PolicyDenied
from fleet.policy.commands.git import GitAddress, GitTarget, git_target, parse_git_address
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import Grantee, Limits, RunResult, RunSpec
from fleet.tools.kit.parts import ToolParts
from fleet.tools.kit.runs import limits_of, outcome_of, printed, run_once
from fleet.tools.port import ToolContext
from fleet.workspace.service.repository_specs import (
    EXIT_AGAIN,
    EXIT_NO_PERMISSION,
    EXIT_TOO_LARGE,
    fetch_spec,
    push_spec,
)

REMOTE_OPS = frozenset({"ls_remote", "fetch", "push_branch"})
_MAX_PACK = 512 << 20
_REASONS: Mapping[int, str] = {
    1: "refused",
    2: "bad_input",
    EXIT_TOO_LARGE: "too_large",
    EXIT_AGAIN: "unreachable",
    EXIT_NO_PERMISSION: "no_permission",
}


class RemoteGit:
    """Carries out the operations of REMOTE_OPS."""

    def __init__(self, parts: ToolParts) -> None:
        self._sandbox, self._blobs, self._targets = parts.sandbox, parts.blobs, parts.targets.git

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """What the other machine said. That it refuses, or does not answer, is an outcome with a reason of its own.

        Raises:
            PolicyDenied: the repository is not listed, or the branch is another story's.
            InvalidInput: the address is none that can be reached.
        """
        address = parse_git_address(str(call.args["url"]))
        target = self._target(address)
        if call.op == "push_branch":
            return await self._push(call, context, address, target)
        spec = fetch_spec(
            address,
            target,
            ref=str(call.args["branch"]) if call.op == "fetch" else None,
            is_listing=call.op == "ls_remote",
            grantee=Grantee(role=context.role, tool="git", op=call.op),
            beside=context.repository,
            limits=_limits(context),
            toolchain=context.toolchain,
        )
        result, text = await self._run(spec, context)
        answer = _answer(text)
        if answer is None:
            return _named(await outcome_of(result, context, self._blobs), result)
        told, data = answer
        return _named(await outcome_of(result, context, self._blobs, content=data, text=told), result)

    async def _push(self, call: ToolCall, context: ToolContext, address: GitAddress, target: GitTarget) -> ToolOutcome:
        branch, commit = str(call.args["branch"]), str(call.args["commit"])
        check_branch(branch, context)
        if context.repository is None:
            return ToolOutcome(outcome="failed", reason="no_repository", text="this call is about no repository")
        old = call.args.get("expected_old")
        spec = push_spec(
            context.repository,
            context.packs,
            address=address,
            target=target,
            branch=branch,
            commit=commit,
            expected_old=str(old) if old else None,
            role=context.role,
            limits=_limits(context),
        )
        result, text = await self._run(spec, context)
        content: JsonValue = {"branch": branch, "commit": commit, "url": address.url}
        content = content if result.exit_code == 0 else None
        return _named(await outcome_of(result, context, self._blobs, content=content, text=text), result)

    async def _run(self, spec: RunSpec, context: ToolContext) -> tuple[RunResult, str]:
        result = await run_once(self._sandbox, spec, context)
        return result, await printed(result, self._blobs)

    def _target(self, address: GitAddress) -> GitTarget:
        target = git_target(self._targets, address)
        if target is None:
            raise PolicyDenied(f"{address.url} is no listed repository", rule_id="target_not_listed", url=address.url)
        return target


def check_branch(branch: str, context: ToolContext) -> None:
    """A story offers its own branch. Another one takes a person's yes to exactly this call, which rules ask for."""
    own = f"fleet/{context.story_id}"
    if branch != own and context.obligations.consumes is None:
        raise PolicyDenied(
            f"{branch!r} is not the branch of this story, which is {own!r}: name that one",
            rule_id="branch_not_own",
            branch=branch,
        )


def _limits(context: ToolContext) -> Limits:
    limits = limits_of(context)
    return limits.model_copy(update={"file_bytes": _MAX_PACK})


def _answer(text: str) -> tuple[str, Any] | None:
    try:
        answer: Any = json.loads(text)
        return str(answer["text"]), answer["data"]
    except (ValueError, KeyError, TypeError):
        return None


def _named(outcome: ToolOutcome, result: RunResult) -> ToolOutcome:
    reason = _REASONS.get(result.exit_code or 0) if result.status == "failed" else None
    return outcome.model_copy(update={"reason": reason}) if reason else outcome
