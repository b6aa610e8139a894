import assert from "node:assert/strict";
import { test } from "node:test";
import { isPending } from "../src/api/client.ts";
import { NEW_ASK, askBody, isComplete, mayAsk, nextOf, partsOf, questionOf, seatOf, waysWith, whyNotAsk } from "../src/model/councils.ts";
import { type Council, EMPTY, type StoryFeed, reduceAll } from "../src/model/feed.ts";

const ADA = { principal: "user:ada", roles: ["po"] };
const QUINN = { principal: "user:quinn", roles: ["qa"] };
const DEV = { principal: "user:dev", roles: ["developer"] };

function story(...opened: object[]): StoryFeed {
  const bodies = [["StoryStarted", {}], ...opened.map((body) => ["CouncilOpened", { output_kind: "text", kind: "selection", ...body }])] as const;
  return reduceAll(EMPTY, bodies.map(([type, body], at) => ({ event_id: "", stream: "", version: at + 1, type: String(type), ts: "", actor: "", origin: "", hash: "", body: body as Record<string, unknown> })));
}

test("a council that was asked for is told from the story's own, and from the one in its place", () => {
  const feed = story({ council_id: "co-own" }, { council_id: "co-1", requested_by: "user:ada" }, { council_id: "co-2", requested_by: "user:ada", retry_of: "co-1" });
  assert.deepEqual(Object.values(feed.councils).map((one) => one.askedBy), ["", "user:ada", "user:ada"]);
  assert.equal(nextOf(feed, "co-1")?.id, "co-2");
  assert.equal(nextOf(feed, "co-2"), null);
  assert.match(feed.timeline[2]?.line ?? "", /^ada asked a council/);
});

test("councils are asked for, ended and sent back by their roles alone, and only while the story is worked on", () => {
  assert.deepEqual([ADA, QUINN, DEV, null].map(mayAsk), [true, true, false, false]);
  const feed = story({ council_id: "co-1", requested_by: "user:ada" }, { council_id: "co-own" });
  const one = feed.councils["co-1"] as Council;
  const done: Council = { ...one, outcome: "decided" };
  assert.deepEqual(waysWith(feed, one, ADA), { end: true, sendBack: false });
  assert.deepEqual(waysWith(feed, done, ADA), { end: false, sendBack: true });
  for (const me of [QUINN, DEV, null]) assert.deepEqual([waysWith(feed, one, me), waysWith(feed, done, me)], [{ end: false, sendBack: false }, { end: false, sendBack: false }]);
  assert.equal(waysWith(feed, done, { principal: "agent:architect-001", roles: ["architect"] }).sendBack, false);
  assert.equal(waysWith(feed, { ...(feed.councils["co-own"] as Council), outcome: "decided" }, ADA).sendBack, false);
  assert.equal(waysWith(feed, { ...one, outcome: "cancelled" }, ADA).sendBack, false);
  const again = story({ council_id: "co-1", requested_by: "user:ada" }, { council_id: "co-2", requested_by: "user:ada", retry_of: "co-1" });
  assert.equal(waysWith(again, done, ADA).sendBack, false);
  assert.equal(whyNotAsk(feed), "");
  for (const rests of [{ started: false }, { paused: true }, { parked: "x" }, { closed: true }, { cancelled: true }]) {
    assert.notEqual(whyNotAsk({ ...feed, ...rests }), "");
    assert.equal(waysWith({ ...feed, ...rests }, done, ADA).sendBack, false);
  }
});

test("a question is sent with its aims, its budget in seconds, and a task where code is wanted", () => {
  const ask = { ...NEW_ASK, question: " Which way? ", aims: "Links stay\n\n readable ", requirements: "Name one", minutes: "5" };
  assert.deepEqual(askBody("st-1", ask), {
    story_id: "st-1",
    role: "architect",
    output_kind: "text",
    task_description: "Which way?",
    constraints: { rubric: [{ name: "aim 1", text: "Links stay" }, { name: "aim 2", text: "readable" }], requirements: ["Name one"] },
    budget: { tokens: 50_000, wall_s: 300 },
  });
  const code = { ...ask, output: "code_patch" as const };
  assert.deepEqual([seatOf(code), seatOf({ ...code, role: "qa" }), isComplete(code), isComplete({ ...code, task: "tk-1" })], ["developer", "qa", false, true]);
  assert.equal(askBody("st-1", { ...code, task: "tk-1" })["task_id"], "tk-1");
  for (const odd of [{ tokens: "0" }, { tokens: "many" }, { minutes: "-1" }, { minutes: "" }, { aims: " \n" }, { question: " " }]) assert.equal(isComplete({ ...ask, ...odd }), false);
  assert.ok(isComplete(ask));
});

test("an answer of any form is texts under their names, and nothing breaks on an odd one", () => {
  assert.deepEqual(partsOf({ addressed: [{ ref: "ac-1", how: "by a table" }, "x"], n: 3, summary: "So" }), [
    { name: "summary", texts: ["So"] },
    { name: "addressed", texts: ["ref: ac-1, how: by a table", "x"] },
    { name: "n", texts: ["3"] },
  ]);
  assert.deepEqual(partsOf({ edits: [{ path: "a.py", text: "x\ny" }] })[0]?.texts, ["path:\na.py\ntext:\nx\ny"]);
  assert.deepEqual([partsOf(null), partsOf(undefined), partsOf("words"), partsOf([1])], [[], [], [{ name: "", texts: ["words"] }], [{ name: "", texts: ["[1]"] }]]);
  assert.equal(questionOf({ request: { task_description: "Which?" } }), "Which?");
  for (const odd of [null, {}, { request: 3 }]) assert.equal(questionOf(odd), "");
});

test("an accepted council is an outcome, and only a command that nobody took yet is waited for", () => {
  assert.equal(isPending(202, { status: "accepted", status_url: "/api/councils/co-1" }), false);
  assert.equal(isPending(202, { status: "pending", status_url: "/api/commands/c-1" }), true);
  assert.equal(isPending(200, { status: "pending", status_url: "/api/commands/c-1" }), false);
});
