"""Every operation of the interface as a typed method. Written by `python scripts/client.py` from docs/openapi.json."""

# fmt: off
# ruff: noqa: E501

from __future__ import annotations

from typing import Any, Literal

from swe_fleet_client import models as m
from swe_fleet_client.calling import Calling

__all__ = ["Operations"]


class Operations(Calling):
    """One method for each operation; `key` repeats a command, `if_match` guards it."""

    def list_agents(self) -> m.NamedAgentList:
        """The named agents in force, with what they do now."""
        return self._json("GET", "/api/agents")

    def register_agent(self, *, body: m.AgentRequest, key: str | None = None, if_match: str | None = None) -> m.NamedAgentView:
        """Add a seat that councils of its role fill first; how many sit in them stays the same."""
        return self._json("POST", "/api/agents", body=body, key=key, if_match=if_match)

    def unregister_agent(self, agent_id: str, *, body: Any = None, key: str | None = None, if_match: str | None = None) -> m.AgentRemoved:
        """Take a named agent away: no council that opens seats it, and those that are open keep it to their end."""
        return self._json("DELETE", f"/api/agents/{self._part(agent_id)}", body=body, key=key, if_match=if_match)

    def list_approvals(self, *, status: Literal['requested', 'granted', 'rejected', 'expired', 'revoked', 'voided'] | None = None, role: str | None = None, limit: int | None = None, cursor: str | None = None, story_id: str | None = None) -> m.ApprovalList:
        """Gates of all stories, or of one, with everything needed to decide."""
        return self._json("GET", "/api/approvals", query={"status": status, "role": role, "limit": limit, "cursor": cursor, "storyId": story_id})

    def ask_approval(self, *, body: m.AskRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Ask for the approval of a gate, also again after an expiry or a rejection."""
        return self._json("POST", "/api/approvals", body=body, key=key, if_match=if_match)

    def show_approval(self, approval_id: str) -> m.ApprovalCard:
        """One approval."""
        return self._json("GET", f"/api/approvals/{self._part(approval_id)}")

    def grant(self, approval_id: str, *, body: m.GrantRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Say yes; the story goes on at once when nothing else holds it."""
        return self._json("POST", f"/api/approvals/{self._part(approval_id)}/grant", body=body, key=key, if_match=if_match)

    def reject(self, approval_id: str, *, body: m.RejectRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Say no with a reason; with `back` the story goes back at once."""
        return self._json("POST", f"/api/approvals/{self._part(approval_id)}/reject", body=body, key=key, if_match=if_match)

    def revoke(self, approval_id: str, *, body: m.RevokeRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Take back a yes to a tool call before it was used."""
        return self._json("POST", f"/api/approvals/{self._part(approval_id)}/revoke", body=body, key=key, if_match=if_match)

    def artifact(self, digest: str, *, story_id: str) -> bytes:
        """The bytes of an output that a step of the story left."""
        return self._bytes("GET", f"/api/artifacts/{self._part(digest)}", query={"storyId": story_id})

    def checkpoints(self, *, after: int | None = None, before: int | None = None, limit: int | None = None) -> m.CheckpointList:
        """Signed checkpoints in order; with `before` the last ones below that number."""
        return self._json("GET", "/api/audit/checkpoints", query={"after": after, "before": before, "limit": limit})

    def events(self, *, stream: str, from_: int | None = None, to: int | None = None, type: str | None = None, actor: str | None = None, limit: int | None = None) -> m.EnvelopeList:
        """Envelopes of a stream as they are stored, hashes included."""
        return self._json("GET", "/api/audit/events", query={"stream": stream, "from": from_, "to": to, "type": type, "actor": actor, "limit": limit})

    def proof(self, story_id: str, version: int) -> m.Proof:
        """A proof that an event of a story was recorded, to be checked without this fleet."""
        return self._json("GET", f"/api/audit/proof/{self._part(story_id)}/{self._part(version)}")

    def status(self) -> m.AuditStatus:
        """What the last verification by this replica found."""
        return self._json("GET", "/api/audit/status")

    def verify(self, *, body: Any = None, key: str | None = None, if_match: str | None = None) -> m.AuditStatus:
        """Read everything again and check it: 200 with what was found, or 202 while it runs. It records nothing."""
        return self._json("POST", "/api/audit/verify", body=body, key=key, if_match=if_match)

    def list_budgets(self, *, scope: str | None = None) -> m.BudgetList:
        """Limits, used, reserved and left: of `platform` today with its projects, or of `story:<id>`."""
        return self._json("GET", "/api/budgets", query={"scope": scope})

    def set_budget(self, scope: Literal['story', 'task', 'council', 'role'], scope_id: str, *, body: m.LimitsRequest, key: str | None = None, if_match: str | None = None) -> m.BudgetList:
        """Set limits. Lower ones hold at once; higher ones need a person in role po. A story parked for it goes on."""
        return self._json("PUT", f"/api/budgets/{self._part(scope)}/{self._part(scope_id)}", body=body, key=key, if_match=if_match)

    def open_ceremony(self, *, body: m.OpenRequest, key: str | None = None, if_match: str | None = None) -> m.CeremonyView:
        """Prepare a review of stories that nobody works on yet; the councils begin when it is started."""
        return self._json("POST", "/api/ceremonies", body=body, key=key, if_match=if_match)

    def show_ceremony(self, ceremony_id: str) -> m.CeremonyView:
        """One review: what each council said of each story that the caller sees, the estimates, and what was decided."""
        return self._json("GET", f"/api/ceremonies/{self._part(ceremony_id)}")

    def cancel_ceremony(self, ceremony_id: str, *, body: m.CeremonyReason, key: str | None = None, if_match: str | None = None) -> m.CeremonyView:
        """Give a review up, with a reason; what was said in it stays on record."""
        return self._json("POST", f"/api/ceremonies/{self._part(ceremony_id)}/cancel", body=body, key=key, if_match=if_match)

    def complete_ceremony(self, ceremony_id: str, *, body: m.Nothing, key: str | None = None, if_match: str | None = None) -> m.CeremonyView:
        """End a review whose stories are all decided."""
        return self._json("POST", f"/api/ceremonies/{self._part(ceremony_id)}/complete", body=body, key=key, if_match=if_match)

    def start_ceremony(self, ceremony_id: str, *, body: m.Nothing, key: str | None = None, if_match: str | None = None) -> m.CeremonyView:
        """Have the councils review each story and estimate it."""
        return self._json("POST", f"/api/ceremonies/{self._part(ceremony_id)}/start", body=body, key=key, if_match=if_match)

    def choose_stories(self, ceremony_id: str, *, body: m.StoriesRequest, key: str | None = None, if_match: str | None = None) -> m.CeremonyView:
        """Give a review that has not begun other stories."""
        return self._json("POST", f"/api/ceremonies/{self._part(ceremony_id)}/stories", body=body, key=key, if_match=if_match)

    def approve_story(self, ceremony_id: str, story_id: str, *, body: m.ApproveRequest, key: str | None = None, if_match: str | None = None) -> m.CeremonyView:
        """Say yes to a story; to one that is ready this is the consent to its scope."""
        return self._json("POST", f"/api/ceremonies/{self._part(ceremony_id)}/stories/{self._part(story_id)}/approve", body=body, key=key, if_match=if_match)

    def reject_story(self, ceremony_id: str, story_id: str, *, body: m.CeremonyReason, key: str | None = None, if_match: str | None = None) -> m.CeremonyView:
        """Say no to a story, with a reason; its reviews stay."""
        return self._json("POST", f"/api/ceremonies/{self._part(ceremony_id)}/stories/{self._part(story_id)}/reject", body=body, key=key, if_match=if_match)

    def command(self, command_id: str) -> m.CommandView:
        """What came of a queued command."""
        return self._json("GET", f"/api/commands/{self._part(command_id)}")

    def context_stats(self, *, project: list[str] | None = None) -> m.ContextStats:
        """Packs by role and phase, what did not fit, summaries, redactions, the age of the graph, the cache of packs."""
        return self._json("GET", "/api/context/stats", query={"project": project})

    def validate_scope(self, *, body: m.ScopeRequest, key: str | None = None, if_match: str | None = None) -> m.ScopeVerdict:
        """Whether a role may see exactly these scopes in a phase. Nothing is recorded."""
        return self._json("POST", "/api/context/validate-scope", body=body, key=key, if_match=if_match)

    def kept_bundle(self, story_id: str, version: int, digest: str) -> m.RehydrationBundle:
        """A bundle that was kept; each time that it is read it lives on for its time."""
        return self._json("GET", f"/api/context/{self._part(story_id)}/bundles/{self._part(version)}/{self._part(digest)}")

    def change_context(self, story_id: str, *, body: m.ChangeRequest, key: str | None = None, if_match: str | None = None) -> m.ChangeResult:
        """Make, settle and remove decisions, questions and milestones in one append."""
        return self._json("POST", f"/api/context/{self._part(story_id)}/changes", body=body, key=key, if_match=if_match)

    def graph(self, story_id: str, *, depth: int | None = None, limit: int | None = None) -> m.StoryGraph:
        """Nodes and relationships around the story."""
        return self._json("GET", f"/api/context/{self._part(story_id)}/graph", query={"depth": depth, "limit": limit})

    def packs(self, story_id: str) -> m.PackList:
        """What every role sees in every phase, in tokens, without the texts."""
        return self._json("GET", f"/api/context/{self._part(story_id)}/packs")

    def rehydrate(self, story_id: str, *, body: m.RehydrateRequest, key: str | None = None, if_match: str | None = None) -> m.BundleView:
        """What roles need to go on with a story that they know nothing of, from its record alone."""
        return self._json("POST", f"/api/context/{self._part(story_id)}/rehydrate", body=body, key=key, if_match=if_match)

    def pack(self, story_id: str, role: str, phase: str, *, task_id: str | None = None, token_budget: int | None = None, min_version: int | None = None) -> m.PackPage:
        """The context pack of one role in one phase; a `token_budget` takes the place of the one of the role."""
        return self._json("GET", f"/api/context/{self._part(story_id)}/{self._part(role)}/{self._part(phase)}", query={"task_id": task_id, "token_budget": token_budget, "min_version": min_version})

    def list_pools(self) -> m.PoolList:
        """The pools in force, with what their seats do now."""
        return self._json("GET", "/api/council-pools")

    def remove_pool(self, role: str, *, body: Any = None, key: str | None = None, if_match: str | None = None) -> m.PoolRemoved:
        """The role has no pool any more, whoever set it: councils that open from here on have the defaults."""
        return self._json("DELETE", f"/api/council-pools/{self._part(role)}", body=body, key=key, if_match=if_match)

    def show_pool(self, role: str) -> m.PoolView:
        """The pool of one role."""
        return self._json("GET", f"/api/council-pools/{self._part(role)}")

    def set_pool(self, role: str, *, body: m.PoolRequest, key: str | None = None, if_match: str | None = None) -> m.PoolView:
        """Staff the councils of a role that open from here on; those that are open keep their seats."""
        return self._json("PUT", f"/api/council-pools/{self._part(role)}", body=body, key=key, if_match=if_match)

    def list_councils(self, *, status: Literal['PENDING', 'IN_PROGRESS', 'COMPLETED', 'FAILED', 'TIMEOUT', 'CANCELLED'] | None = None, limit: int | None = None, cursor: str | None = None, story_id: str | None = None) -> m.CouncilLineList:
        """Councils of all stories, or of one: the story's own and those on request."""
        return self._json("GET", "/api/councils", query={"status": status, "limit": limit, "cursor": cursor, "storyId": story_id})

    def ask_council(self, *, body: m.CouncilAsk, key: str | None = None, if_match: str | None = None) -> m.CouncilAccepted:
        """Ask for a council about a story: it advises beside the story's own work, and moves nothing."""
        return self._json("POST", "/api/councils", body=body, key=key, if_match=if_match)

    def show_council(self, council_id: str) -> m.CouncilPage:
        """One council with its question, its timeline, what won, the whole record of its outcome and who was against it."""
        return self._json("GET", f"/api/councils/{self._part(council_id)}")

    def cancel_council(self, council_id: str, *, body: m.CouncilReason, key: str | None = None, if_match: str | None = None) -> m.CouncilPage:
        """End a council that is at work. A story whose own council it was is parked until a person lets it go on."""
        return self._json("POST", f"/api/councils/{self._part(council_id)}/cancel", body=body, key=key, if_match=if_match)

    def reject_council(self, council_id: str, *, body: m.CouncilReason, key: str | None = None, if_match: str | None = None) -> m.CouncilAccepted:
        """Send the outcome of a council on request back: a new one is asked the same, and judged by the reason too."""
        return self._json("POST", f"/api/councils/{self._part(council_id)}/reject", body=body, key=key, if_match=if_match)

    def show_decision(self, decision_id: str) -> m.DecisionPage:
        """One decision: who proposed it, why, on what, and who settled it."""
        return self._json("GET", f"/api/decisions/{self._part(decision_id)}")

    def accept_decision(self, decision_id: str, *, body: m.DecisionAcceptRequest, key: str | None = None, if_match: str | None = None) -> m.DecisionPage:
        """Settle it with a yes: from then on it is told to those who work on the story as decided."""
        return self._json("POST", f"/api/decisions/{self._part(decision_id)}/accept", body=body, key=key, if_match=if_match)

    def decision_impact(self, decision_id: str, *, depth: int | None = None, min_version: int | None = None) -> m.Impact:
        """Dependent decisions, tasks that they affect, and files, criteria and runs of those tasks."""
        return self._json("GET", f"/api/decisions/{self._part(decision_id)}/impact", query={"depth": depth, "min_version": min_version})

    def reject_decision(self, decision_id: str, *, body: m.ReasonRequest, key: str | None = None, if_match: str | None = None) -> m.DecisionPage:
        """Settle it with a no; its author may take it back."""
        return self._json("POST", f"/api/decisions/{self._part(decision_id)}/reject", body=body, key=key, if_match=if_match)

    def supersede_decision(self, decision_id: str, *, body: m.SupersedeRequest, key: str | None = None, if_match: str | None = None) -> m.DecisionPage:
        """Put another accepted decision in its place; a plan that was made for the old one is asked about."""
        return self._json("POST", f"/api/decisions/{self._part(decision_id)}/supersede", body=body, key=key, if_match=if_match)

    def list_delegations(self) -> m.DelegationList:
        """The delegations that concern projects of the caller, those that are over too."""
        return self._json("GET", "/api/delegations")

    def grant_delegation(self, *, body: m.DelegationRequest, key: str | None = None, if_match: str | None = None) -> m.DelegationView:
        """Delegate a gate; the same Idempotency-Key delegates it once."""
        return self._json("POST", "/api/delegations", body=body, key=key, if_match=if_match)

    def revoke_delegation(self, delegation_id: str, *, body: Any = None, reason: str | None = None, key: str | None = None, if_match: str | None = None) -> m.DelegationView:
        """Take a delegation back. Gates that wait from here on wait for a person, in stories under way too."""
        return self._json("DELETE", f"/api/delegations/{self._part(delegation_id)}", query={"reason": reason}, body=body, key=key, if_match=if_match)

    def list_environments(self) -> m.EnvironmentList:
        """What runs in each environment, since when, of which story, and whether it answers; for devops and admins."""
        return self._json("GET", "/api/deployments")

    def roll_back_environment(self, environment: str, *, body: m.EndRequest, key: str | None = None, if_match: str | None = None) -> m.EnvironmentView:
        """Let what ran there before run again. A story that is watching what runs now waits for a person."""
        return self._json("POST", f"/api/deployments/{self._part(environment)}/rollback", body=body, key=key, if_match=if_match)

    def stop_environment(self, environment: str, *, body: m.EndRequest, key: str | None = None, if_match: str | None = None) -> m.EnvironmentView:
        """End what runs there; it does not come back. A story that is watching it waits for a person."""
        return self._json("POST", f"/api/deployments/{self._part(environment)}/stop", body=body, key=key, if_match=if_match)

    def dead_letters(self) -> m.LetterList:
        """Work that was set aside, and why."""
        return self._json("GET", "/api/dlq")

    def retry_letter(self, letter_id: str, *, body: Any = None, key: str | None = None, if_match: str | None = None) -> m.LetterView:
        """Try such work again, once its cause is mended."""
        return self._json("POST", f"/api/dlq/{self._part(letter_id)}/retry", body=body, key=key, if_match=if_match)

    def engines(self) -> m.EngineList:
        """Every engine that a run or a policy may name."""
        return self._json("GET", "/api/engines")

    def show_epic(self, epic_id: str) -> m.EpicView:
        """One epic with its stories."""
        return self._json("GET", f"/api/epics/{self._part(epic_id)}")

    def update_epic(self, epic_id: str, *, body: m.EpicPatch, key: str | None = None, if_match: str | None = None) -> m.EpicView:
        """Give fields of an epic new values. Cancelling it cancels its open stories, with the same reason."""
        return self._json("PATCH", f"/api/epics/{self._part(epic_id)}", body=body, key=key, if_match=if_match)

    def history(self, *, stream: str, after: int | None = None, limit: int | None = None) -> m.EventList:
        """The events of a story behind a version; `stream` is its id."""
        return self._json("GET", "/api/events", query={"stream": stream, "after": after, "limit": limit})

    def show_fleet(self) -> m.FleetView:
        """Whether steps may start, and who said that they may not."""
        return self._json("GET", "/api/fleet")

    def pause_fleet(self, *, body: m.PauseRequest, key: str | None = None, if_match: str | None = None) -> m.FleetView:
        """No step starts from here on, in any story or in those of a project; what runs may end."""
        return self._json("POST", "/api/fleet/pause", body=body, key=key, if_match=if_match)

    def resume_fleet(self, *, body: m.ResumeRequest, key: str | None = None, if_match: str | None = None) -> m.FleetView:
        """Stories go on where they stood."""
        return self._json("POST", "/api/fleet/resume", body=body, key=key, if_match=if_match)

    def lifecycles(self) -> m.Definitions:
        """States, transitions, guards and gates of every lifecycle."""
        return self._json("GET", "/api/lifecycles")

    def me(self) -> m.Me:
        """The principal that the token stands for, with its roles and projects."""
        return self._json("GET", "/api/me")

    def policies(self) -> m.PolicyList:
        """The engines of each role, in the order in which they are tried."""
        return self._json("GET", "/api/models/policies")

    def list_stories(self, *, limit: int | None = None, cursor: str | None = None, state: list[str] | None = None, project: list[str] | None = None, epic: list[str] | None = None, disposition: list[Literal['active', 'parked', 'cancelled', 'archived', 'closed']] | None = None, rigor: list[Literal['L0', 'L1', 'L2', 'L3']] | None = None, text: str | None = None) -> m.StoryList:
        """Stories by id, a page at a time; filters are all to be met."""
        return self._json("GET", "/api/planner/stories", query={"limit": limit, "cursor": cursor, "state": state, "project": project, "epic": epic, "disposition": disposition, "rigor": rigor, "text": text})

    def create_story(self, *, body: Any = None, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Create a story; the same Idempotency-Key creates it once."""
        return self._json("POST", "/api/planner/stories", body=body, key=key, if_match=if_match)

    def show_story(self, story_id: str) -> m.StoryView:
        """One story as recorded now; `If-None-Match` with its version gives 304."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}")

    def edit_story(self, story_id: str, *, body: m.EditRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Give fields of a story new values: it is scored again, and consents to the old text end."""
        return self._json("PATCH", f"/api/planner/stories/{self._part(story_id)}", body=body, key=key, if_match=if_match)

    def advice(self, story_id: str) -> m.StoryAdvice:
        """The score, the findings and the proposals for a story as it is."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/advice")

    def decide(self, story_id: str, gate: str, decision: str, *, body: m.DecisionRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Grant or reject a pending approval of this story, by gate or approval id."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/approvals/{self._part(gate)}/{self._part(decision)}", body=body, key=key, if_match=if_match)

    def archive_story(self, story_id: str, *, body: m.ReasonRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Lay a story aside that is closed or cancelled: its bytes are kept, and nothing is done with it any more."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/archive", body=body, key=key, if_match=if_match)

    def blob(self, story_id: str, digest: str) -> bytes:
        """The bytes of whatever an event of the story names: reports, cards, replies, documents."""
        return self._bytes("GET", f"/api/planner/stories/{self._part(story_id)}/blobs/{self._part(digest)}")

    def cancel_story(self, story_id: str, *, body: m.ReasonRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Give the story up; its running steps are ended."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/cancel", body=body, key=key, if_match=if_match)

    def change_of_story(self, story_id: str) -> m.ChangePreview:
        """What the change request of the story says, or would say now, and what became of it."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/change-request")

    def story_checkpoints(self, story_id: str) -> m.TreeCheckpointList:
        """The trees that the story can be set back to, with what each was saved after and where the tasks stood."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/checkpoints")

    def apply(self, story_id: str, *, body: m.ApplyRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Take proposals of the coach into the story; every character of its author stays, in order."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/coach", body=body, key=key, if_match=if_match)

    def councils(self, story_id: str) -> m.CouncilList:
        """The councils with candidates, evidence and votes."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/councils")

    def council(self, story_id: str, council_id: str) -> m.CouncilPage:
        """One council with its timeline and minority report."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/councils/{self._part(council_id)}")

    def decisions(self, story_id: str) -> m.DecisionList:
        """The decisions with rationale and alternatives."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/decisions")

    def propose_decision(self, story_id: str, *, body: m.ProposeRequest, key: str | None = None, if_match: str | None = None) -> m.DecisionPage:
        """Put a choice on record with its reasons; it binds nobody until it is accepted."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/decisions", body=body, key=key, if_match=if_match)

    def critical_decisions(self, story_id: str, *, min_version: int | None = None) -> m.CriticalList:
        """The decisions of the adopted plan, those first that most hangs on."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/decisions/critical", query={"min_version": min_version})

    def decision_cycles(self, story_id: str, *, min_version: int | None = None) -> m.CycleList:
        """Proposed and accepted decisions that depend on each other in a circle."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/decisions/cycles", query={"min_version": min_version})

    def deployments(self, story_id: str) -> m.DeploymentList:
        """Where the story was deployed, how it has been since, and what was seen to be wrong."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/deployments")

    def derive_tasks(self, story_id: str, *, body: Any = None, key: str | None = None, if_match: str | None = None) -> m.DerivationView:
        """Ask the planner for the tasks of the present text once more; while it is asked, the answer names that plan."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/derive-tasks", body=body, key=key, if_match=if_match)

    def diff(self, story_id: str, *, from_: str | None = None, to: str | None = None, path: str | None = None) -> m.DiffView:
        """What differs between two trees of the story; from its base to its present tree unless they are named."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/diff", query={"from": from_, "to": to, "path": path})

    def file(self, story_id: str, *, path: str, tree: str | None = None) -> m.FileView:
        """One file of a tree of the story."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/file", query={"path": path, "tree": tree})

    def files(self, story_id: str, *, tree: str | None = None) -> m.FileList:
        """The files of a tree of the story, the present one unless it is named."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/files", query={"tree": tree})

    def pause_story(self, story_id: str, *, body: m.ReasonRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Hold the story back: no step of it starts from here on; what runs may end."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/pause", body=body, key=key, if_match=if_match)

    def plan(self, story_id: str) -> m.PlanView:
        """The adopted plan with its tasks and layers, and every plan version."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/plan")

    def plan_versions(self, story_id: str) -> m.PlanVersionList:
        """Every plan version: proposed, adopted, superseded or rejected."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/plans")

    def write_plan(self, story_id: str, *, body: m.WritePlanRequest, key: str | None = None, if_match: str | None = None) -> m.PlanPage:
        """Propose a plan version by hand, new or edited; tasks that stay keep their ids."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/plans", body=body, key=key, if_match=if_match)

    def show_plan(self, story_id: str, plan_id: str) -> m.PlanPage:
        """One plan version: tasks, dependencies, layers, critical path, and which tasks may start now."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/plans/{self._part(plan_id)}")

    def adopt_plan(self, story_id: str, plan_id: str, *, body: m.AdoptRequest, key: str | None = None, if_match: str | None = None) -> m.PlanPage:
        """Follow a proposed version, on an accepted decision; the former one is superseded."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/plans/{self._part(plan_id)}/adopt", body=body, key=key, if_match=if_match)

    def reject_plan(self, story_id: str, plan_id: str, *, body: m.RejectPlanRequest, key: str | None = None, if_match: str | None = None) -> m.PlanPage:
        """Do not follow a proposed version."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/plans/{self._part(plan_id)}/reject", body=body, key=key, if_match=if_match)

    def questions(self, story_id: str) -> m.QuestionList:
        """The questions and their answers."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/questions")

    def ask_question(self, story_id: str, *, body: m.QuestionRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Ask something about the story; a blocking question holds its design gate."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/questions", body=body, key=key, if_match=if_match)

    def answer_question(self, story_id: str, question_id: str, *, body: m.AnswerRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Answer a question of the story."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/questions/{self._part(question_id)}/answer", body=body, key=key, if_match=if_match)

    def report(self, story_id: str, *, format: Literal['md', 'html', 'json'] | None = None, as_of: int | None = None) -> bytes:
        """The technical report of the story, at its latest version unless one is named."""
        return self._bytes("GET", f"/api/planner/stories/{self._part(story_id)}/report", query={"format": format, "as_of": as_of})

    def restore_story(self, story_id: str, *, body: m.RestoreRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Set the story tree back to a checkpoint: a new merge undoes what came after, and its tasks are open again."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/restore", body=body, key=key, if_match=if_match)

    def resume_story(self, story_id: str, *, body: m.NoteRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Let a paused story go on."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/resume", body=body, key=key, if_match=if_match)

    def set_rigor(self, story_id: str, *, body: m.RigorRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Work at another rigor level; a lower one needs a person in role po."""
        return self._json("PUT", f"/api/planner/stories/{self._part(story_id)}/rigor", body=body, key=key, if_match=if_match)

    def runs(self, story_id: str, *, limit: int | None = None, cursor: int | None = None) -> m.RunList:
        """Runs and tool calls of the story, the newest first; `cursor` is that of the page before."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/runs", query={"limit": limit, "cursor": cursor})

    def scores(self, story_id: str) -> m.ScoreList:
        """What was measured of each tree: tests, coverage, findings, score and verdict."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/scores")

    def start_story(self, story_id: str, *, body: m.StartRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Start the work on a story (the HTTP form of `fleet run`)."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/start", body=body, key=key, if_match=if_match)

    def step_logs(self, story_id: str, step_id: str, *, from_line: int | None = None, limit: int | None = None, timeout_sec: float | None = None, follow: bool | None = None) -> m.LogList:
        """Lines of any run of a story, its own procedures' too; `follow` streams them until the run ended."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/steps/{self._part(step_id)}/logs", query={"fromLine": from_line, "limit": limit, "timeoutSec": timeout_sec, "follow": follow})

    def resolve_step(self, story_id: str, step_id: str, *, body: m.ResolveRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Say whether a step happened that nobody knows the end of; the story is still to be unparked."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/steps/{self._part(step_id)}/resolve", body=body, key=key, if_match=if_match)

    def tasks(self, story_id: str) -> m.TaskList:
        """The tasks and where each stands."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/tasks")

    def show_task(self, story_id: str, task_id: str) -> m.TaskPage:
        """One task in full: what it asks for, where it stands, how it came there, who has it, what was measured."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/tasks/{self._part(task_id)}")

    def edit_task(self, story_id: str, task_id: str, *, body: m.TaskEditRequest, key: str | None = None, if_match: str | None = None) -> m.TaskPage:
        """Give fields of a task new values that its plan does not fix."""
        return self._json("PATCH", f"/api/planner/stories/{self._part(story_id)}/tasks/{self._part(task_id)}", body=body, key=key, if_match=if_match)

    def act_on_task(self, story_id: str, task_id: str, *, body: m.ActionRequest, key: str | None = None, if_match: str | None = None) -> m.ActionResult:
        """Act in the workflow of a task: claim a review, approve or reject it, send work back, discard the task."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/tasks/{self._part(task_id)}/actions", body=body, key=key, if_match=if_match)

    def claim_task(self, story_id: str, task_id: str, *, body: m.ClaimRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Take a task that is being implemented; operations that write need it."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/tasks/{self._part(task_id)}/claim", body=body, key=key, if_match=if_match)

    def release_task(self, story_id: str, task_id: str, *, body: Any = None, key: str | None = None, if_match: str | None = None) -> m.TaskPage:
        """Give a claimed task back; a po gives back anybody's. A review under way waits for a reviewer again."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/tasks/{self._part(task_id)}/release", body=body, key=key, if_match=if_match)

    def tests_of_story(self, story_id: str) -> m.TestTable:
        """Every test by name with its result in each report, the newest twenty; flaky ones are marked."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/tests")

    def timeline(self, story_id: str, *, after: int | None = None, limit: int | None = None) -> m.TimelineList:
        """Events in words, in order, from a version on."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/timeline", query={"after": after, "limit": limit})

    def transition(self, story_id: str, *, body: m.TransitionRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Fire an event of the story's lifecycle, in one of the caller's roles when `actor` names it."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/transition", body=body, key=key, if_match=if_match)

    def transitions(self, story_id: str) -> m.TransitionList:
        """The events that are legal now, with each guard's value."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/transitions")

    def unpark_story(self, story_id: str, *, body: m.NoteRequest, key: str | None = None, if_match: str | None = None) -> m.StoryView:
        """Let a parked story go on; the note says what was done about the cause."""
        return self._json("POST", f"/api/planner/stories/{self._part(story_id)}/unpark", body=body, key=key, if_match=if_match)

    def workspace_reports(self, story_id: str, *, after: int | None = None, limit: int | None = None) -> m.ReportedList:
        """Every report of the story from a version on, with its summary and the digest of the whole."""
        return self._json("GET", f"/api/planner/stories/{self._part(story_id)}/workspace-reports", query={"after": after, "limit": limit})

    def projects(self) -> m.ProjectSummaryList:
        """The projects that have stories, with what is in them; `pr-default` is always there."""
        return self._json("GET", "/api/projects")

    def create_project(self, *, body: m.ProjectText, key: str | None = None, if_match: str | None = None) -> m.ProjectView:
        """Create a project with its built-in epic; the same Idempotency-Key creates it once."""
        return self._json("POST", "/api/projects", body=body, key=key, if_match=if_match)

    def show_project(self, project_id: str) -> m.ProjectView:
        """One project as recorded now."""
        return self._json("GET", f"/api/projects/{self._part(project_id)}")

    def update_project(self, project_id: str, *, body: m.ProjectChanges, key: str | None = None, if_match: str | None = None) -> m.ProjectView:
        """Give fields of a project new values; `If-Match` names the version that was read."""
        return self._json("PATCH", f"/api/projects/{self._part(project_id)}", body=body, key=key, if_match=if_match)

    def list_discoveries(self, project_id: str) -> m.DiscoveryList:
        """The goals of a project and what was proposed for each."""
        return self._json("GET", f"/api/projects/{self._part(project_id)}/discoveries")

    def discover(self, project_id: str, *, body: m.DiscoverRequest, key: str | None = None, if_match: str | None = None) -> m.DiscoveryView:
        """Have a one-line goal turned into requirements, questions, an epic and stories, all of them proposed."""
        return self._json("POST", f"/api/projects/{self._part(project_id)}/discoveries", body=body, key=key, if_match=if_match)

    def show_discovery(self, project_id: str, discovery_id: str) -> m.DiscoveryView:
        """One proposal as it is now."""
        return self._json("GET", f"/api/projects/{self._part(project_id)}/discoveries/{self._part(discovery_id)}")

    def accept_discovery(self, project_id: str, discovery_id: str, *, body: m.ProposalAcceptRequest, key: str | None = None, if_match: str | None = None) -> m.DiscoveryView:
        """Take a proposal: its epic stands, and its stories are created."""
        return self._json("POST", f"/api/projects/{self._part(project_id)}/discoveries/{self._part(discovery_id)}/accept", body=body, key=key, if_match=if_match)

    def answer_discovery(self, project_id: str, discovery_id: str, *, body: m.AnswersRequest, key: str | None = None, if_match: str | None = None) -> m.DiscoveryView:
        """Answer questions of a proposal: the answers stand in its stories from then on."""
        return self._json("POST", f"/api/projects/{self._part(project_id)}/discoveries/{self._part(discovery_id)}/answers", body=body, key=key, if_match=if_match)

    def reject_discovery(self, project_id: str, discovery_id: str, *, body: m.ProposalRejectRequest, key: str | None = None, if_match: str | None = None) -> m.DiscoveryView:
        """Leave a proposal, with a reason; nothing is created."""
        return self._json("POST", f"/api/projects/{self._part(project_id)}/discoveries/{self._part(discovery_id)}/reject", body=body, key=key, if_match=if_match)

    def discovery_requirements(self, project_id: str, discovery_id: str) -> bytes:
        """The proposal as a document for people: requirements, stories, questions and their answers."""
        return self._bytes("GET", f"/api/projects/{self._part(project_id)}/discoveries/{self._part(discovery_id)}/requirements.md")

    def list_epics(self, project_id: str) -> m.EpicList:
        """The epics of a project with the status that follows from their stories."""
        return self._json("GET", f"/api/projects/{self._part(project_id)}/epics")

    def create_epic(self, project_id: str, *, body: m.EpicText, key: str | None = None, if_match: str | None = None) -> m.EpicView:
        """Create an epic; the same Idempotency-Key creates it once."""
        return self._json("POST", f"/api/projects/{self._part(project_id)}/epics", body=body, key=key, if_match=if_match)

    def metrics_of_project(self, project_id: str, *, days: int | None = None) -> m.ProjectMetrics:
        """Quality and performance across the stories of a project that moved in the last days."""
        return self._json("GET", f"/api/projects/{self._part(project_id)}/metrics", query={"days": days})

    def timeline_of_project(self, project_id: str, *, days: int | None = None, limit: int | None = None) -> m.ProjectTimeline:
        """Milestones of all stories of a project, the newest first."""
        return self._json("GET", f"/api/projects/{self._part(project_id)}/timeline", query={"days": days, "limit": limit})

    def rigor(self) -> m.Definitions:
        """Weights, thresholds and hard gates of every rigor level."""
        return self._json("GET", "/api/rigor")

    def roles(self) -> m.RoleList:
        """What each role may do and call, and what it sees."""
        return self._json("GET", "/api/roles")

    def run_task(self, *, body: m.TaskSpec, key: str | None = None, if_match: str | None = None) -> m.TicketView:
        """Ask for a run; the same Idempotency-Key asks for one run."""
        return self._json("POST", "/api/runs", body=body, key=key, if_match=if_match)

    def show_run(self, run_id: str, *, story_id: str | None = None) -> m.TaskResult:
        """Where one's own run is."""
        return self._json("GET", f"/api/runs/{self._part(run_id)}", query={"storyId": story_id})

    def copy_artifacts(self, run_id: str, *, body: m.CopyRequest, story_id: str | None = None, key: str | None = None, if_match: str | None = None) -> m.ArtifactList:
        """Where the declared outputs of one's own run are. It records nothing, so it needs no key."""
        return self._json("POST", f"/api/runs/{self._part(run_id)}/artifacts", query={"storyId": story_id}, body=body, key=key, if_match=if_match)

    def cancel_run(self, run_id: str, *, body: m.CancelRequest, story_id: str | None = None, key: str | None = None, if_match: str | None = None) -> m.TaskResult:
        """End one's own run; one that is over is returned unchanged."""
        return self._json("POST", f"/api/runs/{self._part(run_id)}/cancel", query={"storyId": story_id}, body=body, key=key, if_match=if_match)

    def run_logs(self, run_id: str, *, from_line: int | None = None, limit: int | None = None, timeout_sec: float | None = None, follow: bool | None = None, story_id: str | None = None) -> m.LogList:
        """Lines of one's own run; `follow` streams them as server-sent events until the run ended, then how it did."""
        return self._json("GET", f"/api/runs/{self._part(run_id)}/logs", query={"fromLine": from_line, "limit": limit, "timeoutSec": timeout_sec, "follow": follow, "storyId": story_id})

    def await_result(self, run_id: str, *, timeout_sec: float | None = None, story_id: str | None = None) -> m.TaskResult:
        """How one's own run ended, or where it is after `timeoutSec` seconds."""
        return self._json("GET", f"/api/runs/{self._part(run_id)}/result", query={"timeoutSec": timeout_sec, "storyId": story_id})

    def refine(self, *, body: m.TextRequest, key: str | None = None, if_match: str | None = None) -> m.RefinedStory:
        """The text with proposals; every character of the author's stays, in order. Nothing is recorded."""
        return self._json("POST", "/api/stories/refine", body=body, key=key, if_match=if_match)

    def score(self, *, body: m.ScoreRequest, key: str | None = None, if_match: str | None = None) -> m.StoryScore:
        """How ready a text is: the score, and a finding for every lost point. Nothing is recorded."""
        return self._json("POST", "/api/stories/score", body=body, key=key, if_match=if_match)

    def suggest(self, *, body: m.GoalRequest, key: str | None = None, if_match: str | None = None) -> m.StorySuggestion:
        """A story from a one-line goal, with placeholders and a question for each. Nothing is recorded."""
        return self._json("POST", "/api/stories/suggest", body=body, key=key, if_match=if_match)

    def consumers(self) -> m.ConsumerList:
        """What waits for each group of consumers, and for how long."""
        return self._json("GET", "/api/streams/consumers")

    def accept_loss(self, stream: str, *, body: m.ReasonRequest, key: str | None = None, if_match: str | None = None) -> m.LossView:
        """Give up what a stream lost for good: it takes events again, and the graph has to be rebuilt afterwards."""
        return self._json("POST", f"/api/streams/{self._part(stream)}/accept-loss", body=body, key=key, if_match=if_match)

    def pending_tasks(self, *, role: str | None = None, overdue: bool | None = None) -> m.WaitingTaskList:
        """Tasks that wait for a role: for its work, or for its review."""
        return self._json("GET", "/api/tasks/pending", query={"role": role, "overdue": overdue})

    def list_tools(self) -> m.ToolList:
        """Every declared operation, with the digest of the active policy."""
        return self._json("GET", "/api/tools")

    def show_invocation(self, invocation_id: str, *, timeout_sec: float | None = None, story_id: str | None = None) -> m.InvocationView:
        """One's own call, at the latest after `timeoutSec` seconds."""
        return self._json("GET", f"/api/tools/invocations/{self._part(invocation_id)}", query={"timeoutSec": timeout_sec, "storyId": story_id})

    def invocation_artifacts(self, invocation_id: str, *, story_id: str | None = None) -> m.ArtifactList:
        """What a finished call kept."""
        return self._json("GET", f"/api/tools/invocations/{self._part(invocation_id)}/artifacts", query={"storyId": story_id})

    def invocation_logs(self, invocation_id: str, *, from_line: int | None = None, limit: int | None = None, story_id: str | None = None) -> m.LogList:
        """What the run behind a finished call printed; no lines for a call without one."""
        return self._json("GET", f"/api/tools/invocations/{self._part(invocation_id)}/logs", query={"fromLine": from_line, "limit": limit, "storyId": story_id})

    def open_session(self, *, body: m.SessionRequest, key: str | None = None, if_match: str | None = None) -> m.SessionView:
        """Open a tool session; the same Idempotency-Key opens it once."""
        return self._json("POST", "/api/tools/sessions", body=body, key=key, if_match=if_match)

    def close_session(self, session_id: str, *, body: Any = None, key: str | None = None, if_match: str | None = None) -> Any:
        """End one's own session."""
        return self._json("DELETE", f"/api/tools/sessions/{self._part(session_id)}", body=body, key=key, if_match=if_match)

    def show_session(self, session_id: str) -> m.SessionView:
        """One's own session."""
        return self._json("GET", f"/api/tools/sessions/{self._part(session_id)}")

    def invoke(self, session_id: str, *, body: m.ToolCall, key: str | None = None, if_match: str | None = None) -> m.InvocationView:
        """Call a tool: its outcome when it ended within 5 seconds (200), else where to ask for it (202)."""
        return self._json("POST", f"/api/tools/sessions/{self._part(session_id)}/invoke", body=body, key=key, if_match=if_match)

    def session_tools(self, session_id: str) -> m.ToolList:
        """The operations of the session, with their typed arguments."""
        return self._json("GET", f"/api/tools/sessions/{self._part(session_id)}/tools")

    def list_usage(self, *, group_by: str | None = None, story_id: str | None = None) -> m.UsageList:
        """Usage by story, task, council, role, engine, model, kind or day: of one story, or of all that the caller sees."""
        return self._json("GET", "/api/usage", query={"group_by": group_by, "storyId": story_id})

    def workflow_stats(self, *, project_id: str | None = None) -> m.WorkflowStats:
        """Stories by state, tasks by state, gates that wait, parked stories by cause; of all projects, or of one."""
        return self._json("GET", "/api/workflow/stats", query={"project_id": project_id})

    def score_report(self, *, body: m.ReportToScore, key: str | None = None, if_match: str | None = None) -> m.WorkspaceScore:
        """What a report would score. Nothing is recorded: recorded scores come from recorded runs alone."""
        return self._json("POST", "/api/workspace/score", body=body, key=key, if_match=if_match)

    def job_logs(self, run_id: str, *, from_line: int | None = None, limit: int | None = None, follow: bool | None = None, story_id: str | None = None) -> list[m.JobLine]:
        """Lines of anybody's run in short form; `follow` streams them."""
        return self._json("GET", f"/api/workspace/{self._part(run_id)}/logs", query={"fromLine": from_line, "limit": limit, "follow": follow, "storyId": story_id})

    def healthz(self) -> dict[str, str]:
        """Whether the front itself lives."""
        return self._json("GET", "/healthz")

    def readyz(self) -> dict[str, str]:
        """Whether the log answers, so that stories can be read and commands queued."""
        return self._json("GET", "/readyz")
