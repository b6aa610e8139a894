import assert from "node:assert/strict";
import { test } from "node:test";
import { NEW_ASK, askBody, isComplete, takesTask } from "../src/model/councils.ts";
import { NEW_GRANT, canGrant, delegateName, grantBody, heldBy, mayDelegate } from "../src/model/delegations.ts";
import { type Approval, EMPTY, type StoryFeed, reduceAll } from "../src/model/feed.ts";
import { parseRoute } from "../src/model/route.ts";

const NOW = 1_000;

function after(...events: readonly (readonly [type: string, body: Record<string, unknown>])[]): StoryFeed {
  return reduceAll(EMPTY, events.map(([type, body], at) => ({ event_id: "", stream: "", version: at + 1, type, ts: "", actor: "", origin: "", hash: "", body })));
}

const DELEGATION = { delegation_id: "dg-1", gate: "approve_scope", delegate: "agent:architect-900", council: "architect", granted_by: "user:ada", valid_until: 2_000 };
const started = (changes: object = {}): readonly [string, Record<string, unknown>] => ["StoryStarted", { delegations: [{ ...DELEGATION, ...changes }] }];
const asked = (id: string): readonly [string, Record<string, unknown>] => ["ApprovalRequested", { approval_id: id, gate: "approve_scope", role: "po", subject: { kind: "content", digest: "sha256:1" } }];
const opened = (id: string): readonly [string, Record<string, unknown>] => ["CouncilOpened", { council_id: `co-${id}`, kind: "gate", approval_id: id }];
const line = (feed: StoryFeed, id = "ap-1", now = NOW): string => heldBy(feed, feed.approvals[id] as Approval, now)?.line ?? "";

test("a gate says which council holds it, and what that came to", () => {
  assert.match(line(after(started(), asked("ap-1"))), /^A council of role architect, by delegation of ada, is convened/);
  const open = after(started(), asked("ap-1"), opened("ap-1"));
  assert.match(line(open), /looks at it now/);
  const ended = (type: string, body: object): string => line(after(started(), asked("ap-1"), opened("ap-1"), [type, { council_id: "co-ap-1", ...body }]));
  assert.match(ended("CouncilDecided", { verdict: "approve" }), /said yes\.$/);
  assert.match(ended("CouncilDecided", { verdict: "reject" }), /said no: a person decides/);
  assert.match(ended("CouncilUndecided", { reason: "no_quorum" }), /came to no decision: a person decides/);
  assert.match(ended("CouncilCancelled", { reason: "I look myself" }), /was ended: a person decides/);
});

test("a gate that no council holds any more says that a person decides, and why", () => {
  assert.equal(line(after(["StoryStarted", {}], asked("ap-1"))), "");
  assert.match(line(after(started(), asked("ap-1")), "ap-1", 2_000), /is over: a person decides/);
  assert.match(line(after(started(), asked("ap-1"), ["DelegationRevoked", { delegation_id: "dg-1", gate: "approve_scope", reason: "no agent serves it" }])), /is no more: no agent serves it A person decides/);
  const again = after(started(), asked("ap-1"), opened("ap-1"), ["CouncilDecided", { council_id: "co-ap-1", verdict: "reject" }], asked("ap-2"));
  assert.match(line(again, "ap-2"), /did not say yes: a person decides/);
  assert.match(line(after(started({ council: null, delegate: "agent:reviewer-001" }), asked("ap-1"))), /^ada delegated it to an agent/);
});

test("gates are delegated by people in role po or admin, for thirty days at most", () => {
  const people = [["user:ada", "po"], ["user:root", "admin"], ["user:dev", "developer"], ["agent:po-001", "po"]] as const;
  assert.deepEqual(people.map(([principal, role]) => mayDelegate({ principal, roles: [role] })), [true, true, false, false]);
  const grant = { ...NEW_GRANT, delegate: "council:architect", reason: "small changes may begin", projects: "pr-a, pr-b" };
  assert.ok(canGrant(grant));
  for (const wrong of [{ delegate: "" }, { reason: "short" }, { days: "0" }, { days: "31" }, { days: "1.5" }, { days: "" }]) assert.ok(!canGrant({ ...grant, ...wrong }));
  const body = grantBody({ ...grant, days: "30" }, 0);
  assert.deepEqual([body["delegate"], body["projects"]], ["council:architect", ["pr-a", "pr-b"]]);
  assert.ok(Date.parse(String(body["valid_until"])) < 30 * 86_400_000);
  assert.deepEqual([delegateName("council:qa"), delegateName("reviewer")], ["a council of role qa", "an agent of role reviewer"]);
  assert.equal(parseRoute("#/agents").name, "agents");
});

test("an estimate is asked of a task or of the whole story, and shows values only as its members see them", () => {
  const ask = { ...NEW_ASK, output: "estimate" as const, question: "How much is it?", aims: "Tests count too" };
  assert.ok(isComplete(ask) && takesTask(ask));
  const whole = askBody("st-1", ask);
  assert.deepEqual([whole["kind"], whole["output_kind"], whole["role"], "task_id" in whole], ["estimate", "text", "developer", false]);
  assert.equal(askBody("st-1", { ...ask, task: "tk-1" })["task_id"], "tk-1");
  assert.ok(!("task_id" in askBody("st-1", { ...ask, output: "text", task: "tk-1" })));
  const feed = after(["CouncilOpened", { council_id: "co-1", kind: "estimate" }], ["EstimateCast", { council_id: "co-1", round: 1, member_id: "developer-001", value: 8 }]);
  assert.deepEqual(feed.councils["co-1"]?.heard, ["developer-001"]);
  assert.equal(feed.timeline[1]?.line, "developer-001 gave a value");
  const next = after(["CouncilOpened", { council_id: "co-1", kind: "estimate" }], ["BallotRefused", { council_id: "co-1", voter: "developer-002", code: "invalid" }], ["RoundOpened", { council_id: "co-1", round: 2, phase: "balloting" }]);
  assert.deepEqual(next.councils["co-1"]?.heard, []);
  const done = after(["CouncilOpened", { council_id: "co-1", kind: "estimate" }], ["CouncilDecided", { council_id: "co-1", estimate: 5, decided_in: "P6" }]);
  assert.deepEqual([done.councils["co-1"]?.estimate, done.timeline[1]?.line], [5, "The council estimates 5 points"]);
});
