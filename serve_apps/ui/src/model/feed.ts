/** A story as its events tell it: a pure fold, so that the page shows what is recorded and nothing else. */

import { type Body, type Envelope, number, record, text, texts } from "./envelope.ts";
import type { Approval, Council, Decision, StoryFeed, Task } from "./story.ts";
import { entry } from "./told.ts";
import { asked, ballotOf, criteriaOf, delegationsOf, draftOf, findingsOf, finishedStep, linksOf, measured, mergeOf, numbers, openedCouncil, packOf, proposed, reportOf, requested, scoreOf, startedStep } from "./values.ts";

export * from "./story.ts";
export * from "./sums.ts";
export { gateName, words } from "./told.ts";
export { findingsOf } from "./values.ts";

export type Arrival = "next" | "repeat" | "gap";

/** How an event stands to what was seen: only the very next version may be applied (AP-102). */
export function arrival(seen: number, version: number): Arrival {
  return version === seen + 1 ? "next" : version <= seen ? "repeat" : "gap";
}

/** The story after this event; an event that was seen, or that comes too early, changes nothing. */
export function reduce(feed: StoryFeed, event: Envelope): StoryFeed {
  if (arrival(feed.version, event.version) !== "next") return feed;
  const fold = FOLDS[event.type];
  const next = fold ? { ...feed, ...fold(feed, event.body, event) } : feed;
  return { ...next, version: event.version, timeline: [...feed.timeline, entry(next, event)] };
}

/** The story as it is for somebody to whom what lies before this version is not shown. */
export function passing(feed: StoryFeed, version: number): StoryFeed {
  return { ...feed, version: Math.max(feed.version, version - 1) };
}

/** The story after all of these events. */
export function reduceAll(feed: StoryFeed, events: readonly Envelope[]): StoryFeed {
  return events.reduce(reduce, feed);
}

type Fold = (feed: StoryFeed, body: Body, event: Envelope) => Partial<StoryFeed>;

