/** What the page knows of a story; `feed.ts` makes it of events. */

import type { Body } from "./envelope.ts";

export interface Criterion {
  readonly id: string;
  readonly text: string;
}

export interface Finding {
  readonly code: string;
  readonly dimension: string;
  readonly pointsLost: number;
  readonly message: string;
  readonly suggestion: string;
}

export interface Task {
  readonly id: string;
  readonly title: string;
  readonly description: string;
  readonly role: string;
  readonly kind: string;
  readonly dependsOn: readonly string[];
  readonly criteria: readonly string[];
  readonly state: string;
  readonly feedback: readonly string[];
  /** Who did the work that is looked at; "" before there is any. */
  readonly author: string;
  /** Who alone works on it or reviews it, until then; it may have run out. */
  readonly claim: Claim | null;
  /** When it came to each state the last time, in milliseconds. */
  readonly entered: Readonly<Record<string, number>>;
  /** How many events were about it. */
  readonly events: number;
}

export interface Claim {
  readonly principal: string;
  readonly expiresAt: number;
}

export interface Step {
  readonly id: string;
  readonly kind: string;
  readonly tool: string;
  readonly op: string;
  readonly role: string;
  readonly principal: string;
  readonly taskId: string;
  readonly councilId: string;
  readonly startedAt: string;
  readonly finishedAt: string;
  readonly outcome: string;
  readonly exitCode: number | null;
  readonly excerpt: string;
  readonly runId: string;
  readonly artifacts: readonly Artifact[];
  readonly tokensIn: number;
  readonly tokensOut: number;
  readonly costMicrousd: number;
  readonly priced: boolean;
  readonly gpuMs: number;
  readonly latencyMs: number;
}

export interface Artifact {
  readonly path: string;
  readonly digest: string;
  readonly sizeBytes: number;
}

export interface Candidate {
  readonly id: string;
  readonly member: string;
  readonly digest: string;
  readonly gatesOk: boolean | null;
  readonly gates: readonly { readonly name: string; readonly ok: boolean }[];
  readonly passed: number;
  readonly total: number;
  readonly diffLines: number;
  readonly lintErrors: number;
  readonly cluster: string;
}

export interface Ballot {
  readonly voter: string;
  readonly round: number;
  readonly votes: Readonly<Record<string, string>>;
  readonly ranking: readonly string[];
  readonly reasonsDigest: string;
  readonly refused: string;
}

export interface Member {
  readonly id: string;
  readonly role: string;
  readonly canVote: boolean;
  readonly canPropose: boolean;
}

export interface Council {
  readonly id: string;
  readonly kind: string;
  readonly output: string;
  readonly taskId: string;
  /** The gate's request that it decides in the place of a person; "" where it decides none. */
  readonly approvalId: string;
  /** Who asked for it; "" for the story's own. One that was asked for advises, and moves nothing. */
  readonly askedBy: string;
  /** The council in whose place it is; "" for a first one. */
  readonly retryOf: string;
  readonly members: readonly Member[];
  readonly phase: string;
  readonly round: number;
  readonly candidates: readonly Candidate[];
  readonly failed: readonly { readonly member: string; readonly code: string }[];
  readonly critiques: number;
  readonly ballots: readonly Ballot[];
  /** Of an estimate: who was heard in the round that is open. */
  readonly heard: readonly string[];
  /** Of an estimate: its points; null before and without one. */
  readonly estimate: number | null;
  readonly testsTrusted: boolean | null;
  readonly testsKept: number;
  readonly outcome: "" | "decided" | "undecided" | "cancelled";
  readonly decidedIn: string;
  readonly winner: string;
  readonly verdict: string;
  readonly reason: string;
  readonly minorityDigest: string;
  readonly counterfactuals: Body;
  readonly tokens: Readonly<Record<string, number>>;
}

export interface Approval {
  readonly id: string;
  readonly gate: string;
  readonly role: string;
  readonly status: "requested" | "granted" | "rejected" | "expired" | "revoked" | "voided";
  readonly subjectKind: string;
  readonly subjectDigest: string;
  readonly cardDigest: string;
  readonly risk: string;
  readonly requestedAt: string;
  readonly expiresAt: number;
  readonly attempt: number;
  readonly decidedBy: string;
  readonly decidedAt: string;
  readonly words: string;
  readonly delegated: boolean;
}

