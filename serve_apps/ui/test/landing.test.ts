import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { LONGEST_PAUSE_MS, SHORTEST_PAUSE_MS, feedAfter, shownAt, takeOf } from "../landing/player.ts";
import { type Envelope, isRecord, parseEnvelope } from "../src/model/envelope.ts";

const recording: { events: unknown[] } = JSON.parse(readFileSync(new URL("../landing/recording.json", import.meta.url), "utf8"));
const events = recording.events.map((one) => parseEnvelope(JSON.stringify(isRecord(one) ? one : {})));

function at(...seconds: number[]): Envelope[] {
  return seconds.map((second, n) => ({
    event_id: "", stream: "", version: n + 1, type: "StoryScored", actor: "", origin: "", hash: "", body: {},
    ts: new Date(second * 1000).toISOString(),
  }));
}

test("a recording is played at its own pace, with long pauses cut and moments spread", () => {
  const take = takeOf(at(0, 0, 0.3, 60));
  assert.deepEqual(take.at, [60, 120, 420, 420 + LONGEST_PAUSE_MS]);
  assert.equal(take.tookMs, 60_000);
  assert.deepEqual([0, SHORTEST_PAUSE_MS, 419, 10_000].map((ms) => shownAt(take, ms)), [0, 1, 2, 4]);
});

test("nothing recorded is nothing shown", () => {
  const take = takeOf([]);
  assert.deepEqual([take.at, take.tookMs, shownAt(take, 10), feedAfter(take, 3).version], [[], 0, 0, 0]);
});

test("the recording is a whole story, from its first event to a delivered branch, without a gap", () => {
  const known = events.filter((one) => one !== null);
  assert.equal(known.length, events.length);
  assert.deepEqual(known.map((one) => one.version), known.map((_, n) => n + 1));
  const feed = feedAfter(takeOf(known), known.length);
  assert.deepEqual([feed.state, feed.closed], ["DONE", true]);
  assert.ok(Object.values(feed.councils).some((council) => council.outcome === "decided"));
  assert.ok(feed.merges.length >= 2);
});
