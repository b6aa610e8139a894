"""What a story owes next: a pure function of its state (PL-48, PL-49).

The forward transition of the present state says which guards must become true; each false guard names the work that
makes it true. So one planner serves every lifecycle of config/fsm.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fleet.story.approvals import last_request, pending_consents, subject_of, unanswered_gates, valid_grant
from fleet.story.delegation import delegated_intents
from fleet.story.escalation import escalation_intents, is_asked_again
from fleet.story.guards import SHOWN, GuardContext, current_score, evaluate, shown_criteria
from fleet.story.intents import (
    AdvanceCouncil,
    CheckoutBase,
    CloseStory,
    Deploy,
    DeriveAgain,
    DerivePlan,
    EndCouncil,
    ExpireGate,
    FireTransition,
    GenerateReport,
    Intent,
    LoopBack,
    MeasureTree,
    ObserveHealth,
    OpenDesignCouncil,
    Park,
    ProduceDocs,
    Publish,
    RequestGate,
    RestoreTree,
    RollBack,
)
from fleet.story.lifecycle import FsmConfig, Transition
from fleet.story.ownership import MAX_TAKEOVERS
from fleet.story.plan_tasks import held_reviews, is_orphaned, plan_tasks
from fleet.story.state import StoryState, TaskState

Owed = tuple[Intent, ...]


def plan(state: StoryState, config: FsmConfig, *, now_ms: int) -> Owed:
    """The intents owed now. Empty: the story is over, parked, not started, or waits for a person."""
    if state.closed or state.disposition != "active" or state.start is None or state.is_paused:
        return ()
    if pending_consents(state, now_ms=now_ms):
        return ()  # the step that comes next waits for a person
    owed = _owed(state, config, now_ms)
    # A story that owes nothing was only standing by when its owners died.
    return (_crash_loop(state),) if owed and state.takeovers_without_progress >= MAX_TAKEOVERS else owed


def _crash_loop(state: StoryState) -> Park:
    steps = ", ".join(state.open_steps[:5]) or "none"
    detail = (
        f"{state.takeovers_without_progress} owners in a row ended while they worked on this story and nothing came "
        f"of it; steps under way: {steps}. Look at the logs of the council shards, mend the cause, then run "
        f"`fleet resume {state.story_id}`"
    )
    return Park(cause="crash_loop", detail=detail)


def _owed(state: StoryState, config: FsmConfig, now_ms: int) -> Owed:
    wanted = state.restoration
    # A request that came when the story had just reached its end is too late: what was accepted is delivered.
    if wanted is not None and not config.lifecycles[state.lifecycle].states[state.state].terminal:
        return (RestoreTree(checkpoint_id=wanted.checkpoint_id, number=wanted.number),)
    unanswered = unanswered_gates(state)
    if unanswered and unanswered[0].request.expires_at <= now_ms:
        return (ExpireGate(approval_id=unanswered[0].request.approval_id),)
    if state.base_tree is None:
        return (CheckoutBase(),)
    if state.base_tree not in state.reports:
        return (MeasureTree(tree=state.base_tree),)
    councils = {k: c for k, c in state.councils.items() if c.status == "IN_PROGRESS"}
    running = tuple(EndCouncil(k) if is_orphaned(state, c) else AdvanceCouncil(k) for k, c in councils.items())
    if running:
        return running
    lifecycle = config.lifecycles[state.lifecycle]
    if lifecycle.states[state.state].terminal:
        return _finish(state)
    decision_id = design_decision(state) if state.derivation is not None else None
    if state.derivation is not None and decision_id is not None:
        return (DeriveAgain(plan_id=state.derivation, decision_id=decision_id),)
    forward = next((t for t in lifecycle.legal(state.state) if t.kind != "loopback"), None)
    assert forward is not None, state.state
    return _towards(state, config, forward, now_ms)


def _finish(state: StoryState) -> Owed:
    step = state.steps.get("publish")
    if state.commit != state.base_commit and state.commit is not None and (step is None or step.finished is None):
        return (Publish(commit=state.commit),)
    return (CloseStory(),)


def _towards(state: StoryState, config: FsmConfig, row: Transition, now_ms: int) -> Owed:
    context = GuardContext(config=config, now_ms=now_ms, transition=row)
    results = evaluate(state, context)
    failing = [r.name for r in results if not r.ok]
    if not failing:
        return (FireTransition(row.event),)
    for name in failing:
        if name in _APPROVALS:
            continue
        owed = _WORK[name](state, config, now_ms)
        if owed:
            return owed
        return ()
    return gate_intents(state, config, row.gate or row.event, now_ms=now_ms)


_APPROVALS = frozenset({"po_approved", "qa_signoff", "design_signoff", "review_signoff", "deploy_approved"})


def gate_intents(
    state: StoryState, config: FsmConfig, name: str, *, now_ms: int, task: TaskState | None = None
) -> Owed:
    """Ask for the gate, or let its delegate decide; empty when a person is to decide."""
    subject = subject_of(state, config.gate(state.lifecycle, name), task)
    if subject is None or valid_grant(state, name, subject.digest, now_ms=now_ms):
        return ()
    task_id = task.task.task_id if task else None
    request = last_request(state, name, subject.digest)
    if request is None or request.status in ("expired", "revoked") or request.voided:
        return (RequestGate(gate=name, subject=subject.digest, task_id=task_id),)
    return delegated_intents(state, request, subject, now_ms=now_ms, task_id=task_id)


def _nothing(_s: StoryState, _c: FsmConfig, _n: int) -> Owed:
    return ()


def _plan_work(s: StoryState, c: FsmConfig, now_ms: int) -> Owed:
    if s.plan is not None and s.plan.status != "REJECTED" and s.plan.proposal.content_digest == s.content.digest:
        return ()
    decision_id = design_decision(s)
    if decision_id is not None:
        return (DerivePlan(decision_id=decision_id),)
    councils = [r for r in s.design_councils() if r.opened.subject_digest == s.content.digest]
    if councils and councils[-1].status == "UNDECIDED" and not is_asked_again(s, councils[-1]):
        return escalation_intents(s, councils[-1]) or (
            Park(
                cause="council_undecided", detail=f"the design council ended without a decision: {councils[-1].reason}"
            ),
        )
    return (OpenDesignCouncil(attempt=len(s.design_councils()) + 1),)


def design_decision(s: StoryState) -> str | None:
    """The accepted design that tasks of the present text are derived from, None before there is one."""
    accepted = [
        k
        for k, d in s.decisions.items()
        if d.status == "ACCEPTED" and d.proposed.category == "ARCHITECTURE" and _is_current(s, d.proposed.council_id)
    ]
    return accepted[-1] if accepted else None


def _is_current(s: StoryState, council_id: str | None) -> bool:
    council = s.councils.get(council_id or "")
    return council is None or council.opened.subject_digest == s.content.digest


def _tree_work(s: StoryState, c: FsmConfig, now_ms: int) -> Owed:
    assert s.tree is not None
    is_scored = current_score(s, s.tree, now_ms=now_ms) is not None
    if s.tree not in s.reports or (s.tree in s.scores and not is_scored):
        return (MeasureTree(tree=s.tree),)
    return ()


def _tests_work(s: StoryState, c: FsmConfig, now_ms: int) -> Owed:
    owed = _tree_work(s, c, now_ms)
    if owed or s.tree is None:
        return owed
    score = s.scores.get(s.tree)
    if score is not None and score.verdict == "warn":
        return gate_intents(s, c, "accept_warning", now_ms=now_ms)
    if score is not None and score.verdict == "block" and c.limits.auto_loopback:
        return _back(s, c)
    return ()


def _back(s: StoryState, c: FsmConfig, reason: str = "") -> Owed:
    rows = [t for t in c.lifecycles[s.lifecycle].legal(s.state) if t.kind == "loopback" and "system" in t.by]
    if not rows or s.tree is None:
        return (Park(cause="stuck", detail=f"the tree blocks and state {s.state} has no way back"),)
    if s.loopbacks.get(rows[0].event, 0) >= c.limits.max_loopbacks:
        return (Park(cause="loopback_limit", detail=f"{rows[0].event} was fired {c.limits.max_loopbacks} times"),)
    return (LoopBack(event=rows[0].event, tree=s.tree, reason=reason),)


def _docs_work(s: StoryState, c: FsmConfig, now_ms: int) -> Owed:
    if s.docs is None or s.docs.tree != s.tree:
        return (ProduceDocs(tree=s.tree or ""),)
    owed = _tests_work(s, c, now_ms)
    if owed:
        return owed
    if s.report_version <= s.docs.version:
        return (GenerateReport(after=s.docs.version),)
    return (Park(cause="stuck", detail="the documentation lacks evidence for a criterion"),)


def _criteria_work(s: StoryState, _c: FsmConfig, _n: int) -> Owed:
    missing = [c.ac_id for c in shown_criteria(s, s.tree) if not c.is_settled]
    detail = (
        f"no test shows {', '.join(missing)}: look at the work, then send the story back with a reason, or let a "
        f"criterion pass by its name with `fleet story waive {s.story_id} {missing[0]} --reason TEXT`"
    )
    return (Park(cause="stuck", detail=detail),)


def _deploy_work(s: StoryState, c: FsmConfig, now_ms: int) -> Owed:
    subject = subject_of(s, c.gate(s.lifecycle, "approve_deploy"))
    if subject is None or s.environment is None or s.tree is None:
        return (Park(cause="operator", detail="this story has no environment: it was created where none is declared"),)
    last = s.deployment
    if last is not None and last.tree == s.tree and last.status == "failed" and last.loopbacks == s.gone_back:
        return _back(s, c, f"Deployment to {last.environment} failed: {last.detail}") if c.limits.auto_loopback else ()
    if not valid_grant(s, "approve_deploy", subject.digest, now_ms=now_ms):
        return gate_intents(s, c, "approve_deploy", now_ms=now_ms)
    return (Deploy(environment=s.environment, tree=s.tree, number=len(s.deployments) + 1),)


def _health_work(s: StoryState, c: FsmConfig, _: int) -> Owed:
    last = s.deployment
    if last is None:
        return (Park(cause="stuck", detail="the story is watched, and no deployment of it is on record"),)
    incidents = [i for i in s.open_incidents if i.deployment_id == last.deployment_id]
    if not incidents and last.status == "rolled_back":
        # A person ended it, and then let the story go on.
        return (
            _back(s, c, f"Deployment to {last.environment} was ended: {last.detail}") if c.limits.auto_loopback else ()
        )
    if not incidents:
        return (ObserveHealth(deployment_id=last.deployment_id, number=last.windows + 1),)
    if last.rolls_back:
        return (RollBack(deployment_id=last.deployment_id),)
    return _back(s, c, "; ".join(i.summary for i in incidents)) if c.limits.auto_loopback else ()


_WORK: Mapping[str, Callable[[StoryState, FsmConfig, int], Owed]] = {
    "dor_ok": _nothing,
    "plan_valid": _plan_work,
    "design_complete": _plan_work,
    "all_tasks_done": plan_tasks,
    "builds_passing": _tree_work,
    "tests_passing": _tests_work,
    "docs_complete": _docs_work,
    SHOWN: _criteria_work,
    "no_open_change_requests": _nothing,
    "feedback_given": _nothing,
    "deploy_recorded": _deploy_work,
    "health_ok": _health_work,
}


def waiting_for(state: StoryState, config: FsmConfig, *, now_ms: int) -> str | None:
    """What a person has to do before the story can go on, in words. None when nothing waits for a person."""
    if state.disposition == "parked" and state.park:
        return f"parked ({state.park.cause}): {state.park.detail.rstrip('.')}. {_way_on(state)}"
    if state.closed or state.disposition != "active":
        return None
    if state.is_paused:
        return "paused: resume the story"
    if state.start is None:
        return "start the story"
    if plan(state, config, now_ms=now_ms):
        return None
    pending = [a.request for a in state.approvals.values() if a.status == "requested" and not a.voided]
    if pending:
        return "; ".join(f"gate {r.gate} waits for role {r.role}" for r in pending)
    held = [f"{t.claim.principal} reviews task {t.task.task_id}" for t in held_reviews(state) if t.claim is not None]
    if held:
        return "; ".join(held)
    lifecycle = config.lifecycles[state.lifecycle]
    for row in lifecycle.legal(state.state):
        if row.kind != "loopback":
            results = evaluate(state, GuardContext(config=config, now_ms=now_ms, transition=row))
            return _turned_down(state, config, row.gate or row.event) or (
                "; ".join(f"{r.name}: {r.message}" for r in results if not r.ok) or None
            )
    return None


def _way_on(state: StoryState) -> str:
    """The command with which a parked story goes on: the yes that its park waits for, else that it is resumed."""
    waits = any(
        a.request.gate == "council_escalation" and a.status == "requested" and not a.voided
        for a in state.approvals.values()
    )
    if state.park is not None and state.park.cause == "council_undecided" and waits:
        return f"`fleet story approve {state.story_id} council_escalation` has a new council decide"
    return f"Once that is mended, `fleet resume {state.story_id}` goes on"


def _turned_down(state: StoryState, config: FsmConfig, name: str) -> str | None:
    """What can be done where a person said no at the gate that the story stands at. None where nobody did."""
    subject = subject_of(state, config.gate(state.lifecycle, name)) if name in config.gates else None
    last = last_request(state, name, subject.digest) if subject else None
    if last is None or last.status != "rejected" or last.voided:
        return None
    return (
        f"gate {name} was turned down: change the story, send it back, or ask again with "
        f"`fleet story ask {state.story_id} {name}`"
    )
