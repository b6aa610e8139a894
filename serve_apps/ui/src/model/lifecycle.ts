/** A lifecycle as a graph: its states, the ways between them, and what each way needs. */

import { type Body, record, records, text, texts } from "./envelope.ts";
import type { Edge, Node } from "./layout.ts";

export interface Way {
  readonly from: string;
  readonly event: string;
  readonly to: string;
  readonly kind: string;
  readonly by: readonly string[];
  readonly gate: string;
  readonly guards: readonly string[];
}

/** Every transition of one lifecycle of the rules in force, in their order. */
export function waysOf(content: Body, lifecycle: string): readonly Way[] {
  return records(record(record(content, "lifecycles"), lifecycle), "transitions").map((one) => ({
    from: text(one, "from"),
    event: text(one, "event"),
    to: text(one, "to"),
    kind: text(one, "kind"),
    by: texts(one, "by"),
    gate: text(one, "gate"),
    guards: texts(one, "guards"),
  }));
}

export interface Drawn {
  readonly nodes: readonly Node[];
  readonly edges: readonly Edge[];
}

/** Nodes and edges; a state is past, current or ahead, in the order of the lifecycle. */
export function drawn(states: readonly string[], ways: readonly Way[], current: string): Drawn {
  const at = states.indexOf(current);
  return {
    nodes: states.map((id, n) => ({ id, label: id, kind: n < at ? "past" : n === at ? "current" : "ahead" })),
    edges: ways.map((way) => ({ from: way.from, to: way.to, label: way.event })),
  };
}

export interface GuardValue {
  readonly name: string;
  /** Null where the guard is not looked at now: the story is in another state. */
  readonly ok: boolean | null;
  readonly message: string;
}

export interface Offered extends Way {
  readonly values: readonly GuardValue[];
}

/** The ways out of one state, with each guard's value where the fleet just said it. */
export function offers(ways: readonly Way[], state: string, moves: Body, current: string): readonly Offered[] {
  const told = state === current ? records(moves, "items") : [];
  return ways
    .filter((way) => way.from === state)
    .map((way) => {
      const found = told.find((one) => text(one, "event") === way.event && text(one, "to") === way.to);
      const values = found ? records(found, "guards") : [];
      return {
        ...way,
        values: way.guards.map((name) => {
          const value = values.find((one) => text(one, "name") === name);
          return { name, ok: value ? value["ok"] === true : null, message: value ? text(value, "message") : "" };
        }),
      };
    });
}
