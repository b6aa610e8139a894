"""Guards: pure functions over recorded facts (LC-50..LC-67). Missing evidence is failure (GL-18)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleet.events.story import CriterionWaived, GuardResult
from fleet.events.workspace import CriterionTest, DimensionWaived, WorkspaceScored
from fleet.kernel.ids import Digest
from fleet.kernel.types import is_reason
from fleet.planning.execution import is_plan_complete
from fleet.story.approvals import subject_of, valid_grant
from fleet.story.lifecycle import FsmConfig, Transition
from fleet.story.state import StoryState


@dataclass(frozen=True, slots=True)
class GuardContext:
    """What a guard may look at beside the state: the definitions, the clock's reading, and the command's reason."""

    config: FsmConfig
    now_ms: int
    transition: Transition
    reason: str = ""


Verdict = tuple[bool, str, tuple[str, ...]]
Guard = Callable[[StoryState, GuardContext], Verdict]


def evaluate(state: StoryState, context: GuardContext) -> tuple[GuardResult, ...]:
    """Every guard of the transition in declared order, with value and message (LC-4); unknown ones are false (LC-5)."""
    found: list[GuardResult] = []
    for name in _guards_of(state, context):
        guard = GUARDS.get(name)
        ok, message, evidence = guard(state, context) if guard else (False, f"there is no guard {name!r}", ())
        found.append(GuardResult(name=name, ok=ok, message=message, evidence=evidence))
    return tuple(found)


def _guards_of(state: StoryState, context: GuardContext) -> tuple[str, ...]:
    """Those of the table; no lifecycle leaves out that its criteria are shown before it ends (LC-98)."""
    row, lifecycle = context.transition, context.config.lifecycles[state.lifecycle]
    is_end = row.kind != "loopback" and lifecycle.states[row.to].terminal
    if not is_end or not binds_criteria(state) or SHOWN in row.guards:
        return row.guards
    return (*row.guards, SHOWN)


@dataclass(frozen=True, slots=True)
class ShownCriterion:
    """A criterion of the story, what shows it on one tree, and the waiver of who lets it pass without."""

    ac_id: str
    text: str
    tests: tuple[CriterionTest, ...]
    waiver: CriterionWaived | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the story may end as far as this criterion goes."""
        return bool(self.tests) or self.waiver is not None


def binds_criteria(state: StoryState) -> bool:
    """Whether a test has to show each criterion; not so in stories that were started before."""
    return state.start is not None and state.start.evidence_rules is not None


def shown_criteria(state: StoryState, tree: Digest | None) -> tuple[ShownCriterion, ...]:
    """The criteria in order, with what shows them on the tree; a waiver holds for the text that it names."""
    report = state.reports.get(tree) if tree is not None else None
    bound = (report.criteria if report is not None else None) or {}
    return tuple(
        ShownCriterion(c.ac_id, c.text, bound.get(c.ac_id, ()), _waiver_of(state, c.ac_id, c.text))
        for c in state.content.acceptance_criteria
    )


def _waiver_of(state: StoryState, ac_id: str, text: str) -> CriterionWaived | None:
    waiver = state.waivers.get(ac_id)
    return waiver if waiver is not None and waiver.text == text else None


def held_waivers(state: StoryState, *, now_ms: int) -> tuple[DimensionWaived, ...]:
    """The waivers of dimensions that have not expired (RG-43)."""
    return tuple(w for w in state.waived_dimensions.values() if now_ms < w.expires_at)


def current_score(state: StoryState, tree: Digest | None, *, now_ms: int) -> WorkspaceScored | None:
    """The tree's score under the waivers that hold now, at the story's rigor; None without one."""
    score = state.scores.get(tree) if tree is not None else None
    if score is None or score.rigor != state.rigor:
        return None
    held = {w.approval_id for w in held_waivers(state, now_ms=now_ms)}
    return score if held == set(score.approvals or ()) else None


def words_of_tests(tests: tuple[CriterionTest, ...]) -> str:
    """The tests in words, for people."""
    sources = {"example": "given example", "given": "given test", "independent": "independent test"}
    return ", ".join(f"{sources[t.source]} {t.test}" for t in tests)


