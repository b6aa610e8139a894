/** What stands in the body of one event, as a value of the page's own. */

import { type Body, type Envelope, number, record, records, text, texts } from "./envelope.ts";
import type { Approval, Ballot, Candidate, Council, Criterion, Decision, Delegation, Finding, Merge, Pack, Question, Report, Score, Step } from "./story.ts";

export function criteriaOf(body: Body): readonly Criterion[] {
  return records(body, "acceptance_criteria").map((one) => ({ id: text(one, "ac_id"), text: text(one, "text") }));
}

/** The findings of a score, whether they were recorded or come from the coach. */
export function findingsOf(body: Body): readonly Finding[] {
  return records(body, "findings").map((one) => ({
    code: text(one, "code"),
    dimension: text(one, "dimension"),
    pointsLost: number(one, "points_lost"),
    message: text(one, "message"),
    suggestion: text(one, "suggestion"),
  }));
}

export function startedStep(body: Body, event: Envelope): Step {
  return {
    id: text(body, "step_id"),
    kind: text(body, "kind"),
    tool: text(body, "tool"),
    op: text(body, "op"),
    role: text(body, "as_role"),
    principal: text(body, "principal"),
    taskId: text(body, "task_id"),
    councilId: text(body, "council_id"),
    startedAt: event.ts,
    finishedAt: "",
    outcome: "",
    exitCode: null,
    excerpt: "",
    runId: text(body, "run_id"),
    artifacts: [],
    tokensIn: 0,
    tokensOut: 0,
    costMicrousd: 0,
    priced: true,
    gpuMs: 0,
    latencyMs: 0,
  };
}

export function finishedStep(step: Step, body: Body, event: Envelope): Step {
  const cost = record(body, "cost");
  return {
    ...step,
    finishedAt: event.ts,
    outcome: text(body, "outcome"),
    exitCode: typeof body["exit_code"] === "number" ? body["exit_code"] : null,
    excerpt: text(body, "excerpt"),
    artifacts: records(body, "artifacts").map((one) => ({
      path: text(one, "path"),
      digest: text(one, "artifact_digest"),
      sizeBytes: number(one, "size_bytes"),
    })),
    tokensIn: number(cost, "tokens_in"),
    tokensOut: number(cost, "tokens_out"),
    costMicrousd: number(cost, "cost_microusd"),
    priced: cost["priced"] === true,
    gpuMs: number(cost, "gpu_ms"),
    latencyMs: number(cost, "latency_ms"),
  };
}

export function openedCouncil(body: Body): Council {
  return {
    id: text(body, "council_id"),
    kind: text(body, "kind"),
    output: text(body, "output_kind"),
    taskId: text(body, "task_id"),
    approvalId: text(body, "approval_id"),
    askedBy: text(body, "requested_by"),
    retryOf: text(body, "retry_of"),
    members: records(body, "roster").map((one) => ({
      id: text(one, "member_id"),
      role: text(one, "role"),
      canVote: one["can_vote"] === true,
      canPropose: one["can_propose"] === true,
    })),
    phase: "opened",
    round: 0,
    candidates: [],
    failed: [],
    critiques: 0,
    ballots: [],
    heard: [],
    estimate: null,
    testsTrusted: null,
    testsKept: 0,
    outcome: "",
    decidedIn: "",
    winner: "",
    verdict: "",
    reason: "",
    minorityDigest: "",
    counterfactuals: {},
    tokens: {},
  };
}

export function draftOf(body: Body): Candidate {
  return {
    id: text(body, "candidate_id"),
    member: text(body, "member_id"),
    digest: text(body, "candidate_digest"),
    gatesOk: null,
    gates: [],
    passed: 0,
    total: 0,
    diffLines: 0,
    lintErrors: 0,
    cluster: "",
  };
}

export function measured(all: readonly Candidate[], evidence: Body): readonly Candidate[] {
  const id = text(evidence, "candidate_id");
  return all.map((one) =>
    one.id !== id
      ? one
      : {
          ...one,
          gatesOk: evidence["gates_ok"] === true,
          gates: records(evidence, "gates").map((gate) => ({ name: text(gate, "name"), ok: gate["ok"] === true })),
          passed: number(evidence, "trusted_passed"),
          total: number(evidence, "trusted_total"),
          diffLines: number(evidence, "diff_lines"),
          lintErrors: number(evidence, "lint_errors"),
          cluster: text(evidence, "cluster_id"),
        },
  );
}