const FOLDS: Readonly<Record<string, Fold>> = {
  StoryCreated: (_, body) => ({
    title: text(body, "title"),
    description: text(body, "description"),
    criteria: criteriaOf(body),
    rigor: text(body, "rigor"),
    lifecycle: text(body, "lifecycle"),
  }),
  StoryEdited: (feed, body) => {
    const changes = record(body, "changes");
    return {
      title: text(changes, "title") || feed.title,
      description: "description" in changes ? text(changes, "description") : feed.description,
      criteria: "acceptance_criteria" in changes ? criteriaOf(changes) : feed.criteria,
    };
  },
  StoryScored: (_, body) => ({
    readiness: { score: text(body, "score"), ok: body["dor_ok"] === true, findings: findingsOf(body) },
  }),
  StoryStarted: (_, body) => ({ started: true, repo: text(record(body, "repo"), "url"), model: text(body, "model"), delegations: delegationsOf(body) }),
  DelegationRevoked: (feed, body) => ({
    delegations: feed.delegations.map((one) => (one.id === text(body, "delegation_id") ? { ...one, ended: text(body, "reason") || "It was taken back." } : one)),
  }),
  StoryTransitioned: (feed, body, event) => ({
    state: text(body, "to"),
    transitions: [...feed.transitions, { from: text(body, "from"), to: text(body, "to"), ts: event.ts }],
    ...(body["loopback"] === true ? { approvals: voided(feed, event, () => true) } : {}),
  }),
  StoryParked: (_, body) => ({ parked: text(body, "detail") || text(body, "cause") }),
  StoryUnparked: () => ({ parked: "" }),
  StoryPaused: (feed, body) => ({ paused: text(body, "scope") !== "task" || feed.paused }),
  StoryResumed: (feed, body) => ({ paused: text(body, "scope") === "task" && feed.paused }),
  StoryCancelled: () => ({ cancelled: true }),
  QuestionRaised: (feed, body) => ({
    questions: { ...feed.questions, [text(body, "question_id")]: asked(body) },
  }),
  QuestionAnswered: (feed, body) => ({
    questions: changed(feed.questions, text(body, "question_id"), (found) => ({
      ...found,
      answer: text(body, "answer"),
      answeredBy: text(body, "answered_by"),
    })),
  }),
  StoryClosed: (feed, body) => ({ closed: true, state: text(body, "final_state") || feed.state }),
  RigorChanged: (_, body) => ({ rigor: text(body, "to") }),
  TaskAdded: (feed, body, event) => ({ tasks: withTask(feed, record(body, "task"), event) }),
  TaskTransitioned: (feed, body, event) =>
    task(feed, body, (found) => ({
      state: text(body, "to"),
      feedback: text(body, "feedback") ? [...found.feedback, text(body, "feedback")] : found.feedback,
      author: AUTHORED[text(body, "action")]?.(body) ?? found.author,
      entered: { ...found.entered, [text(body, "to")]: Date.parse(event.ts) },
    })),
  TaskClaimed: (feed, body) => task(feed, body, () => ({ claim: { principal: text(body, "principal"), expiresAt: number(body, "expires_at") } })),
  TaskClaimReleased: (feed, body) => task(feed, body, (found) => ({ claim: found.claim?.principal === text(body, "principal") ? null : found.claim })),
  TaskUpdated: (feed, body) => task(feed, body, () => ({})),
  StepStarted: (feed, body, event) => ({ steps: { ...feed.steps, [text(body, "step_id")]: startedStep(body, event) } }),
  StepFinished: (feed, body, event) => ({
    steps: changed(feed.steps, text(body, "step_id"), (step) => finishedStep(step, body, event)),
  }),
  StepOutcomeUnknown: (feed, body) => ({
    steps: changed(feed.steps, text(body, "step_id"), (step) => ({ ...step, outcome: "unknown" })),
  }),
  StepResolved: (feed, body) => ({
    steps: changed(feed.steps, text(body, "step_id"), (step) => ({ ...step, outcome: text(body, "outcome") })),
  }),
  CouncilOpened: (feed, body) => ({ councils: { ...feed.councils, [text(body, "council_id")]: openedCouncil(body) } }),
  RoundOpened: (feed, body) =>
    council(feed, body, () => ({ phase: text(body, "phase"), round: number(body, "round"), heard: [] })),
  EstimateCast: (feed, body) => council(feed, body, (found) => ({ heard: [...found.heard, text(body, "member_id")] })),
  DraftReceived: (feed, body) =>
    council(feed, body, (found) => ({ candidates: [...found.candidates, draftOf(body)] })),
  DraftFailed: (feed, body) =>
    council(feed, body, (found) => ({
      failed: [...found.failed, { member: text(body, "member_id"), code: text(body, "code") }],
    })),
  TestsFiltered: (feed, body) =>
    council(feed, body, () => ({ testsTrusted: body["trusted"] === true, testsKept: texts(body, "kept").length })),
  EvidenceRecorded: (feed, body) =>
    council(feed, body, (found) => ({ candidates: measured(found.candidates, record(body, "evidence")) })),
  CritiqueReceived: (feed, body) => council(feed, body, (found) => ({ critiques: found.critiques + 1 })),
  BallotCast: (feed, body) =>
    council(feed, body, (found) => ({ ballots: [...found.ballots, ballotOf(body, "")] })),
  BallotRefused: (feed, body) =>
    council(feed, body, (found) => ({ ballots: [...found.ballots, ballotOf(body, text(body, "code"))], heard: [...found.heard, text(body, "voter")] })),
  CouncilDecided: (feed, body) =>
    council(feed, body, () => ({
      outcome: "decided",
      phase: "",
      decidedIn: text(body, "decided_in"),
      winner: text(body, "winner"),
      verdict: text(body, "verdict"),
      estimate: typeof body["estimate"] === "number" ? body["estimate"] : null,
      minorityDigest: text(body, "minority_report_digest"),
      counterfactuals: record(body, "counterfactuals"),
      tokens: numbers(record(body, "tokens")),
    })),
  CouncilUndecided: (feed, body) =>
    council(feed, body, () => ({
      outcome: "undecided",
      phase: "",
      reason: text(body, "reason"),
      minorityDigest: text(body, "minority_report_digest"),
    })),
  CouncilCancelled: (feed, body) =>
    council(feed, body, () => ({ outcome: "cancelled", phase: "", reason: text(body, "reason") })),
  ApprovalRequested: (feed, body, event) => ({
    approvals: { ...feed.approvals, [text(body, "approval_id")]: requested(body, event) },
  }),
  ApprovalGranted: (feed, body, event) => decided(feed, body, event, "granted", text(body, "notes")),
  ApprovalRejected: (feed, body, event) => decided(feed, body, event, "rejected", text(body, "reason")),
  ApprovalExpired: (feed, body, event) => decided(feed, body, event, "expired", ""),
  ApprovalRevoked: (feed, body, event) => decided(feed, body, event, "revoked", text(body, "reason")),
  DecisionProposed: (feed, body, event) => ({
    decisions: { ...feed.decisions, [text(body, "decision_id")]: proposed(body, event) },
  }),
  DecisionAccepted: (feed, body) => decisionNow(feed, body, "ACCEPTED"),
  DecisionRejected: (feed, body) => decisionNow(feed, body, "REJECTED"),
  DecisionSuperseded: (feed, body) => decisionNow(feed, body, "SUPERSEDED"),
  DecisionLinked: (feed, body) => ({
    decisions: changed(feed.decisions, text(body, "decision_id"), (found) => ({
      ...found,
      affects: [...new Set([...found.affects, ...texts(body, "affects")])],
      links: [...found.links, ...linksOf(body)],
    })),
  }),
  WorkspaceReported: (feed, body) => ({ workspace: [...feed.workspace, body] }),
  WorkspaceScored: (feed, body, event) => ({ scores: [...feed.scores, scoreOf(body, event)] }),
  TreeMerged: (feed, body, event) => ({
    merges: [...feed.merges, mergeOf(body, event)],
    ...(text(body, "restored_from") ? { approvals: voided(feed, event, isAboutATree) } : {}),
  }),
  ContextPackBuilt: (feed, body) => ({ packs: [...feed.packs, packOf(body)] }),
  ReportGenerated: (feed, body) => ({ reports: [...feed.reports, reportOf(body)] }),
};

