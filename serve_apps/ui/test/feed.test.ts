import assert from "node:assert/strict";
import { test } from "node:test";
import type { Body, Envelope } from "../src/model/envelope.ts";
import { countedVotes, votesFor } from "../src/model/votes.ts";
import { EMPTY, type StoryFeed, arrival, askable, latestScore, passing, reduce, reduceAll, spentByRole, waiting } from "../src/model/feed.ts";

type Told = readonly [type: string, body: Body, actor?: string];

function events(...bodies: Told[]): Envelope[] {
  return bodies.map(([type, body, actor = "system:council"], at) => ({
    event_id: `story:st-x/${at + 1}`,
    stream: "story:st-x",
    version: at + 1,
    type,
    ts: `2026-01-01T00:00:0${at % 10}.000Z`,
    actor,
    origin: "planning",
    hash: "",
    body,
  }));
}

function story(...bodies: Told[]): StoryFeed {
  return reduceAll(EMPTY, events(...bodies));
}

const CREATED = ["StoryCreated", { title: "Save a cart", description: "Keep it", acceptance_criteria: [{ ac_id: "ac-1", text: "Given" }], rigor: "L1", lifecycle: "agile" }] as const;

test("events that come twice, or too early, change nothing", () => {
  const [one, two, three] = events(CREATED, ["StoryParked", { detail: "no disk" }], ["StoryUnparked", { note: "mended" }]);
  assert.ok(one && two && three);
  const first = reduce(EMPTY, one);
  assert.equal(reduce(first, one), first);
  assert.equal(reduce(first, three), first);
  assert.equal(reduce(first, two).parked, "no disk");
});

test("only the very next version may be applied", () => {
  assert.deepEqual([1, 4, 5, 7].map((version) => arrival(4, version)), ["repeat", "repeat", "next", "gap"]);
});

test("what is not shown is passed over, and what was seen is not seen again", () => {
  const [created, , closed] = events(CREATED, ["StoryTransitioned", { from: "BACKLOG", to: "DRAFT" }], ["StoryClosed", { final_state: "DONE" }]);
  assert.ok(created && closed);
  const feed = reduce(EMPTY, created);
  assert.equal(reduce(feed, closed), feed);
  assert.deepEqual([reduce(passing(feed, 3), closed).closed, passing(feed, 3).version, passing(feed, 1).version], [true, 2, 1]);
});

test("any split of a stream into pieces ends in the same story", () => {
  const all = events(CREATED, ["StoryTransitioned", { from: "BACKLOG", to: "DRAFT" }], ["StoryClosed", { final_state: "DONE" }], ["NobodyKnowsThis", { a: 1 }]);
  const whole = reduceAll(EMPTY, all);
  for (let cut = 0; cut <= all.length; cut++) assert.deepEqual(reduceAll(reduceAll(EMPTY, all.slice(0, cut)), all.slice(Math.max(0, cut - 1))), whole);
  assert.equal(whole.closed, true);
  assert.equal(whole.state, "DONE");
  assert.equal(whole.timeline.at(-1)?.line, "nobody knows this");
});

test("a council is told from its roster to its winner, with votes and refused ballots", () => {
  const id = "co-1";
  const feed = story(
    CREATED,
    ["CouncilOpened", { council_id: id, kind: "selection", output_kind: "design", roster: [{ member_id: "architect-001", role: "architect", can_vote: true, can_propose: true }] }],
    ["RoundOpened", { council_id: id, phase: "drafting", round: 0 }],
    ["DraftReceived", { council_id: id, candidate_id: "cd-1", member_id: "architect-001", candidate_digest: "sha256:a" }],
    ["EvidenceRecorded", { council_id: id, evidence: { candidate_id: "cd-1", gates: [{ name: "build", ok: false }], gates_ok: false, trusted_passed: 1, trusted_total: 3, diff_lines: 7 } }],
    ["BallotCast", { council_id: id, voter: "architect-001", round: 1, votes: { "cd-1": "approve" }, ranking: [] }],
    ["BallotRefused", { council_id: id, voter: "qa-001", round: 1, code: "late" }],
    ["CouncilDecided", { council_id: id, decided_in: "P6", winner: "cd-1", tokens: { draft: 5, ballots: 7 } }],
  );
  const council = feed.councils[id];
  assert.ok(council);
  assert.equal(council.outcome, "decided");
  assert.equal(council.winner, "cd-1");
  assert.deepEqual(council.candidates[0]?.gates, [{ name: "build", ok: false }]);
  assert.deepEqual([council.candidates[0]?.passed, council.candidates[0]?.total], [1, 3]);
  assert.deepEqual(council.ballots.map((one) => one.refused), ["", "late"]);
  assert.deepEqual(council.tokens, { draft: 5, ballots: 7 });
});

