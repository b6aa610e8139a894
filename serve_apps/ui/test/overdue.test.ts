import assert from "node:assert/strict";
import { test } from "node:test";
import { span } from "../src/model/format.ts";
import { NO_LIMITS, lateStories, lateTasks, limitsOf } from "../src/model/overdue.ts";
import { EMPTY, type StoryFeed, type Task } from "../src/model/story.ts";

const RULES = {
  task_workflow: {
    initial: "todo",
    transitions: [{ from: ["todo"], to: "pending_qa" }, { from: ["pending_qa"], to: "qa_testing" }],
    limits: [{ states: ["pending_qa", "qa_testing"], role: "qa", wait_s: 10, sla_s: 60 }, { states: ["pending_po_approval"], role: "po", wait_s: null, sla_s: 5 }],
    task_sla_s: 100,
  },
};
const LIMITS = limitsOf(RULES);
const S = 1000;

function task(id: string, state: string, entered: Readonly<Record<string, number>>, dependsOn: readonly string[] = []): Task {
  return { id, title: id, description: "", role: "developer", kind: "code", dependsOn, criteria: [], state, feedback: [], author: "", claim: null, entered, events: 1 };
}

function late(nowMs: number, more: Partial<StoryFeed>, ...all: Task[]) {
  const feed = { ...EMPTY, started: true, ...more, tasks: Object.fromEntries(all.map((one) => [one.id, one])) };
  return lateTasks(feed, LIMITS, nowMs).map((one) => [one.task.id, one.byMs, one.role]);
}

test("limits come from the rules in force, in the order of the workflow", () => {
  assert.deepEqual(LIMITS.states, ["todo", "pending_qa", "qa_testing"]);
  assert.deepEqual([LIMITS.stages[1]?.waitMs, LIMITS.stages[1]?.slaMs, LIMITS.taskMs], [null, 5 * S, 100 * S]);
  assert.deepEqual(limitsOf({}), NO_LIMITS);
});

test("a task is late from the very end of the wait, and once it is taken from the end of the stage", () => {
  const waits = task("a", "pending_qa", { todo: 0, pending_qa: 0 });
  assert.deepEqual(late(10 * S - 1, {}, waits), []);
  assert.deepEqual(late(10 * S, {}, waits), [["a", 0, "qa"]]);
  const taken = task("a", "qa_testing", { todo: 0, pending_qa: 0, qa_testing: 9 * S });
  assert.deepEqual(late(59 * S, {}, taken), []);
  assert.deepEqual(late(61 * S, {}, taken), [["a", S, "qa"]]);
});

test("a task is late as a whole from when nothing holds it back", () => {
  const first = task("a", "done", { todo: 0, done: 50 * S });
  const next = task("b", "todo", { todo: 0 }, ["a"]);
  assert.deepEqual(late(149 * S, {}, first, next), []);
  assert.deepEqual(late(151 * S, {}, first, next), [["b", S, "po"]]);
  assert.deepEqual(late(999 * S, {}, task("a", "cancelled", { todo: 0 }), next), []);
  assert.deepEqual(late(130 * S, {}, task("c", "todo", { todo: 0 }), task("d", "todo", { todo: 10 * S })), [["c", 30 * S, "po"], ["d", 20 * S, "po"]]);
});

test("a story that rests has no late task", () => {
  for (const rests of [{ started: false }, { paused: true }, { parked: "no disk" }, { closed: true }, { cancelled: true }]) assert.deepEqual(late(999 * S, rests, task("a", "todo", { todo: 0 })), []);
});

test("the board counts what is overdue in each story, with the longest time", () => {
  const row = (story_id: string, overdue_s: number | null) => ({ story_id, overdue_s });
  const found = lateStories([row("s", 15), row("s", 20), row("s", 3), row("t", 0), row("u", null)]);
  assert.deepEqual([...found], [["s", { tasks: 3, byMs: 20 * S }], ["t", { tasks: 1, byMs: 0 }]]);
});

test("long times are told in the unit that people use", () => {
  assert.deepEqual([0, 60 * S, 59 * 60 * S, 61 * 60 * S, 47 * 3600 * S, 48 * 3600 * S].map(span), ["less than a minute", "1 minute", "59 minutes", "1 h 1 min", "47 h 0 min", "2 days"]);
});
