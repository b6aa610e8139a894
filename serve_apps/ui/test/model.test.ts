import assert from "node:assert/strict";
import { test } from "node:test";
import { filled, problemOf, withQuery } from "../src/api/client.ts";
import { LIFECYCLES, columns, lifecyclesOf } from "../src/model/board.ts";
import { retirement } from "../src/model/checkpoint.ts";
import { type Change, applyChange, changesOf, draftFrom, draftText, editBody, isApplicable, storyBody } from "../src/model/coach.ts";
import { parseEnvelope } from "../src/model/envelope.ts";
import { bytes, cost, count, duration, money, percent, quantity, tokens, until, whole } from "../src/model/format.ts";
import { NODE, place } from "../src/model/layout.ts";
import { inline, parseMarkdown } from "../src/model/markdown.ts";
import { drawn, offers, waysOf } from "../src/model/lifecycle.ts";
import { gateHref, itemHref, parseRoute, storyHref } from "../src/model/route.ts";
import { dropToken, keepDraft, keepToken, keptDraft, takeToken } from "../src/model/session.ts";
import { treesOf } from "../src/model/trees.ts";

const line = (story_id: string, state: string, waiting_for: string | null = null) => ({ story_id, title: story_id, state, disposition: "active", waiting_for });

test("columns stand in the order of the lifecycles that are used", () => {
  assert.deepEqual(columns([line("a", "BUILD")], LIFECYCLES).map((one) => one.state), LIFECYCLES[0]?.states);
  const both = columns([line("a", "DRAFT"), line("b", "DEPLOY")], LIFECYCLES).map((one) => one.state);
  for (const { states } of LIFECYCLES) assert.deepEqual(both.filter((one) => states.includes(one)), [...states]);
  assert.equal(new Set(both).size, both.length);
});

test("no columns for a lifecycle that nothing is in", () => {
  assert.deepEqual(columns([line("a", "PLANNING")], LIFECYCLES).map((one) => one.state), LIFECYCLES[1]?.states);
  assert.ok(columns([line("a", "PLANNING"), line("b", "MONITOR")], LIFECYCLES).some((one) => one.state === "DEPLOY"));
});

test("lifecycles come from the rules in force", () => {
  assert.deepEqual(lifecyclesOf({ lifecycles: { own: { states: { A: { phase: "BUILD" }, B: {} } } } }), [{ name: "own", states: ["A", "B"] }]);
  for (const odd of [{}, { lifecycles: {} }, { lifecycles: { own: 3 } }]) assert.equal(lifecyclesOf(odd), LIFECYCLES);
});

test("a state that nobody knows has a column too, and what waits stands first", () => {
  const found = columns([line("a", "ODD"), line("b", "DRAFT"), line("c", "DRAFT", "gate")], LIFECYCLES);
  assert.deepEqual(found.at(-1)?.stories.map((one) => one.story_id), ["a"]);
  assert.deepEqual(found.find((one) => one.state === "DRAFT")?.stories.map((one) => one.story_id), ["c", "b"]);
  assert.deepEqual(columns([line("a", "DRAFT")], LIFECYCLES, "zz").flatMap((one) => one.stories), []);
});

const draft = { title: "Save 🛒 carts maybe", description: "", criteria: [""] };

test("proposals land where the coach meant them, in code points", () => {
  const clarify: Change = { field: "title", kind: "clarify", span: [18, 18], text: " [CLARIFY]" };
  assert.equal(applyChange(draft, clarify).title, "Save 🛒 carts maybe [CLARIFY]");
  const template: Change = { field: "acceptance_criteria/0", kind: "question", span: null, text: "Given <context>, when <action>, then <outcome>" };
  assert.deepEqual(applyChange(draft, template).criteria, [template.text]);
  assert.ok(isApplicable(template));
  assert.ok(!isApplicable({ field: "title", kind: "question", span: null, text: "Who is it for?" }));
  assert.deepEqual(applyChange({ ...draft, criteria: ["maybe so"] }, { ...clarify, field: "acceptance_criteria/0", span: [5, 5] }).criteria, ["maybe [CLARIFY] so"]);
  assert.equal(applyChange(draft, { ...clarify, field: "nothing" }), draft);
});