test("a voter who is asked twice counts once, and one who contradicts itself abstains", () => {
  const ballot = (voter: string, vote: string, round = 1, refused = "") => ({ voter, round, votes: { "cd-1": vote }, ranking: [], reasonsDigest: "", refused });
  const cast = [ballot("a", "reject", 0), ballot("a", "approve"), ballot("a", "approve"), ballot("b", "approve"), ballot("b", "reject"), ballot("c", "approve", 1, "late")];
  const votes = countedVotes(cast);
  assert.deepEqual(votes, { a: { "cd-1": "approve" }, b: { "cd-1": "abstain" } });
  assert.equal(votesFor(votes, "cd-1"), "1 approve, 1 abstain");
  assert.equal(votesFor(votes, "cd-9"), "");
});

test("a second paper of a voter is told as what it is", () => {
  const cast = (attempt: number): Told => ["BallotCast", { council_id: "co-1", voter: "qa-001", round: 1, attempt, votes: {}, ranking: [] }];
  assert.deepEqual(story(CREATED, cast(1), cast(2)).timeline.slice(1).map((one) => one.line), ["qa-001 voted", "qa-001 voted again, with the drafts in the opposite order"]);
});

test("events of a council that never opened change no council", () => {
  assert.deepEqual(story(CREATED, ["RoundOpened", { council_id: "co-9", phase: "drafting" }]).councils, {});
});

test("gates wait until somebody decides, and keep the words of a rejection", () => {
  const asked = ["ApprovalRequested", { approval_id: "ap-1", gate: "approve_scope", role: "po", subject: { kind: "content", digest: "sha256:a" }, expires_at: 5, attempt: 1 }] as const;
  assert.deepEqual(waiting(story(CREATED, asked)).map((one) => one.gate), ["approve_scope"]);
  const feed = story(CREATED, asked, ["ApprovalRejected", { approval_id: "ap-1", principal: "user:ada", reason: "Not yet." }, "user:ada"]);
  assert.deepEqual(waiting(feed), []);
  assert.equal(feed.approvals["ap-1"]?.words, "Not yet.");
  assert.equal(feed.timeline.at(-1)?.line, "Scope rejected: Not yet.");
});

test("gates that were asked before the story went back wait no more", () => {
  const asked = (id: string, gate: string, kind: string): Told => ["ApprovalRequested", { approval_id: id, gate, role: "po", subject: { kind, digest: "sha256:a" }, expires_at: 5, attempt: 1 }];
  const all = [CREATED, asked("ap-1", "approve_scope", "content"), asked("ap-2", "docs_ready", "docs"), asked("ap-3", "tool:deploy.apply", "tree")] as const;
  const restored = story(...all, ["TreeMerged", { restored_from: "rp-1", files: [] }]);
  assert.deepEqual(waiting(restored).map((one) => one.id), ["ap-1", "ap-3"]);
  assert.deepEqual(waiting(story(...all, ["TreeMerged", { restored_from: null, files: [] }])).length, 3);
  assert.deepEqual(waiting(story(...all, ["StoryTransitioned", { from: "DOCS", to: "BUILD", loopback: true }])), []);
  assert.deepEqual(waiting(story(...all, ["StoryTransitioned", { from: "DOCS", to: "DONE", loopback: false }])).length, 3);
});