def _criteria_shown(s: StoryState, _: GuardContext) -> Verdict:
    if s.start is None:
        return False, "the story is not started", ()
    if not binds_criteria(s):
        return True, "the story was started before criteria were bound to tests", ()
    missing = [c.ac_id for c in shown_criteria(s, s.tree) if not c.is_settled]
    if missing:
        return False, f"not shown by any test: {', '.join(missing)}", ()
    report = s.reports.get(s.tree) if s.tree is not None else None
    return True, "each criterion is shown by a test, or waived by name", (report.run_id,) if report else ()


def _dor_ok(s: StoryState, _: GuardContext) -> Verdict:
    if s.score is None or s.score.content_digest != s.content.digest:
        return False, "the story has no score for its present text", ()
    message = f"readiness score {s.score.score}, needed {s.score.threshold}"
    if not s.score.dor_ok:
        message += "; " + ", ".join(sorted({str(f.code) for f in s.score.findings}))
    return s.score.dor_ok, message, ()


def _granted(s: StoryState, c: GuardContext, name: str) -> Verdict:
    subject = subject_of(s, c.config.gate(s.lifecycle, name))
    if subject is None:
        return False, f"gate {name!r} has nothing to decide about yet", ()
    grant = valid_grant(s, name, subject.digest, now_ms=c.now_ms)
    if grant is None:
        return False, f"no valid approval for gate {name!r}", ()
    return True, f"approved for gate {name!r}", (grant.request.approval_id,)


def _by_gate(s: StoryState, c: GuardContext) -> Verdict:
    return _granted(s, c, c.transition.gate or c.transition.event)


def _plan_valid(s: StoryState, _: GuardContext) -> Verdict:
    if s.plan is None:
        return False, "no plan is adopted", ()
    if s.plan.status == "REJECTED":
        return False, "the plan was turned down, and no other one is adopted", (s.plan.proposal.plan_id,)
    ok = s.plan.proposal.content_digest == s.content.digest
    return (
        ok,
        "the adopted plan fits the text" if ok else "the adopted plan was made for an earlier text",
        (s.plan.proposal.plan_id,),
    )


def _design_complete(s: StoryState, c: GuardContext) -> Verdict:
    ok, message, evidence = _plan_valid(s, c)
    if not ok or s.plan is None:
        return ok, message, evidence
    decided = [k for k, d in s.decisions.items() if d.status == "ACCEPTED" and d.proposed.category == "ARCHITECTURE"]
    covered = {ref for t in s.tasks.values() for ref in t.task.acceptance_refs}
    missing = [a.ac_id for a in s.content.acceptance_criteria if a.ac_id not in covered]
    blocking = [q.question_id for q in s.questions.values() if q.severity == "blocking" and q.answer is None]
    if not decided:
        return False, "no accepted decision of category ARCHITECTURE", ()
    if missing:
        return False, f"no task covers {', '.join(missing)}", ()
    if blocking:
        return False, f"blocking questions are open: {', '.join(blocking)}", tuple(blocking)
    return True, "the design is decided and every criterion has a task", tuple(decided)


def _all_tasks_done(s: StoryState, _: GuardContext) -> Verdict:
    tasks = list(s.tasks.values())
    open_ = [t.task.task_id for t in tasks if not t.is_terminal]
    if not is_plan_complete({t.task.task_id: t.state for t in tasks}):
        return False, f"{len(open_)} of {len(tasks)} tasks are not done", tuple(open_)
    return True, f"all {len(tasks)} tasks are done or cancelled", ()


def _builds_passing(s: StoryState, _: GuardContext) -> Verdict:
    report = s.reports.get(s.tree) if s.tree else None
    if report is None:
        return False, "no workspace report for the present tree", ()
    return report.summary.build_ok is True, f"build of run {report.run_id}", (report.run_id,)


