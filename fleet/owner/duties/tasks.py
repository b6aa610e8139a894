"""Procedures of one task: start, hand over, review, test, merge (LC-100..LC-116)."""

from __future__ import annotations

from fleet.events.task import TaskClaimed, TaskClaimReleased, TaskTransitioned, TreeMerged
from fleet.kernel.errors import ModelError
from fleet.kernel.ids import CommandId, Digest, EntityId, StepId
from fleet.models.chat import AS_LONG_AS_FITS, Sampling
from fleet.models.port import AgentRequest
from fleet.models.replies.replies import review_schema
from fleet.owner.duties.checkpoints import checkpoint
from fleet.owner.duties.procedure import measure, measure_tree, workspace_of
from fleet.owner.duties.texts import pack_text, shown_chars, test_path
from fleet.owner.engineering.independent_tests import tests_to_keep
from fleet.owner.journal.steps import Seat, Work
from fleet.owner.story_repository import staged_repository
from fleet.owner.workbench import Workbench, seat
from fleet.story.guards import current_score
from fleet.story.intents import CommitWork, MeasureTree, MergeTask, ReleaseReview, ReviewTask, StartTask, TestTask
from fleet.story.plan_tasks import REVIEWS, route_task, system_step
from fleet.story.state import TaskState
from fleet.trees.service import is_test, read_changes, unified_diff
from fleet.trees.tree import changed_paths
from fleet.workspace.service.specs import PACK

ARCHITECT = seat("architect")
QA = seat("qa")
_DIFF_PERCENT = 25
"""Of the reviewer's window, for the diff."""
REVIEWER = seat("reviewer", 2)
"""A second opinion; another seat than the delegate of po gates."""


def agent_step(
    task: TaskState,
    who: Seat,
    action: str,
    from_: str,
    to: str,
    *,
    feedback: str | None = None,
    evidence: tuple[str, ...] = (),
) -> TaskTransitioned:
    """A task transition that an agent makes."""
    return TaskTransitioned(
        task_id=task.task.task_id,
        from_=from_,  # pyright: ignore[reportArgumentType]
        action=action,  # pyright: ignore[reportArgumentType]
        to=to,  # pyright: ignore[reportArgumentType]
        actor_type="agent",
        principal=who.principal,
        as_role=who.role,
        feedback=feedback,
        evidence=evidence,
    )


def _claim(bench: Workbench, task_id: EntityId, state: str, who: Seat) -> TaskClaimed:
    ttl_s = bench.rules.fsm.task_workflow.claim_s(state)
    return TaskClaimed(
        task_id=task_id,
        state=state,  # pyright: ignore[reportArgumentType]
        principal=who.principal,
        expires_at=bench.now_ms + ttl_s * 1000,
    )


async def start_task(bench: Workbench, intent: StartTask) -> None:
    """The task is being worked on by its role (LC-100)."""
    task = bench.state.tasks[intent.task_id]
    who = seat(task.task.role)
    await bench.journal.record(
        bench.anew(f"task/{intent.task_id}/start/{task.attempt + 1}"),
        system_step(task.task.task_id, task.state, "ASSIGN_TO_DEVELOPER", "implementing"),
        _claim(bench, task.task.task_id, "implementing", who),
    )


async def commit_work(bench: Workbench, intent: CommitWork) -> None:
    """The council's choice, with the trusted tests beside it, waits for its first review (LC-101, LC-102)."""
    state = bench.state
    task = state.tasks[intent.task_id]
    council = state.councils[intent.council_id]
    chosen = council.chosen
    assert chosen.evidence is not None
    assert chosen.evidence.tree_digest is not None
    who = next(Seat(r.principal, r.role) for r in council.opened.roster if r.member_id == chosen.author)
    tree = await _with_tests(bench, task, intent.council_id, chosen.evidence.tree_digest, who)
    await bench.journal.record(
        f"task/{intent.task_id}/commit/{task.attempt}",
        agent_step(task, who, "COMMIT_CODE", "implementing", "dev_completed", evidence=(tree, intent.council_id)),
        *route_task(bench.rules.fsm, task, "dev_completed"),
        actor=who.principal,
    )


async def _with_tests(bench: Workbench, task: TaskState, council_id: str, tree: Digest, who: Seat) -> Digest:
    text = await tests_to_keep(bench, bench.state.councils[council_id])
    if not text:
        return tree
    work = Work(seat=who, tool="files", op="write", task_id=task.task.task_id, council_id=EntityId(council_id))
    path = await test_path(bench, tree, task.task.title)
    edits = [{"path": path, "mode": "file", "content": text}]
    space = workspace_of(bench, f"task/{task.task.task_id}/tests/{task.attempt}", work)
    applied = await space.apply(tree, edits, toolchain=bench.toolchain)
    return applied.tree if applied.tree is not None else tree