test("tokens without a price are counted apart", () => {
  const cost = (priced: boolean): Body => ({ tokens_in: 10, tokens_out: 5, cost_microusd: priced ? 40 : 0, priced });
  const feed = story(
    CREATED,
    ["StepStarted", { step_id: "a", as_role: "qa", tool: "model", op: "vote" }],
    ["StepStarted", { step_id: "b", as_role: "qa", tool: "model", op: "vote" }],
    ["StepFinished", { step_id: "a", outcome: "succeeded", cost: cost(true) }],
    ["StepFinished", { step_id: "b", outcome: "failed", cost: cost(false) }],
    ["StepFinished", { step_id: "nobody", outcome: "failed", cost: cost(false) }],
  );
  assert.deepEqual(spentByRole(feed), [{ key: "qa", tokens: 30, costMicrousd: 40, unpriced: 15, steps: 2 }]);
});

test("a step that nobody knows the end of waits for a person", () => {
  const unknown = [CREATED, ["StepStarted", { step_id: "d", as_role: "devops", tool: "deploy", op: "apply" }], ["StepOutcomeUnknown", { step_id: "d" }]] as Told[];
  assert.equal(story(...unknown).steps["d"]?.outcome, "unknown");
  assert.equal(story(...unknown, ["StepResolved", { step_id: "d", outcome: "happened" }]).steps["d"]?.outcome, "happened");
});

test("tasks keep state and feedback, edits change the text, the last score counts", () => {
  const feed = story(
    CREATED,
    ["TaskAdded", { task: { task_id: "tk-1", title: "Do it", role: "developer", acceptance_refs: ["ac-1"] } }],
    ["TaskTransitioned", { task_id: "tk-1", to: "implementing", action: "REQUEST_REWORK", feedback: "Once more" }],
    ["StoryEdited", { changes: { title: "Save two carts", acceptance_criteria: [] } }],
    ["WorkspaceScored", { tree_digest: "sha256:a", score: "10", verdict: "block" }],
    ["WorkspaceScored", { tree_digest: "sha256:b", score: "90", verdict: "pass" }],
  );
  assert.deepEqual([feed.tasks["tk-1"]?.state, feed.tasks["tk-1"]?.feedback], ["implementing", ["Once more"]]);
  assert.deepEqual([feed.title, feed.description, feed.criteria], ["Save two carts", "Keep it", []]);
  assert.equal(latestScore(feed)?.tree, "sha256:b");
});

test("bodies of the wrong form are shown as nothing, and break nothing", () => {
  const types = ["StoryCreated", "CouncilOpened", "EvidenceRecorded", "StepFinished", "ApprovalRequested", "PlanProposed", "TreeMerged", "ReportGenerated", "BallotCast", "TaskAdded"];
  for (const value of [null, 7, "text", [1], { a: null }]) {
    const body = Object.fromEntries(["council_id", "roster", "evidence", "cost", "subject", "tasks", "files", "votes", "task", "acceptance_criteria", "traceability"].map((key) => [key, value]));
    assert.equal(story(...types.map((type) => [type, body] as const)).version, types.length);
  }
});

test("a gate that nobody answered, or that was turned down, may be asked for again until it waits or the story moves", () => {
  const ask = (id: string): Told => ["ApprovalRequested", { approval_id: id, gate: "council_escalation", role: "po", subject: { kind: "object", id: "co-1", digest: "d" } }];
  const moved: Told = ["StoryTransitioned", { from: "BACKLOG", to: "DRAFT" }];
  assert.equal(askable(story(CREATED, moved, ask("ap-1"))), null);
  assert.equal(askable(story(CREATED, moved, ask("ap-1"), ["ApprovalExpired", { approval_id: "ap-1" }]))?.id, "ap-1");
  assert.equal(askable(story(CREATED, moved, ask("ap-1"), ["ApprovalRejected", { approval_id: "ap-1", reason: "not so" }]))?.id, "ap-1");
  assert.equal(askable(story(CREATED, moved, ask("ap-1"), ["ApprovalGranted", { approval_id: "ap-1" }])), null);
  assert.equal(askable(story(CREATED, moved, ask("ap-1"), ["ApprovalExpired", { approval_id: "ap-1" }], ask("ap-2"))), null);
  assert.equal(askable(story(CREATED, ask("ap-1"), ["ApprovalExpired", { approval_id: "ap-1" }], ["StoryTransitioned", { from: "DESIGN", to: "BACKLOG" }])), null);
});
