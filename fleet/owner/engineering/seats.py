"""Members of councils that work in sessions: who does, what it may use, what it is told, what of its work is judged."""

from __future__ import annotations

from typing import Literal, NamedTuple

from fleet.council.rounds import FRESH_TEMPERATURE
from fleet.engineering.changes import moved
from fleet.engineering.shown import untrusted
from fleet.engineering.terms import SessionTerms, terms_for
from fleet.events.council import RosterMember
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.errors import FleetError, ReplyMalformed
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen
from fleet.models.profiles import USUAL_LINK
from fleet.owner.duties.members import Sitting, request_of, work_of
from fleet.owner.engineering.diffs import tree_diff
from fleet.owner.engineering.evidence_tree import judged_tree
from fleet.owner.engineering.session import Assignment, work_session
from fleet.owner.workbench import Workbench
from fleet.story.sessions.steps import forks_in, session_id_of, session_of
from fleet.trees.port import BlobStore
from fleet.trees.service import file_text, put_whole, read_changes, read_tree
from fleet.trees.tree import Tree, encode_tree
from fleet.workspace.service.workspace import PROTECTED_FROM_AUTHORS, Applied, WorkspaceService

_NO_LIMIT = 1 << 40
_FORKED = 10
"""More draws than a session has repairs."""


class WorkFacts(NamedTuple):
    """What the work of a member rests on: tokens of prompt and reply together, and of the reply."""

    strategy: Literal["draft", "assisted", "session", "cascade"]
    window: int
    output: int
    reason: str = ""
    """Why it has this strategy."""


def terms_of(bench: Workbench, member: RosterMember) -> SessionTerms:
    """The terms of a session of this member that begins now."""
    facts = facts_of(bench, member)
    step = bench.journal.budgeting.limits.step.tokens or _NO_LIMIT
    return terms_for(window=min(facts.window, step), output=facts.output, rigor=bench.state.rigor)


def facts_of(bench: Workbench, member: RosterMember) -> WorkFacts:
    """The engine that is asked first for this member; that of most engines where it is not known any more."""
    models, roles = bench.journal.budgeting.models, bench.journal.policy.policy.roles
    # A council that began with an engine that is not known any more goes on with what most engines hold.
    unknown = WorkFacts("draft", USUAL_LINK.max_context, USUAL_LINK.max_output)
    if models is None:
        return unknown
    role = roles.role(member.role)
    own = member.model_policy == member.role
    named, inherits = (role.model_policy, (role.name, *role.lineage)) if own else (member.model_policy, ())
    try:
        chain = models.chain_for(named, bench.model, inherits=inherits)
        first = chain.entries[0].engine_id
        engine, chosen, probed = models.engine(first), models.strategy_of(first), models.probe_of(first)
    except FleetError:
        return unknown  # who carries the call out says what is wrong with its engines
    # An engine further back in the chain may have to stand in for the first in the middle of a session.
    window = min(link.max_context for link in chain.entries)
    if probed is not None and probed.window and probed.is_smaller:
        window = min(window, probed.window)
    return WorkFacts(chosen.strategy, window, engine.max_output, chosen.reason)


_MAX_PATHS = 300
_RULE_FILES = ("AGENTS.md", "CONTRIBUTING.md")
_RULE_CHARS = 4_000
_MAX_DIFF = 100_000
"""Characters of a diff that stands in a candidate, for those who judge it."""
_MAX_MEASURED = 2_000_000
"""Characters of a diff that is counted in lines: beyond it a candidate is large, however large it is."""


class TreeCandidate(Frozen):
    """What a session left, as the council has it. Equal work has equal bytes, so that it is measured once."""

    tree: Digest
    base: Digest
    """The tree that it is a change of."""
    diff: str
    """For those who judge it; of a long one the beginning."""


def tree_candidate(value: object) -> TreeCandidate | None:
    """The candidate that is a tree; None when it is definitions of one Python file."""
    is_tree = isinstance(value, dict) and "tree" in value
    return TreeCandidate.model_validate(value) if is_tree else None


class Delivered(NamedTuple):
    """A candidate of a session, and the tokens that it took."""

    candidate: Digest
    tokens: int


async def deliver(
    sitting: Sitting,
    member: RosterMember,
    *,
    step: str,
    base: Digest,
    root: Digest | None = None,
    own: str = "",
    temperature: str | None = None,
    draw: int = 0,
) -> Delivered:
    """The candidate that the member worked out, from the files of `base` on.

    Args:
        step: name of the session below its council.
        root: the whole tree over which its trees are told, where that is another one than `base`.
        own: what this session alone is told.

    Raises:
        ReplyMalformed: the session ended without any change, or is a fork that ended before a reply of its own.
    """
    bench = sitting.bench
    forks = [fork.forked.member_id for fork in forks_in(bench.state, sitting.council_id) if fork.forked]
    if member.member_id in forks:
        # Asked as its source was, it would answer as its source did.
        draw, temperature = draw + _FORKED * (1 + forks.index(member.member_id)), temperature or FRESH_TEMPERATURE
    request = await request_of(
        bench,
        sitting.record,
        member,
        "engineer",
        shared=await shared_material(sitting, base),
        own=own,
        temperature=temperature,
        draw=draw,
    )
    given = Assignment(
        step=f"{sitting.council_id}/{step}",
        request=request,
        work=work_of(sitting.record, member, "engineer"),
        base=base,
        root=root,
        terms=terms_of(bench, member),
        is_cut=sitting.is_closing,
    )
    worked = await work_session(bench, given)
    session = session_of(bench.state, session_id_of(bench.state.story_id, given.step))
    if session is not None and session.record.forked is not None and not session.has_worked:
        # Its files are those of another session in the middle of its work, and that one hands in its own.
        why = f"it ended as {worked.reason.value} before its first own reply"
        raise ReplyMalformed(f"the session of {member.member_id} did nothing: {why}")
    assert sitting.opened.subject_digest is not None, "councils on tasks are opened on a tree"
    candidate = await candidate_of(bench, worked.head, sitting.opened.subject_digest)
    if candidate is None:
        why = worked.summary or f"it ended as {worked.reason.value}"
        raise ReplyMalformed(f"the session of {member.member_id} changed nothing: {why[:500]}")
    return Delivered(candidate, worked.tokens)


