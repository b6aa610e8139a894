/** The timeline: one plain sentence for each event. */

import { type Body, type Envelope, number, record, records, text, texts } from "./envelope.ts";
import { count } from "./format.ts";
import type { StoryFeed, TimelineEntry } from "./story.ts";

/** The line of the timeline for this event, in the story as it is after it. */
export function entry(feed: StoryFeed, event: Envelope): TimelineEntry {
  const [line, tone] = told(feed, event.type, event.body);
  const isPerson = event.actor.startsWith("user:");
  return {
    version: event.version,
    ts: event.ts,
    actor: event.actor,
    type: event.type,
    hash: event.hash,
    line,
    tone: tone ?? (isPerson ? "person" : "plain"),
  };
}

type Told = readonly [line: string, tone?: TimelineEntry["tone"]];

const SENTENCES: Readonly<Record<string, (feed: StoryFeed, body: Body) => Told>> = {
  StoryCreated: () => ["The story was written"],
  StoryEdited: () => ["The text of the story was changed"],
  StoryScored: (_, body) => [`Readiness scored: ${text(body, "score")} of 100 points`, body["dor_ok"] === true ? "good" : "plain"],
  StoryStarted: () => ["Work was started"],
  StoryTransitioned: (_, body) => [
    `${text(body, "from")} → ${text(body, "to")}`,
    body["loopback"] === true ? "bad" : "good",
  ],
  OwnershipTaken: () => ["A council took the story over"],
  StoryParked: (_, body) => [`Parked: ${text(body, "detail") || text(body, "cause")}`, "bad"],
  StoryUnparked: (_, body) => [`Goes on: ${text(body, "note")}`, "person"],
  StoryClosed: () => ["The story is closed", "good"],
  StoryPaused: (_, body) => [`Paused: ${text(body, "reason")}`, "bad"],
  StoryResumed: () => ["Resumed", "person"],
  StoryCancelled: (_, body) => [`Cancelled: ${text(body, "reason")}`, "bad"],
  DelegationRevoked: (_, body) => [`${gateName(text(body, "gate"))} is delegated no more${because(body)}`],
  TaskEstimated: (feed, body) => [
    `${feed.tasks[text(body, "task_id")]?.title ?? "A task"}: ${count(number(body, "points"), "point")}${body["converged"] === false ? ", values far apart" : ""}`,
  ],
  QuestionRaised: (_, body) => [`Question: ${text(body, "text")}`],
  QuestionAnswered: (_, body) => [`Answer: ${text(body, "answer")}`, "person"],
  TaskAdded: (_, body) => [`Task planned: ${text(record(body, "task"), "title")}`],
  TaskTransitioned: (feed, body) => [
    `${feed.tasks[text(body, "task_id")]?.title ?? "Task"}: ${words(text(body, "to"))}`,
    text(body, "action").startsWith("REJECT") ? "bad" : undefined,
  ] as Told,
  TaskClaimed: (feed, body) => [`${nameOf(text(body, "principal"))} holds ${feed.tasks[text(body, "task_id")]?.title ?? "a task"}`],
  TaskClaimReleased: (feed, body) => [`${nameOf(text(body, "principal"))} ${RELEASED[text(body, "reason")] ?? "gave back"} ${feed.tasks[text(body, "task_id")]?.title ?? "a task"}`],
  StepStarted: (_, body) => [`${words(text(body, "as_role"))} starts ${words(text(body, "tool"))} ${words(text(body, "op"))}`],
  StepFinished: (feed, body) => {
    const step = feed.steps[text(body, "step_id")];
    const outcome = text(body, "outcome");
    const what = step ? `${words(step.tool)} ${words(step.op)}` : "Step";
    return [`${what} ${words(outcome)}`, outcome === "succeeded" ? undefined : "bad"] as Told;
  },
  StepOutcomeUnknown: (feed, body) => {
    const step = feed.steps[text(body, "step_id")];
    return [`Nobody knows whether ${step ? `${words(step.tool)} ${words(step.op)}` : "a step"} happened`, "bad"];
  },
  StepResolved: (_, body) => [`A person says that it ${text(body, "outcome") === "happened" ? "happened" : "did not happen"}`, "person"],
  ToolDenied: (_, body) => [`Refused: ${text(body, "tool")} ${text(body, "op")} (${text(body, "reason")})`, "bad"],
  CouncilOpened: (_, body) => [
    `${text(body, "requested_by") ? `${nameOf(text(body, "requested_by"))} asked` : "Opened:"} a council of ${records(body, "roster").length} for ${words(text(body, "output_kind"))}`,
  ],
  CouncilCancelled: (_, body) => [`A council was ended${because(body)}`, "bad"],
  RoundOpened: (_, body) => [`Council: ${words(text(body, "phase"))}, round ${number(body, "round")}`],
  DraftReceived: (_, body) => [`${text(body, "member_id")} delivered a draft`],
  DraftFailed: (_, body) => [`${text(body, "member_id")} gave no usable draft (${words(text(body, "code"))})`, "bad"],
  TestsAuthored: (_, body) => [`${text(body, "author")} wrote ${number(body, "count")} tests`],
  TestsFiltered: (_, body) => [`${texts(body, "kept").length} tests are trusted`],
  EvidenceRecorded: (_, body) => {
    const found = record(body, "evidence");
    const tests = number(found, "trusted_total");
    const line = `A draft was measured: ${records(found, "gates").filter((gate) => gate["ok"] === true).length} of ${records(found, "gates").length} gates`;
    return [tests ? `${line}, ${number(found, "trusted_passed")} of ${tests} tests` : line, found["gates_ok"] === true ? "good" : "bad"];
  },
  CritiqueReceived: (_, body) => [`${text(body, "critic")} wrote a critique`],
  BallotCast: (_, body) => [`${text(body, "voter")} voted${number(body, "attempt") > 1 ? " again, with the drafts in the opposite order" : ""}`],
  BallotRefused: (_, body) => [`A ballot of ${text(body, "voter")} does not count (${text(body, "code")})`, "bad"],
  EstimateCast: (_, body) => [`${text(body, "member_id")} gave a value`],
  CouncilDecided: (_, body) => [concluded(body), text(body, "verdict") === "reject" ? "bad" : "good"],
  CouncilUndecided: (_, body) => [`The council did not decide: ${words(text(body, "reason"))}`, "bad"],
  ApprovalRequested: (_, body) => [`${gateName(text(body, "gate"))} waits for ${text(body, "role").toUpperCase()}`],
  ApprovalGranted: (feed, body) => [
    `${gateName(feed.approvals[text(body, "approval_id")]?.gate ?? "gate")} approved${body["delegated"] === true ? " (delegated)" : ""}`,
    body["delegated"] === true ? "good" : "person",
  ],
  ApprovalRejected: (feed, body) => [
    `${gateName(feed.approvals[text(body, "approval_id")]?.gate ?? "gate")} rejected: ${text(body, "reason")}`,
    "bad",
  ],
  DecisionProposed: (_, body) => [`Decision proposed: ${text(body, "title")}`],
  DecisionAccepted: (feed, body) => [`Decision accepted${titled(feed, body, "decision_id")}`, "good"],
  DecisionRejected: (feed, body) => [`Decision rejected${titled(feed, body, "decision_id")}${because(body)}`, "bad"],
  DecisionSuperseded: (feed, body) => [`Decision replaced${titled(feed, body, "decision_id")}${because(body)}`],
  PlanProposed: (_, body) => [`A plan with ${records(body, "tasks").length} tasks was proposed`],
  PlanAdopted: () => ["The plan was adopted", "good"],
  RestoreRequested: (_, body) => [`Going back to a checkpoint was asked for: ${text(body, "reason")}`, "person"],
  TreeMerged: (_, body) => [
    `${text(body, "restored_from") === "" ? "Merged" : "Went back to a checkpoint:"} ${records(body, "files").length} files`,
  ],
  WorkspaceScored: (_, body) => [
    `Work scored ${text(body, "score")} of 100 points: ${text(body, "verdict")}`,
    text(body, "verdict") === "block" ? "bad" : "good",
  ],
  ContextPackBuilt: (_, body) => [`Context for ${text(body, "as_role")}: ${number(body, "token_count")} tokens`],
  SummaryRecorded: (_, body) => [
    `The history of ${text(body, "as_role") || "the story"} was summed up: ${number(body, "tokens_before")} tokens in ${number(body, "tokens_after")}`,
  ],
  DeploymentRecorded: (_, body) => [
    `Deployment to ${text(body, "environment")}: ${words(text(body, "status"))}`,
    text(body, "status") === "succeeded" ? "good" : "bad",
  ],
  HealthObserved: (_, body) => [
    `${text(body, "environment")} was ${body["ok"] === true ? "healthy" : "not healthy"} for a window`,
    body["ok"] === true ? "good" : "bad",
  ],
  IncidentOpened: (_, body) => [`Incident: ${text(body, "summary")}`, "bad"],
  IncidentClosed: (_, body) => [`The incident is over: ${text(body, "resolution")}`, "good"],
  ReportGenerated: () => ["The report was written"],
  DocsProduced: (_, body) => [`${records(body, "docs").length} documents were written`],
};