def _tests_passing(s: StoryState, c: GuardContext) -> Verdict:
    score = current_score(s, s.tree, now_ms=c.now_ms)
    if score is None:
        return False, "no score for the present tree at this rigor and under the waivers that hold", ()
    if score.verdict == "pass":
        return True, f"verdict pass with {score.score}", (score.run_id,)
    if score.verdict == "warn" and _granted(s, c, "accept_warning")[0]:
        return True, f"verdict warn with {score.score}, accepted by a person", (score.run_id,)
    return False, f"verdict {score.verdict} with {score.score}", (score.run_id,)


def _qa_signoff(s: StoryState, c: GuardContext) -> Verdict:
    return _granted(s, c, "qa_passed")


def _no_change_requests(s: StoryState, _: GuardContext) -> Verdict:
    open_ = [q.question_id for q in s.questions.values() if q.kind == "change_request" and q.answer is None]
    return not open_, f"{len(open_)} change requests are open", tuple(open_)


def _docs_complete(s: StoryState, c: GuardContext) -> Verdict:
    if s.docs is None or s.docs.tree != s.tree:
        return False, "no documentation for the present tree", ()
    score = s.scores.get(s.docs.tree)
    if score is not None and score.rigor == s.rigor:
        score = current_score(s, s.docs.tree, now_ms=c.now_ms)
    criteria = () if binds_criteria(s) else s.content.acceptance_criteria
    missing = [a.ac_id for a in criteria if not s.docs.criteria.get(a.ac_id)]
    if score is None or score.verdict == "block":
        return False, "the documented tree has no passing score", ()
    if missing:
        return False, f"no evidence is linked to {', '.join(missing)}", ()
    if s.report_version <= s.docs.version:
        return False, "the report is older than the documentation", ()
    return True, "documentation, evidence and report are there", ()


def _feedback(_: StoryState, c: GuardContext) -> Verdict:
    ok = is_reason(c.reason)
    return ok, "a reason is given" if ok else "write a reason of 10 to 4,000 characters", ()


def _deploy_approved(s: StoryState, c: GuardContext) -> Verdict:
    granted = _granted(s, c, "approve_deploy")
    recorded, _, evidence = _deploy_recorded(s, c)
    # Nothing is deployed without a valid approval; one that ran out since has done what it was given for.
    return (True, "approved when it was deployed", evidence) if recorded and not granted[0] else granted


def _deploy_recorded(s: StoryState, _: GuardContext) -> Verdict:
    last = s.deployment
    if last is None or last.tree != s.tree or last.environment != s.environment:
        return False, "no deployment of this tree is recorded", ()
    return last.status == "succeeded", f"deployment {last.deployment_id}: {last.status}", (last.deployment_id,)


def _health_ok(s: StoryState, _: GuardContext) -> Verdict:
    last = s.deployment
    if last is None or last.status != "succeeded":
        return False, "nothing of this story runs in its environment", ()
    if s.open_incidents:
        return False, f"open incidents: {'; '.join(i.summary for i in s.open_incidents)}", (last.deployment_id,)
    seen_s = max(0, last.healthy_to_ms - last.healthy_from_ms) // 1000
    message = f"healthy for {seen_s} s of {last.monitor_s} s in {s.environment}"
    return last.is_healthy, message, (last.deployment_id,)


SHOWN = "criteria_shown"
GUARDS: Mapping[str, Guard] = {
    SHOWN: _criteria_shown,
    "dor_ok": _dor_ok,
    "po_approved": _by_gate,
    "plan_valid": _plan_valid,
    "design_complete": _design_complete,
    "all_tasks_done": _all_tasks_done,
    "builds_passing": _builds_passing,
    "tests_passing": _tests_passing,
    "qa_signoff": _qa_signoff,
    "design_signoff": _by_gate,
    "review_signoff": _by_gate,
    "no_open_change_requests": _no_change_requests,
    "deploy_approved": _deploy_approved,
    "deploy_recorded": _deploy_recorded,
    "health_ok": _health_ok,
    "docs_complete": _docs_complete,
    "feedback_given": _feedback,
}


def passing_tree(state: StoryState, tree: Digest) -> bool:
    """Whether the tree has a score that does not block at the story's rigor."""
    score = state.scores.get(tree)
    return score is not None and score.rigor == state.rigor and score.verdict != "block"