export function ballotOf(body: Body, refused: string): Ballot {
  const votes = record(body, "votes");
  return {
    voter: text(body, "voter"),
    round: number(body, "round"),
    votes: Object.fromEntries(Object.keys(votes).map((id) => [id, text(votes, id)])),
    ranking: texts(body, "ranking"),
    reasonsDigest: text(body, "reasons_digest"),
    refused,
  };
}

export function numbers(body: Body): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.keys(body).map((key) => [key, number(body, key)]));
}

export function requested(body: Body, event: Envelope): Approval {
  const subject = record(body, "subject");
  return {
    id: text(body, "approval_id"),
    gate: text(body, "gate"),
    role: text(body, "role"),
    status: "requested",
    subjectKind: text(subject, "kind"),
    subjectDigest: text(subject, "digest"),
    cardDigest: text(body, "card_digest"),
    risk: text(body, "risk"),
    requestedAt: event.ts,
    expiresAt: number(body, "expires_at"),
    attempt: number(body, "attempt"),
    decidedBy: "",
    decidedAt: "",
    words: "",
    delegated: false,
  };
}

export function delegationsOf(body: Body): readonly Delegation[] {
  return records(body, "delegations").map((one) => ({
    id: text(one, "delegation_id"),
    gate: text(one, "gate"),
    delegate: text(one, "delegate"),
    council: text(one, "council"),
    grantedBy: text(one, "granted_by"),
    validUntil: number(one, "valid_until"),
    ended: "",
  }));
}

export function asked(body: Body): Question {
  return {
    id: text(body, "question_id"),
    kind: text(body, "kind"),
    text: text(body, "text"),
    severity: text(body, "severity"),
    askedBy: text(body, "asked_by"),
    answer: "",
    answeredBy: "",
  };
}

export function linksOf(body: Body): Decision["links"] {
  return records(body, "links").map((one) => ({ rel: text(one, "rel"), to: text(one, "decision_id") }));
}

export function proposed(body: Body, event: Envelope): Decision {
  return {
    id: text(body, "decision_id"),
    title: text(body, "title"),
    rationale: text(body, "rationale"),
    category: text(body, "category"),
    author: text(body, "author"),
    councilId: text(body, "council_id"),
    alternatives: texts(body, "alternatives"),
    affects: texts(body, "affects"),
    links: linksOf(body),
    status: "PROPOSED",
    at: event.ts,
  };
}

export function scoreOf(body: Body, event: Envelope): Score {
  return {
    tree: text(body, "tree_digest"),
    score: text(body, "score"),
    verdict: text(body, "verdict"),
    rigor: text(body, "rigor"),
    limitedBy: text(body, "limited_by"),
    dimensions: records(body, "dimensions"),
    gates: records(body, "gates"),
    reasons: texts(body, "reasons"),
    at: event.ts,
  };
}

export function mergeOf(body: Body, event: Envelope): Merge {
  return {
    taskId: text(body, "task_id"),
    base: text(body, "base_digest"),
    result: text(body, "result_digest"),
    commit: text(body, "commit"),
    files: records(body, "files").map((one) => ({ path: text(one, "path"), change: text(one, "change") })),
    at: event.ts,
  };
}

export function packOf(body: Body): Pack {
  return {
    id: text(body, "pack_id"),
    role: text(body, "as_role"),
    phase: text(body, "phase"),
    taskId: text(body, "task_id"),
    scopes: texts(body, "scopes"),
    tokens: number(body, "token_count"),
    budget: number(body, "budget"),
    dropped: Array.isArray(body["dropped"]) ? body["dropped"].length : 0,
    hash: text(body, "hash"),
  };
}

export function reportOf(body: Body): Report {
  const traceability = record(body, "traceability");
  return {
    id: text(body, "report_id"),
    digest: text(body, "report_digest"),
    format: text(body, "format"),
    asOf: number(body, "as_of"),
    linked: number(traceability, "linked"),
    total: number(traceability, "total"),
    stats: record(body, "stats"),
  };
}
