import assert from "node:assert/strict";
import { test } from "node:test";
import { problemOf } from "../src/api/client.ts";
import { EMPTY, type StoryFeed, type Task, reduceAll } from "../src/model/feed.ts";
import { adviceOn } from "../src/model/refusal.ts";
import { deeds, holder, waitsFor } from "../src/model/tasks.ts";

const ADA = { principal: "user:ada", roles: ["architect", "qa"] };
const PO = { principal: "user:po", roles: ["po"] };
const NOW = 1_000_000;
const MINE = { principal: ADA.principal, expiresAt: NOW + 1 };
const task: Task = {
  id: "tk-1", title: "Write it", description: "", role: "developer", kind: "code", dependsOn: [], criteria: [], state: "pending_arch_review", feedback: [], author: "agent:developer-001", claim: null, entered: {}, events: 1,
};
const can = (more: Partial<Task>, me: typeof ADA | null = ADA, feed: Partial<StoryFeed> = {}) => deeds({ ...EMPTY, ...feed }, { ...task, ...more }, me, NOW).map((one) => one.action);

test("a review is held by one who has its role and did not do the work", () => {
  assert.deepEqual(can({}), ["CLAIM_REVIEW"]);
  assert.deepEqual(can({ state: "pending_qa" }), ["CLAIM_TESTING"]);
  assert.deepEqual(can({ author: ADA.principal }), []);
  assert.deepEqual(can({}, { principal: "user:dev", roles: ["developer"] }), []);
  assert.deepEqual(can({}, null), []);
});

test("only its holder gives the review, and once the claim runs out nobody is", () => {
  assert.deepEqual(can({ state: "arch_reviewing", claim: MINE }), ["APPROVE_DESIGN", "REJECT_DESIGN", "release"]);
  assert.deepEqual(can({ state: "qa_testing", claim: MINE }), ["APPROVE_TESTS", "REJECT_TESTS", "release"]);
  assert.deepEqual(can({ state: "qa_testing", claim: { ...MINE, expiresAt: NOW } }), []);
  assert.deepEqual(can({ state: "arch_reviewing", claim: { ...MINE, principal: "user:bob" } }), []);
  assert.deepEqual(can({ state: "arch_reviewing", claim: MINE }, PO), ["release", "DISCARD_TASK"]);
  assert.equal(holder({ ...task, claim: { ...MINE, expiresAt: NOW } }, NOW), "");
});

test("a product owner decides on finished work, of a parked story too, and of nothing that is over", () => {
  const waits = { state: "pending_po_approval" };
  assert.deepEqual(can(waits, PO), ["APPROVE_STORY", "REQUEST_REWORK", "REJECT_STORY"]);
  assert.deepEqual(can(waits, PO, { parked: "no disk" }), ["APPROVE_STORY", "REQUEST_REWORK", "REJECT_STORY"]);
  assert.deepEqual(can({}, ADA, { parked: "no disk" }), []);
  for (const state of ["done", "cancelled"]) assert.deepEqual(can({ state }, PO), []);
  for (const over of [{ closed: true }, { cancelled: true }]) assert.deepEqual(can({}, PO, over), []);
  const why = deeds(EMPTY, { ...task, ...waits }, PO, NOW).filter((one) => one.why).map((one) => one.action);
  assert.deepEqual(why, ["REQUEST_REWORK", "REJECT_STORY"]);
});

test("work is held by one with the role of the task, while nobody has it", () => {
  const dev = { principal: "user:dev", roles: ["developer"] };
  assert.deepEqual(can({ state: "implementing" }, dev), ["claim"]);
  assert.deepEqual(can({ state: "implementing", claim: MINE }, dev), []);
  assert.match(waitsFor(EMPTY, { ...task, state: "implementing", claim: MINE }, NOW), /^ada holds it/);
  assert.match(waitsFor(EMPTY, { ...task, state: "arch_reviewing" }, NOW), /agent reviews/);
  const said = ["todo", "implementing", "qa_passed", "done", "cancelled"].map((state) => waitsFor(EMPTY, { ...task, state }, NOW));
  assert.equal(new Set(said).size, said.length);
  assert.match(waitsFor({ ...EMPTY, parked: "no disk" }, task, NOW), /let it go on/);
});

test("events say who holds a task, whose work it has, and when it came where", () => {
  const ts = "2026-01-01T00:00:00.000Z";
  const events = [
    ["TaskAdded", { task: { task_id: "tk-1", title: "Write it" } }],
    ["TaskTransitioned", { task_id: "tk-1", to: "dev_completed", action: "COMMIT_CODE", principal: "agent:developer-001" }],
    ["TaskClaimed", { task_id: "tk-1", principal: "user:ada", expires_at: 5 }],
    ["TaskClaimReleased", { task_id: "tk-1", principal: "user:bob", reason: "expired" }],
    ["TaskTransitioned", { task_id: "tk-1", to: "arch_reviewing", action: "CLAIM_REVIEW", principal: "user:ada" }],
    ["TaskClaimReleased", { task_id: "tk-1", principal: "user:ada", reason: "finished" }],
    ["TaskTransitioned", { task_id: "tk-1", to: "implementing", action: "REVISE_CODE", principal: "system:council" }],
  ] as const;
  const at = (count: number): Task | undefined =>
    reduceAll(EMPTY, events.slice(0, count).map(([type, body], n) => ({ event_id: "", stream: "", version: n + 1, type, ts, actor: "system:council", origin: "", hash: "", body }))).tasks["tk-1"];
  assert.deepEqual(at(5)?.claim, { principal: "user:ada", expiresAt: 5 });
  assert.equal(at(5)?.author, "agent:developer-001");
  assert.deepEqual([at(6)?.claim, at(7)?.author, at(7)?.events], [null, "", 7]);
  assert.deepEqual(at(7)?.entered, Object.fromEntries(["todo", "dev_completed", "arch_reviewing", "implementing"].map((state) => [state, Date.parse(ts)])));
});

test("a refused review says what to do", () => {
  const refused = (document: object) => adviceOn(problemOf(409, document));
  assert.match(refused({ code: "already_claimed", holder: "user:bob" }), /^bob holds it now/);
  assert.match(refused({ code: "gate_closed", guards: [{ name: "a", ok: true }, { name: "scored_report", ok: false }] }), /Wait for its score/);
  assert.match(refused({ code: "invalid_transition", action_status: "invalid_action" }), /moved on meanwhile/);
  assert.equal(refused({ code: "gate_closed", guards: [{ name: "unheard_of", ok: false }] }), "");
});