function changed<T>(
  all: Readonly<Record<string, T>>,
  id: string,
  change: (found: T) => T,
): Readonly<Record<string, T>> {
  const found = all[id];
  return found === undefined ? all : { ...all, [id]: change(found) };
}

/** Whose work a task holds after an action; the others leave it as it was. */
const AUTHORED: Readonly<Record<string, (body: Body) => string>> = {
  COMMIT_CODE: (body) => text(body, "principal"),
  ASSIGN_TO_DEVELOPER: () => "",
  REVISE_CODE: () => "",
  REQUEST_REWORK: () => "",
  MERGE_FAILED: () => "",
};

function task(feed: StoryFeed, body: Body, change: (found: Task) => Partial<Task>): Partial<StoryFeed> {
  return { tasks: changed(feed.tasks, text(body, "task_id"), (found) => ({ ...found, ...change(found), events: found.events + 1 })) };
}

function council(feed: StoryFeed, body: Body, change: (found: Council) => Partial<Council>): Partial<StoryFeed> {
  const id = text(body, "council_id");
  return { councils: changed(feed.councils, id, (found) => ({ ...found, ...change(found) })) };
}

function withTask(feed: StoryFeed, body: Body, event: Envelope): StoryFeed["tasks"] {
  const id = text(body, "task_id");
  const known = feed.tasks[id];
  const found: Task = {
    id,
    title: text(body, "title"),
    description: text(body, "description"),
    role: text(body, "role"),
    kind: text(body, "kind"),
    dependsOn: texts(body, "depends_on"),
    criteria: texts(body, "acceptance_refs"),
    state: known?.state ?? "todo",
    feedback: known?.feedback ?? [],
    author: known?.author ?? "",
    claim: known?.claim ?? null,
    entered: known?.entered ?? { todo: Date.parse(event.ts) },
    events: (known?.events ?? 0) + 1,
  };
  return { ...feed.tasks, [id]: found };
}

function decided(
  feed: StoryFeed,
  body: Body,
  event: Envelope,
  status: Approval["status"],
  words: string,
): Partial<StoryFeed> {
  return {
    approvals: changed(feed.approvals, text(body, "approval_id"), (found) => ({
      ...found,
      status,
      words,
      decidedBy: text(body, "principal"),
      decidedAt: event.ts,
      delegated: body["delegated"] === true,
    })),
  };
}

/** What was asked before the story went back is asked anew, of what comes of that. */
function voided(feed: StoryFeed, event: Envelope, which: (one: Approval) => boolean): StoryFeed["approvals"] {
  const end = { status: "voided", words: "The story went back; it is asked again.", decidedBy: event.actor, decidedAt: event.ts } as const;
  return Object.fromEntries(
    Object.entries(feed.approvals).map(([id, one]) => [id, one.status === "requested" && which(one) ? { ...one, ...end } : one]),
  );
}

function isAboutATree(one: Approval): boolean {
  return !one.gate.startsWith("tool:") && ["tree", "docs", "report"].includes(one.subjectKind);
}

function decisionNow(feed: StoryFeed, body: Body, status: Decision["status"]): Partial<StoryFeed> {
  return { decisions: changed(feed.decisions, text(body, "decision_id"), (found) => ({ ...found, status })) };
}