const RELEASED: Readonly<Record<string, string>> = { expired: "held too long:", finished: "is done with" };

function concluded(body: Body): string {
  const points = body["estimate"];
  if (typeof points === "number") return `The council estimates ${count(points, "point")}`;
  const verdict = text(body, "verdict");
  if (verdict) return `The council says ${verdict === "approve" ? "yes" : "no"}`;
  return `The council decided by ${text(body, "decided_in") === "P3" ? "evidence" : "ballots"}`;
}

function nameOf(principal: string): string {
  return principal.replace(/^\w+:/, "");
}

function titled(feed: StoryFeed, body: Body, key: string): string {
  const title = feed.decisions[text(body, key)]?.title;
  return title ? `: ${title}` : "";
}

function because(body: Body): string {
  const reason = text(body, "reason");
  return reason ? ` (${reason})` : "";
}

function told(feed: StoryFeed, type: string, body: Body): Told {
  return SENTENCES[type]?.(feed, body) ?? [words(type.replace(/([a-z])([A-Z])/g, "$1_$2"))];
}

/** A technical name as plain words. */
export function words(name: string): string {
  return name.replaceAll("_", " ").toLowerCase();
}

const GATES: Readonly<Record<string, string>> = {
  approve_scope: "Scope",
  approve_plan: "Plan",
  approve_design: "Design",
  task_acceptance: "Work on a task",
  qa_passed: "Quality",
  docs_ready: "Documents",
  review_approved: "Review",
  approve_deploy: "Deployment",
  accept_warning: "Warning",
  raise_budget: "Higher budget",
  council_escalation: "Undecided council",
  unpark: "Go on",
};

/** What a gate is called on the page. */
export function gateName(gate: string): string {
  const known = GATES[gate];
  if (known) return known;
  const plain = words(gate);
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}