test("each proposal stands once, and a story is sent without blank criteria", () => {
  const one = { field: "title", kind: "question", span: null, text: "Who?" };
  assert.equal(changesOf({ changes: [one, one, { ...one, span: [0, 2] }] }).length, 2);
  assert.deepEqual(storyBody({ title: " a ", description: "b", criteria: ["", " c "] }, "L1", "agile"), { title: "a", description: "b", acceptance_criteria: ["c"], rigor: "L1", lifecycle: "agile" });
});

test("an edit names what changed alone, and criteria keep their ids", () => {
  const before = { title: "a", description: "b", criteria: [{ id: "ac-1", text: "one" }, { id: "ac-2", text: "two" }, { id: "ac-3", text: "three" }] };
  const same = { title: " a ", description: "b", criteria: ["one", "two", "three", " "] };
  assert.equal(editBody(before, same), null);
  assert.deepEqual(editBody(before, { ...same, title: "c" }), { title: "c" });
  assert.deepEqual(editBody(before, { ...same, criteria: ["two", "three"] }), { acceptance_criteria: [{ ac_id: "ac-2", text: "two" }, { ac_id: "ac-3", text: "three" }] });
  assert.deepEqual(editBody(before, { ...same, criteria: ["one", "2", "three", "four"] }), {
    acceptance_criteria: [{ ac_id: "ac-1", text: "one" }, { ac_id: "ac-2", text: "2" }, { ac_id: "ac-3", text: "three" }, { text: "four" }],
  });
});

test("a token in the address is kept in the tab and taken out of the address", () => {
  const kept = new Map<string, string>();
  const store = { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => void kept.set(key, value), removeItem: (key: string) => void kept.delete(key) };
  const left: string[] = [];
  const at = (hash: string) => takeToken({ hash, store, replace: (to) => left.push(to) });
  assert.equal(at("#token=abc%2B1"), "abc+1");
  assert.deepEqual(left, ["#/board"]);
  assert.equal(at("#/board"), "abc+1");
  dropToken(store);
  assert.equal(at("#/gates"), null);
  keepToken(store, "x");
  assert.equal(at("#/gates"), "x");
  assert.equal(at("#/story/token=1"), "x");
  assert.equal(left.length, 1);
});

test("addresses lead back to what they name, whatever its id holds", () => {
  assert.deepEqual(parseRoute(storyHref("st/ä%", "work")), { name: "story", story: "st/ä%", tab: "work", item: "" });
  assert.deepEqual(parseRoute(itemHref("st-1", "decisions", "de/1")), { name: "story", story: "st-1", tab: "decisions", item: "de/1" });
  assert.deepEqual(parseRoute(gateHref("st-1", "ap-1")), { name: "gate", story: "st-1", approval: "ap-1" });
  for (const name of ["new", "gates", "project", "context", "usage", "audit", "environments"]) assert.deepEqual(parseRoute(`#/${name}`), { name });
  for (const odd of ["", "#/", "#/nothing", "#/story", "#/story/%E0%A4%A"]) assert.deepEqual(parseRoute(odd), { name: "board" });
});

test("numbers have units", () => {
  assert.deepEqual([percent(0), percent(0.735), percent(1), whole(12_345)], ["0 %", "74 %", "100 %", "12,345"]);
  assert.deepEqual([count(1, "task"), count(1200, "task"), tokens(1), tokens(9_999), tokens(12_345)], ["1 task", "1,200 tasks", "1 token", "9,999 tokens", "12.3K tokens"]);
  assert.deepEqual([money(0), money(1500), money(2_500_000), cost(0, 10), cost(1500, 0), cost(1500, 7)], ["$0.00", "$0.0015", "$2.50", "no price known", "$0.0015", "$0.0015 and 7 tokens without a price"]);
  assert.deepEqual([bytes(5), bytes(2048), bytes(3 * 1024 ** 2), duration(12), duration(61_000), duration(3_660_000)], ["5 B", "2.0 KiB", "3.0 MiB", "12 ms", "1 min 1 s", "1 h 1 min"]);
  assert.deepEqual([quantity("calls", 2), quantity("gpu_ms", 1500), quantity("cost_microusd", 10), until(5, 10), until(0, 1)], ["2 calls", "1.5 s", "$0.0000", "expired", ""]);
});

