/** What is seen of a recorded story at a moment: its own pace, with pauses cut short. */

import { EMPTY, type StoryFeed, reduceAll } from "../src/model/feed.ts";
import type { Envelope } from "../src/model/envelope.ts";

/** A pause of the recording is shown for this long at most, in ms. */
export const LONGEST_PAUSE_MS = 700;
/** Events of one moment follow each other this fast, in ms, so that a person can see them come. */
export const SHORTEST_PAUSE_MS = 60;

export interface Take {
  readonly events: readonly Envelope[];
  /** When each event is shown, in ms since the start of playing. */
  readonly at: readonly number[];
  /** How long the story really took, in ms. */
  readonly tookMs: number;
}

/** The events in their order, each with the moment when it is shown. */
export function takeOf(events: readonly Envelope[]): Take {
  const at: number[] = [];
  let now = 0;
  let before = Date.parse(events[0]?.ts ?? "");
  for (const event of events) {
    const ts = Date.parse(event.ts);
    now += Math.min(Math.max(ts - before, SHORTEST_PAUSE_MS), LONGEST_PAUSE_MS);
    before = ts;
    at.push(now);
  }
  const first = Date.parse(events[0]?.ts ?? "");
  return { events, at, tookMs: events.length ? before - first : 0 };
}

/** How many events are shown at a moment. */
export function shownAt(take: Take, ms: number): number {
  let shown = 0;
  while (shown < take.at.length && (take.at[shown] ?? Infinity) <= ms) shown += 1;
  return shown;
}

/** The story after so many of its events. */
export function feedAfter(take: Take, shown: number): StoryFeed {
  return reduceAll(EMPTY, take.events.slice(0, shown));
}
