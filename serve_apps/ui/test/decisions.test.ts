import assert from "node:assert/strict";
import { test } from "node:test";
import { problemOf } from "../src/api/client.ts";
import { BLANK, changedFrom, decisionRows, isComplete, mayDo, mayPropose, proposalBody, replacements } from "../src/model/decisions.ts";
import { adviceOn } from "../src/model/refusal.ts";
import { type Decision, EMPTY, type StoryFeed } from "../src/model/story.ts";

function decision(id: string, more: Partial<Decision> = {}): Decision {
  return { id, title: id, rationale: "It was measured.", category: "QUALITY", author: "user:dev", councilId: "", alternatives: [], affects: [], links: [], status: "PROPOSED", at: "", ...more };
}

function story(...all: Decision[]): StoryFeed {
  return { ...EMPTY, rigor: "L1", decisions: Object.fromEntries(all.map((one) => [one.id, one])) };
}

const needs = (to: string) => [{ rel: "DEPENDS_ON", to }];
const ADA = { principal: "user:ada", roles: ["qa", "po"] };
const DEV = { principal: "user:dev", roles: ["developer"] };
const BY = ["qa", "architect", "po"];

test("what hangs on a decision is counted over every step, once, and what was turned down counts for nothing", () => {
  const all = story(
    decision("a", { affects: ["tk-1"], links: needs("c") }),
    decision("b", { affects: ["tk-1", "tk-2"], links: needs("a") }),
    decision("c", { links: needs("b") }),
    decision("d", { affects: ["tk-3"], links: needs("a"), status: "REJECTED" }),
    decision("e", { links: [{ rel: "RELATES_TO", to: "a" }] }),
  ).decisions;
  assert.deepEqual(decisionRows(all).map((one) => [one.decision.id, one.dependents, one.tasks]), [["e", 0, 0], ["d", 0, 1], ["c", 2, 2], ["b", 2, 2], ["a", 2, 2]]);
  assert.deepEqual(decisionRows(all, "REJECTED").map((one) => one.decision.id), ["d"]);
  assert.deepEqual(decisionRows(all, "", "DATA"), []);
});

test("only who settles a category sees the ways to settle it, and the author may take it back", () => {
  const open = decision("a");
  const held = decision("b", { status: "ACCEPTED" });
  const feed = story(open, held, decision("c", { status: "ACCEPTED" }));
  assert.deepEqual(mayDo(feed, open, BY, ADA), { accept: true, reject: true, supersede: false, propose: true });
  assert.deepEqual(mayDo(feed, held, BY, ADA), { accept: false, reject: false, supersede: true, propose: true });
  assert.deepEqual(mayDo(feed, open, BY, DEV), { accept: false, reject: true, supersede: false, propose: true });
  assert.deepEqual(mayDo(feed, held, BY, DEV), { accept: false, reject: false, supersede: false, propose: true });
  for (const [over, me] of [[{ ...feed, closed: true }, ADA], [{ ...feed, cancelled: true }, ADA], [feed, null], [feed, { ...ADA, roles: [] }]] as const) {
    assert.equal(mayPropose(over, me), false);
    assert.deepEqual(mayDo(over, open, BY, me), { accept: false, reject: false, supersede: false, propose: false });
  }
});

test("at L3 nobody accepts what is their own, and below a person may", () => {
  const own = decision("a", { author: ADA.principal });
  assert.equal(mayDo(story(own), own, BY, ADA).accept, true);
  assert.deepEqual(mayDo({ ...story(own), rigor: "L3" }, own, BY, ADA), { accept: false, reject: true, supersede: false, propose: true });
});

test("the last architecture has no replacement but another one", () => {
  const last = decision("a", { category: "ARCHITECTURE", status: "ACCEPTED" });
  const other = decision("b", { status: "ACCEPTED" });
  assert.deepEqual(replacements(story(last, other), last), []);
  assert.deepEqual(replacements(story(last, other, { ...last, id: "c" }), last).map((one) => one.id), ["b", "c"]);
});

test("a proposal is sent without blank lines, and a changed one points at what it changes", () => {
  const draft = { ...BLANK, title: " Fold letters ", rationale: " Because it is short. ", alternatives: " a table \n\n", affects: ["tk-1"] };
  assert.deepEqual(proposalBody(draft), { title: "Fold letters", rationale: "Because it is short.", category: "IMPLEMENTATION", alternatives: ["a table"], affects: ["tk-1"], links: [] });
  assert.ok(isComplete(draft) && !isComplete(BLANK) && !isComplete({ ...draft, rationale: " short   " }));
  const changed = proposalBody(changedFrom(decision("a", { links: [...needs("b"), { rel: "GOVERNS", to: "c" }] })));
  assert.deepEqual(changed["links"], [{ rel: "DEPENDS_ON", decision_id: "b" }, { rel: "RELATES_TO", decision_id: "a" }]);
});

test("a refusal says what to do: who is asked, what happened meanwhile", () => {
  const refused = (status: number, document: object) => adviceOn(problemOf(status, document));
  assert.match(refused(409, { code: "version_conflict", status: 409, decision_status: "ACCEPTED" }), /accepted it before you.*propose another/i);
  assert.match(refused(409, { code: "version_conflict", decision_status: "SUPERSEDED" }), /in its place/);
  assert.equal(refused(403, { code: "policy_denied", allowed: "qa architect po" }), "This is for qa or architect or po. Ask somebody who holds that role.");
  assert.match(refused(403, { code: "policy_denied", rule_id: "author_is_approver" }), /somebody else settles it/);
  assert.match(refused(422, { code: "invalid_input", field: "by_decision_id", allowed: [] }), /accepted now/);
  assert.match(refused(422, { code: "invalid_input", field: "decision_id", cycle: ["a", "b"] }), /depend on itself/);
  assert.equal(refused(404, { code: "not_found", detail: "there is no decision" }), "");
  assert.equal(adviceOn(problemOf(503, null)), "");
});