test("every node has a place of its own, circles too", () => {
  const nodes = ["a", "b", "c", "d"].map((id) => ({ id, label: id, kind: "task" }));
  const edges = [["a", "b"], ["b", "c"], ["c", "a"], ["c", "d"], ["a", "nobody"], ["d", "d"]].map(([from = "", to = ""]) => ({ from, to, label: "" }));
  const { nodes: placed, edges: kept, width } = place(nodes, edges);
  assert.equal(new Set(placed.map(({ x, y }) => `${x} ${y}`)).size, 4);
  assert.equal(kept.length, 4);
  const x = Object.fromEntries(placed.map((node) => [node.id, node.x]));
  assert.ok((x["a"] ?? 0) < (x["b"] ?? 0) && (x["b"] ?? 0) < (x["c"] ?? 0) && (x["c"] ?? 0) < (x["d"] ?? 0));
  assert.equal(width, 4 * NODE.width + 3 * NODE.gapX);
  assert.deepEqual(place([], []), { nodes: [], edges: [], width: 0, height: 0 });
});

test("markdown becomes values, and markup in it stays text", () => {
  const blocks = parseMarkdown("# A `b`\n\ntext <b>x</b>\nmore\n\n| a | b |\n|---|---|\n| 1 | x\\|y |\n\n- one\n- two\n\n```\n<i>\n```\n> said\n");
  assert.deepEqual(blocks.map((one) => one.kind), ["heading", "paragraph", "table", "list", "code", "quote"]);
  assert.deepEqual(blocks[1], { kind: "paragraph", text: [{ kind: "text", text: "text <b>x</b> more" }] });
  assert.equal(blocks[2]?.kind === "table" && blocks[2].rows[0]?.[1]?.map((one) => one.text).join(""), "x|y");
});

test("links that could run something are none", () => {
  for (const href of ["javascript:alert(1)", "data:text/html,x", "vbscript:x", "//host/x", "\\\\host", "JaVaScRiPt:1"]) assert.ok(inline(`[a](${href})`).every((one) => one.kind !== "link"), href);
  assert.deepEqual(inline("[a](https://example.com)"), [{ kind: "link", text: "a", href: "https://example.com" }]);
  assert.deepEqual(inline("[a](/api/tasks/tk-1)"), [{ kind: "link", text: "a", href: "/api/tasks/tk-1" }]);
  assert.deepEqual(inline("a \\* &lt;b&gt; **c**"), [{ kind: "text", text: "a * <b> " }, { kind: "strong", text: "c" }]);
});

test("markdown of any form ends", () => {
  for (const odd of ["|", "|-", "|a\n|-", "- \n  ", "```", "> \n>", "#", "\n\n", "1. a\n   b", "**a", "[x](", "* * *", "|a|\n|:-:|"]) parseMarkdown(odd);
});

test("paths and problems of the interface", () => {
  assert.equal(filled("/api/x/{story_id}/y", { story_id: "a/b c" }), "/api/x/a%2Fb%20c/y");
  assert.equal(withQuery("/a", { b: 1, c: undefined, d: "x y" }), "/a?b=1&d=x+y");
  const problem = problemOf(422, { code: "invalid_input", detail: "no", errors: [{ pointer: "/title", message: "short" }] });
  assert.deepEqual([problem.status, problem.code, problem.message, problem.fields], [422, "invalid_input", "no", [{ pointer: "/title", message: "short" }]]);
  assert.equal(problemOf(500, undefined).code, "unknown");
});