/** A gate that somebody let agents decide in this story (LC-77). */
export interface Delegation {
  readonly id: string;
  readonly gate: string;
  readonly delegate: string;
  /** The role of the council that it is delegated to; "" for one delegate. */
  readonly council: string;
  readonly grantedBy: string;
  readonly validUntil: number;
  /** Why it holds no more; "" while it does. */
  readonly ended: string;
}

export interface Question {
  readonly id: string;
  readonly kind: string;
  readonly text: string;
  readonly severity: string;
  readonly askedBy: string;
  readonly answer: string;
  readonly answeredBy: string;
}

export interface Decision {
  readonly id: string;
  readonly title: string;
  readonly rationale: string;
  readonly category: string;
  readonly author: string;
  readonly councilId: string;
  readonly alternatives: readonly string[];
  readonly affects: readonly string[];
  readonly links: readonly { readonly rel: string; readonly to: string }[];
  readonly status: "PROPOSED" | "ACCEPTED" | "REJECTED" | "SUPERSEDED";
  readonly at: string;
}

export interface Score {
  readonly tree: string;
  readonly score: string;
  readonly verdict: string;
  readonly rigor: string;
  readonly limitedBy: string;
  readonly dimensions: readonly Body[];
  readonly gates: readonly Body[];
  readonly reasons: readonly string[];
  readonly at: string;
}

export interface Merge {
  readonly taskId: string;
  readonly base: string;
  readonly result: string;
  readonly commit: string;
  readonly files: readonly { readonly path: string; readonly change: string }[];
  readonly at: string;
}

export interface Pack {
  readonly id: string;
  readonly role: string;
  readonly phase: string;
  readonly taskId: string;
  readonly scopes: readonly string[];
  readonly tokens: number;
  readonly budget: number;
  readonly dropped: number;
  readonly hash: string;
}

export interface Report {
  readonly id: string;
  readonly digest: string;
  readonly format: string;
  readonly asOf: number;
  readonly linked: number;
  readonly total: number;
  readonly stats: Body;
}

export interface TimelineEntry {
  readonly version: number;
  readonly ts: string;
  readonly actor: string;
  readonly type: string;
  readonly hash: string;
  readonly line: string;
  readonly tone: "plain" | "good" | "bad" | "person";
}

export interface StoryFeed {
  readonly version: number;
  readonly title: string;
  readonly description: string;
  readonly criteria: readonly Criterion[];
  readonly rigor: string;
  readonly lifecycle: string;
  readonly state: string;
  readonly closed: boolean;
  readonly cancelled: boolean;
  readonly parked: string;
  readonly started: boolean;
  readonly paused: boolean;
  readonly questions: Readonly<Record<string, Question>>;
  readonly readiness: { readonly score: string; readonly ok: boolean; readonly findings: readonly Finding[] } | null;
  readonly repo: string;
  readonly model: string;
  readonly tasks: Readonly<Record<string, Task>>;
  readonly steps: Readonly<Record<string, Step>>;
  readonly councils: Readonly<Record<string, Council>>;
  readonly approvals: Readonly<Record<string, Approval>>;
  readonly delegations: readonly Delegation[];
  readonly decisions: Readonly<Record<string, Decision>>;
  readonly scores: readonly Score[];
  readonly workspace: readonly Body[];
  readonly merges: readonly Merge[];
  readonly packs: readonly Pack[];
  readonly reports: readonly Report[];
  readonly transitions: readonly { readonly from: string; readonly to: string; readonly ts: string }[];
  readonly timeline: readonly TimelineEntry[];
}

export const EMPTY: StoryFeed = {
  version: 0,
  title: "",
  description: "",
  criteria: [],
  rigor: "",
  lifecycle: "",
  state: "",
  closed: false,
  cancelled: false,
  parked: "",
  started: false,
  paused: false,
  questions: {},
  readiness: null,
  repo: "",
  model: "",
  tasks: {},
  steps: {},
  councils: {},
  approvals: {},
  delegations: [],
  decisions: {},
  scores: [],
  workspace: [],
  merges: [],
  packs: [],
  reports: [],
  transitions: [],
  timeline: [],
};
