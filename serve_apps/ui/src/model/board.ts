/** The board: which columns there are and which stories stand in them. */

import { type Body, record } from "./envelope.ts";

export interface Lifecycle {
  readonly name: string;
  readonly states: readonly string[];
}

/** The packaged lifecycles, each with its states in order. */
export const LIFECYCLES: readonly Lifecycle[] = [
  { name: "agile", states: ["BACKLOG", "DRAFT", "DESIGN", "BUILD", "TEST", "DOCS", "DONE"] },
  { name: "sdlc-no-deploy", states: ["NEW", "PLANNING", "DESIGN", "BUILD", "TEST", "REVIEW", "DONE"] },
  { name: "sdlc", states: ["NEW", "PLANNING", "DESIGN", "BUILD", "TEST", "REVIEW", "DEPLOY", "MONITOR", "DONE"] },
];

/** The lifecycles of the rules in force; the packaged ones when these rules have another form. */
export function lifecyclesOf(content: Body): readonly Lifecycle[] {
  const all = record(content, "lifecycles");
  const found = Object.keys(all).map((name) => ({ name, states: Object.keys(record(record(all, name), "states")) }));
  return found.length && found.every((one) => one.states.length) ? found : LIFECYCLES;
}

export interface Line {
  readonly story_id: string;
  readonly title: string;
  readonly state: string;
  readonly disposition: string;
  readonly waiting_for: string | null;
}

export interface Column<L extends Line> {
  readonly state: string;
  readonly stories: readonly L[];
}

/** Columns in the order of the lifecycles; a state that none of them names comes last. */
export function columns<L extends Line>(stories: readonly L[], lifecycles: readonly Lifecycle[], filter = ""): readonly Column<L>[] {
  const wanted = filter.trim().toLowerCase();
  const shown = stories.filter((one) => !wanted || `${one.title} ${one.story_id}`.toLowerCase().includes(wanted));
  const present = new Set(stories.map((one) => one.state));
  const missing = new Set(present);
  const used = lifecycles.filter((one) => {
    const covered = one.states.filter((state) => missing.delete(state));
    return covered.length > 0;
  });
  const base = used.length ? used : lifecycles.slice(0, 1);
  const states = merged(base.map((one) => one.states));
  for (const state of present) if (!states.includes(state)) states.push(state);
  return states.map((state) => ({ state, stories: shown.filter((one) => one.state === state).sort(byUrgency) }));
}

/** One order that keeps the order of each list as far as they agree. */
function merged(lists: readonly (readonly string[])[]): string[] {
  const found: string[] = [];
  for (const list of lists) {
    let at = 0;
    for (const state of list) {
      const known = found.indexOf(state);
      if (known >= 0) at = known + 1;
      else found.splice(at++, 0, state);
    }
  }
  return found;
}

function byUrgency(a: Line, b: Line): number {
  return Number(b.waiting_for !== null) - Number(a.waiting_for !== null) || a.title.localeCompare(b.title);
}