test("only envelopes are taken for envelopes", () => {
  assert.equal(parseEnvelope("no json"), null);
  assert.equal(parseEnvelope("[1]"), null);
  assert.equal(parseEnvelope('{"type": "A"}'), null);
  assert.equal(parseEnvelope('{"type": "A", "version": 1, "body": 3}')?.type, "A");
});

const RULES = {
  lifecycles: {
    own: {
      states: { A: {}, B: {}, C: {} },
      transitions: [
        { from: "A", event: "go", to: "B", kind: "gate", by: ["po"], gate: "go", guards: ["dor_ok", "po_approved"] },
        { from: "B", event: "back", to: "A", kind: "loopback", by: ["po"], guards: ["feedback_given"] },
      ],
    },
  },
};

test("a lifecycle is drawn with what is past, where the story is, and what is ahead", () => {
  const ways = waysOf(RULES, "own");
  const { nodes, edges } = drawn(["A", "B", "C"], ways, "B");
  assert.deepEqual(nodes.map((one) => one.kind), ["past", "current", "ahead"]);
  assert.deepEqual(edges.map((one) => [one.from, one.to, one.label]), [["A", "B", "go"], ["B", "A", "back"]]);
  assert.deepEqual(waysOf(RULES, "none"), []);
  assert.deepEqual(waysOf({ lifecycles: 3 }, "own"), []);
});

test("guards have values where the story is, and names alone elsewhere", () => {
  const ways = waysOf(RULES, "own");
  const moves = { items: [{ event: "go", to: "B", guards: [{ name: "dor_ok", ok: true }, { name: "po_approved", ok: false, message: "the gate waits" }] }] };
  assert.deepEqual(offers(ways, "A", moves, "A")[0]?.values, [
    { name: "dor_ok", ok: true, message: "" },
    { name: "po_approved", ok: false, message: "the gate waits" },
  ]);
  assert.deepEqual(offers(ways, "A", moves, "B")[0]?.values.map((one) => one.ok), [null, null]);
  assert.deepEqual(offers(ways, "C", moves, "A"), []);
});

test("trees of a story stand once each, the newest first, by what made them", () => {
  const merge = (base: string, result: string, taskId = "") => ({ taskId, base, result, commit: "", files: [], at: "" });
  const task = { id: "t", title: "Do it", description: "", role: "", kind: "", dependsOn: [], criteria: [], state: "", feedback: [], author: "", claim: null, entered: {}, events: 1 };
  const score = { tree: "m", score: "90", verdict: "", rigor: "", limitedBy: "", dimensions: [], gates: [], reasons: [], at: "" };
  assert.deepEqual(treesOf({ merges: [], scores: [], tasks: {} }), []);
  assert.deepEqual(treesOf({ merges: [merge("a", "a"), merge("a", "b", "t"), merge("b", "b")], scores: [score], tasks: { t: task } }).map((one) => [one.digest, one.name]), [
    ["m", "measured: 90 points"],
    ["b", "after “Do it”"],
    ["a", "before the work"],
  ]);
});

test("a checkpoint that retired a key names the successor, and another one says nothing", () => {
  assert.equal(retirement({ successor: { name: "swe-fleet/log/two", id: "0a1b2c3d" } }), "key retired, successor swe-fleet/log/two (0a1b2c3d)");
  assert.equal(retirement({ successor: null }), null);
});

test("what was written of a story is kept for the tab and ends with the session", () => {
  const held = new Map<string, string>();
  const store = { getItem: (key: string) => held.get(key) ?? null, setItem: (key: string, value: string) => void held.set(key, value), removeItem: (key: string) => void held.delete(key) };
  const draft = { title: "Print labels", description: "", criteria: ["Given a parcel"] };
  assert.equal(draftFrom(keptDraft(store)), null);
  keepDraft(store, draftText(draft));
  assert.deepEqual(draftFrom(keptDraft(store)), draft);
  dropToken(store);
  assert.equal(held.size, 0);
  keepDraft(store, draftText({ title: " ", description: "", criteria: [""] }));
  assert.equal(held.size, 0);
  assert.equal(draftFrom("[1]"), null);
});