async def review_task(bench: Workbench, intent: ReviewTask) -> None:
    """The architect has approved the work, or sent it back with a reason (LC-103..LC-105)."""
    task = bench.state.tasks[intent.task_id]
    if task.state == "pending_arch_review":
        await bench.journal.record(
            _unused(bench, f"task/{intent.task_id}/claim-review/{intent.attempt}"),
            _claim(bench, task.task.task_id, "arch_reviewing", ARCHITECT),
            agent_step(task, ARCHITECT, "CLAIM_REVIEW", "pending_arch_review", "arch_reviewing"),
            actor=ARCHITECT.principal,
        )
        task = bench.state.tasks[intent.task_id]
    approved, reason = await _verdict(bench, task, intent.attempt, ARCHITECT)
    if not approved:
        # The work reached review with every gate green: one small model's doubt is not enough to throw it away.
        agrees, second = await _verdict(bench, task, intent.attempt, REVIEWER)
        approved, reason = agrees, f"{reason} Second opinion: {second}"[:3900]
    name = f"task/{intent.task_id}/review/{intent.attempt}"
    if approved:
        await bench.journal.record(
            name,
            agent_step(task, ARCHITECT, "APPROVE_DESIGN", "arch_reviewing", "arch_approved", feedback=reason),
            *route_task(bench.rules.fsm, task, "arch_approved"),
            actor=ARCHITECT.principal,
        )
        return
    await bench.journal.record(
        name,
        agent_step(task, ARCHITECT, "REJECT_DESIGN", "arch_reviewing", "arch_rejected", feedback=reason),
        system_step(task.task.task_id, "arch_rejected", "REVISE_CODE", "implementing"),
        actor=ARCHITECT.principal,
    )


def _unused(bench: Workbench, name: str) -> str:
    """The name, or another one when the claim of that name was taken back: then the review is claimed once more."""
    is_used = bench.journal.knows(CommandId(f"{bench.journal.story_id}/{name}"))
    return f"{name}/{bench.state.version}" if is_used else name


async def release_review(bench: Workbench, intent: ReleaseReview) -> None:
    """A person's claim ran out: the task waits for its review again (LC-130)."""
    task = bench.state.tasks[intent.task_id]
    assert task.claim is not None
    await bench.journal.record(
        f"task/{intent.task_id}/expired/{bench.state.version}",
        TaskClaimReleased(task_id=task.task.task_id, principal=task.claim.principal, reason="expired"),
        system_step(task.task.task_id, task.state, "RELEASE_CLAIM", REVIEWS[task.state]),
    )


async def _verdict(bench: Workbench, task: TaskState, attempt: int, who: Seat) -> tuple[bool, str]:
    state = bench.state
    assert state.tree is not None
    assert task.candidate_tree is not None
    changed = await workspace_changes(bench, state.tree, task.candidate_tree)
    diff = await unified_diff(
        bench.blobs, state.tree, task.candidate_tree, paths=[p for p in changed if not is_test(p)]
    )
    most = shown_chars(bench, who.role, percent=_DIFF_PERCENT)
    request = AgentRequest(
        kind="review",
        role=who.role,
        principal=who.principal,
        shared=await pack_text(bench, who.role, "BUILD", None),
        own=f"{_evidence_text(bench, task)}\n\nDiff of task {task.task.title!r}:\n{diff[:most]}",
        sampling=Sampling(temperature="0", max_tokens=AS_LONG_AS_FITS, seed=1),
        model=bench.model,
        json_schema=review_schema([c.ac_id for c in bench.criteria]),
    )
    work = Work(seat=who, tool="model", op="review", task_id=task.task.task_id)
    try:
        answer = await bench.journal.ask(f"task/{task.task.task_id}/review-{attempt}-{who.role}", request, work)
    except ModelError as error:
        if error.retry.value == "later":
            raise
        return False, f"the review could not be read: {error.message}"[:3000]
    broken, reason = str(answer.value["broken_criterion"]), str(answer.value["reason"]).strip() or "no reason was given"
    return broken == "none", reason if broken == "none" else f"{broken} is broken: {reason}"


async def workspace_changes(bench: Workbench, old: Digest, new: Digest) -> list[str]:
    """The paths in which two trees differ."""
    before, after = await read_changes(bench.blobs, old, new)
    return [c.path for c in changed_paths(before, after)]


def _evidence_text(bench: Workbench, task: TaskState) -> str:
    """What was measured on the work: a reviewer judges by this and not by reading alone."""
    for council in reversed(list(bench.state.councils.values())):
        if council.opened.task_id == task.task.task_id and council.winner is not None:
            evidence = council.chosen.evidence
            assert evidence is not None
            gates = ", ".join(f"{g.name} {'passed' if g.ok else 'FAILED'}" for g in evidence.gates)
            return (
                f"Evidence from execution: {gates}. Tests written from the acceptance criteria by somebody else: "
                f"{evidence.trusted_passed} of {evidence.trusted_total} pass."
            )
    return "Evidence from execution: none."