async def candidate_of(bench: Workbench, head: Digest, base: Digest) -> Digest | None:
    """The blob of the candidate; None when nothing is changed."""
    if head == base:
        return None
    diff = untrusted(await tree_diff(bench.blobs, base, head, chars=_MAX_DIFF))
    # Whole, so that equal work has one digest whatever it began with, and whoever gets it needs no base.
    tree = await put_whole(bench.blobs, head)
    return await bench.blobs.put(canonical_json(TreeCandidate(tree=tree, base=base, diff=diff)))


async def code_of(sitting: Sitting, content: Digest) -> str:
    """What those who judge a candidate are shown of it."""
    value = await sitting.load(content)
    candidate = tree_candidate(value)
    return candidate.diff if candidate else "\n".join(str(edit["content"]).rstrip() for edit in value["edits"])


async def applied(sitting: Sitting, space: WorkspaceService, content: Digest, onto: Digest) -> Applied:
    """The tree that evidence of a candidate is taken of, or why there is none: that of a session, or with its edits."""
    value, bench = await sitting.load(content), sitting.bench
    candidate = tree_candidate(value)
    if candidate is not None:
        return await _applied(bench.blobs, candidate, onto)
    return await space.apply(onto, value["edits"], protect=PROTECTED_FROM_AUTHORS, toolchain=bench.toolchain)


async def _applied(blobs: BlobStore, candidate: TreeCandidate, onto: Digest) -> Applied:
    """The session's changes on `onto`, judged by the tests that were there before.

    What is measured is what is committed: changes of existing tests, and of what decides how work is judged, are not in
    it. Changes that the story's tree has made otherwise meanwhile are problems.
    """
    base, head = await read_tree(blobs, candidate.base), await read_tree(blobs, candidate.tree)
    there = base if candidate.base == onto else await read_tree(blobs, onto)
    on_top = moved(base, head, there)
    if on_top.conflicts:
        named = ", ".join(on_top.conflicts[:10])
        return Applied(tree=None, problems=(f"changed meanwhile by other work: {named}",))
    tree = await blobs.put(encode_tree((await judged_tree(blobs, on_top.tree, there)).tree))
    if tree == onto:
        return Applied(tree=None, problems=("nothing is changed but what its author is judged by",))
    before, after = await read_changes(blobs, onto, tree)
    diff = await tree_diff(blobs, onto, tree, chars=_MAX_MEASURED)
    rows = [line for line in diff.split("\n") if line[:1] in ("+", "-") and line[:4] not in ("+++ ", "--- ")]
    return Applied(
        tree=tree,
        files=tuple(sorted({*before, *after})),
        normal_digest=digest_of_json(_rows(before, after)).hex,
        diff_lines=len(rows),
        added=sum(row[0] == "+" for row in rows),
        removed=sum(row[0] == "-" for row in rows),
        diff=await blobs.put(diff.encode(errors="replace")),
    )


def _rows(before: Tree, after: Tree) -> list[list[str]]:
    """The files that changed, as they are now: equal for equal changes."""
    gone = [[path, "", ""] for path in sorted(set(before) - set(after))]
    return [*gone, *([path, entry.mode, entry.blob] for path, entry in sorted(after.items()))]


async def shared_material(sitting: Sitting, base: Digest) -> str:
    """What all engineers of the council are told: the task, the files there are, and the rules of the house."""
    bench, task_id = sitting.bench, sitting.opened.task_id
    assert task_id is not None, "sessions work on tasks"
    task = bench.state.tasks[task_id]
    tree = await read_tree(bench.blobs, base)
    paths = sorted(tree)
    more = [f"... and {len(paths) - _MAX_PATHS} more; list them with files"] if len(paths) > _MAX_PATHS else []
    parts = [f"Task: {task.task.title}\n{task.task.description}"]
    parts += [f"Rejected before because: {feedback}" for feedback in task.feedback[-2:]]
    parts.append("\n".join(["Files of the repository:", *paths[:_MAX_PATHS], *more]))
    for name in _RULE_FILES:
        text = await file_text(bench.blobs, tree, name, limit=_RULE_CHARS)
        parts += [f"{name}, the rules of this repository:\n{text}"] if text else []
    return "\n\n".join(parts)