async def test_task(bench: Workbench, intent: TestTask) -> None:
    """QA has measured the merge candidate and approved it, or sent it back with the findings (LC-108..LC-111)."""
    task = bench.state.tasks[intent.task_id]
    assert task.candidate_tree is not None
    if task.state == "pending_qa":
        await bench.journal.record(
            _unused(bench, f"task/{intent.task_id}/claim-testing/{intent.attempt}"),
            _claim(bench, task.task.task_id, "qa_testing", QA),
            agent_step(task, QA, "CLAIM_TESTING", "pending_qa", "qa_testing"),
            actor=QA.principal,
        )
        task = bench.state.tasks[intent.task_id]
    tree = task.candidate_tree
    assert tree is not None
    prefix = f"task/{intent.task_id}/test/{intent.attempt}"
    if tree not in bench.state.scores:
        await measure(bench, tree, prefix=prefix, task_id=task.task.task_id)
    elif current_score(bench.state, tree, now_ms=bench.now_ms) is None:
        await measure_tree(bench, MeasureTree(tree=tree))
    score = bench.state.scores[tree]
    if score.verdict != "block":
        await bench.journal.record(
            f"{prefix}/verdict",
            agent_step(task, QA, "APPROVE_TESTS", "qa_testing", "qa_passed", evidence=(score.run_id,)),
            *route_task(bench.rules.fsm, task, "qa_passed"),
            actor=QA.principal,
        )
        return
    findings = "; ".join(score.reasons) or f"verdict block with {score.score}"
    await bench.journal.record(
        f"{prefix}/verdict",
        agent_step(
            task, QA, "REJECT_TESTS", "qa_testing", "qa_failed", feedback=findings[:3900], evidence=(score.run_id,)
        ),
        system_step(task.task.task_id, "qa_failed", "REVISE_CODE", "implementing"),
        actor=QA.principal,
    )


async def merge_task(bench: Workbench, intent: MergeTask) -> None:
    """The tested candidate is the story tree, with a commit of its own (PL-42)."""
    task = bench.state.tasks[intent.task_id]
    assert task.candidate_tree is not None
    assert task.author is not None
    who = Seat(task.author, task.task.role)
    merged = await commit_tree(
        bench,
        task.candidate_tree,
        prefix=f"merge/{intent.task_id}/{intent.attempt}",
        message=f"{task.task.title}\n\n{task.task.description[:500]}\n\nStory: {bench.state.story_id}",
        who=who,
        task_id=task.task.task_id,
    )
    name = f"merge/{intent.task_id}/{intent.attempt}/merged"
    plan_id, done = task.task.plan_id, task.task.task_id
    await bench.journal.record(
        name,
        merged,
        system_step(done, "po_approved", "AUTO_COMPLETE", "done", evidence=(merged.result_digest,)),
        checkpoint(bench, name, merged, plan_id=plan_id, note=f"after {task.task.title}", done=done),
    )


async def commit_tree(
    bench: Workbench, tree: Digest, *, prefix: str, message: str, who: Seat, task_id: EntityId | None
) -> TreeMerged:
    """The commit of this tree on top of the story's last one, made inside the sandbox."""
    state = bench.state
    assert state.start is not None
    assert state.tree is not None
    assert state.commit is not None
    staged = await staged_repository(bench)
    assert staged is not None
    space = workspace_of(bench, prefix, Work(seat=who, tool="git", op="merge_candidate", task_id=task_id))
    commit = await space.commit(
        tree,
        staged,
        parent=state.commit,
        previous=last_packs(state, before=prefix),
        message=message,
        author=bench.journal.policy.policy.commits.author or who.principal.split(":", 1)[1],
        date_s=state.created_ms // 1000,
        toolchain=bench.toolchain,
    )
    return TreeMerged(
        task_id=task_id,
        base_digest=state.tree,
        task_tree_digest=tree,
        result_digest=tree,
        commit=commit.commit,
        files=tuple(c.model_dump() for c in await space.changes(state.tree, tree)),  # pyright: ignore[reportArgumentType]
        step_id=_committed_by(bench, prefix),
    )


def _committed_by(bench: Workbench, prefix: str) -> StepId | None:
    """The run below `prefix` that made a commit."""
    runs = ((name, step.finished) for name, step in bench.state.steps.items() if name.startswith(f"{prefix}/"))
    made = (name for name, end in runs if end is not None and any(one.path == PACK for one in end.artifacts))
    return next((StepId(name) for name in made), None)


def last_packs(state: object, *, before: str) -> tuple[Digest, ...]:
    """The pack that holds everything committed since the base, none before the first merge.

    Steps below `before` are left out: a commit that is asked for again after a crash must be the same request.
    """
    from fleet.story.state import StoryState

    assert isinstance(state, StoryState)
    digests: tuple[Digest, ...] = ()
    for step_id, step in state.steps.items():
        for artifact in step.finished.artifacts if step.finished and not step_id.startswith(f"{before}/") else ():
            if artifact.path == PACK:
                digests = (artifact.artifact_digest,)
    return digests
