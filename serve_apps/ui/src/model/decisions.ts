/** Decisions of a story: which ones a list shows, what hangs on each, what a person may do with one, and a new one. */

import type { Body } from "./envelope.ts";
import type { Decision, StoryFeed } from "./story.ts";

export const CATEGORIES = ["ARCHITECTURE", "INFRASTRUCTURE", "SECURITY", "QUALITY", "TESTING", "DATA", "SCOPE", "PROCESS", "IMPLEMENTATION"] as const;
export const STATUSES = ["PROPOSED", "ACCEPTED", "REJECTED", "SUPERSEDED"] as const;
/** What a rationale, a note or a reason needs at least. */
export const ENOUGH = 10;

type Decisions = Readonly<Record<string, Decision>>;

export interface Row {
  readonly decision: Decision;
  /** Decisions that need this one, over any number of steps; those that were turned down or replaced count for nothing. */
  readonly dependents: number;
  /** Tasks that it, or one of those, affects. */
  readonly tasks: number;
}

/** The decisions of this status and category ("" for any), the newest first, each with what hangs on it. */
export function decisionRows(all: Decisions, status = "", category = ""): readonly Row[] {
  return Object.values(all)
    .filter((one) => (!status || one.status === status) && (!category || one.category === category))
    .map((decision) => {
      const near = dependents(all, decision.id);
      const tasks = new Set([decision, ...near].flatMap((one) => one.affects));
      return { decision, dependents: near.length, tasks: tasks.size };
    })
    .reverse();
}

function dependents(all: Decisions, id: string): readonly Decision[] {
  const holding = Object.values(all).filter((one) => one.status === "PROPOSED" || one.status === "ACCEPTED");
  const found = new Set([id]);
  for (const wanted of found) {
    for (const one of holding) if (one.links.some((link) => link.rel === "DEPENDS_ON" && link.to === wanted)) found.add(one.id);
  }
  return holding.filter((one) => one.id !== id && found.has(one.id));
}

export interface Person {
  readonly principal: string;
  readonly roles: readonly string[];
}

export interface May {
  readonly accept: boolean;
  readonly reject: boolean;
  readonly supersede: boolean;
  readonly propose: boolean;
}

/** What this person may do with a decision as it is now (AP-72); `settledBy` are the roles of its category. */
export function mayDo(feed: StoryFeed, decision: Decision, settledBy: readonly string[], me: Person | null): May {
  const propose = mayPropose(feed, me);
  if (!me || !propose) return { accept: false, reject: false, supersede: false, propose };
  const settles = settledBy.some((role) => me.roles.includes(role));
  const own = decision.author === me.principal;
  const isOpen = decision.status === "PROPOSED";
  // At L3 nobody settles what is their own with a yes; taking it back is always the author's.
  const accept = isOpen && settles && !(own && feed.rigor === "L3");
  return { accept, reject: isOpen && (own || accept), supersede: decision.status === "ACCEPTED" && settles && replacements(feed, decision).length > 0, propose };
}

/** Whether this person may put a decision on record. */
export function mayPropose(feed: StoryFeed, me: Person | null): boolean {
  return me !== null && me.roles.length > 0 && !feed.closed && !feed.cancelled;
}

/** Accepted decisions that can stand in the place of this one; the last architecture is replaced by another one alone (GR-50). */
export function replacements(feed: StoryFeed, old: Decision): readonly Decision[] {
  const holding = Object.values(feed.decisions).filter((one) => one.status === "ACCEPTED" && one.id !== old.id);
  const isLast = old.category === "ARCHITECTURE" && !holding.some((one) => one.category === "ARCHITECTURE");
  return isLast ? [] : holding;
}

export interface Draft {
  readonly title: string;
  readonly rationale: string;
  readonly category: string;
  /** One in each line. */
  readonly alternatives: string;
  readonly affects: readonly string[];
  readonly needs: readonly string[];
  /** The decision that this is a changed form of; "" for a new one. */
  readonly from: string;
}

export const BLANK: Draft = { title: "", rationale: "", category: "IMPLEMENTATION", alternatives: "", affects: [], needs: [], from: "" };

/** A draft that begins with what a decision says: what is on record stays, so a change is a new one. */
export function changedFrom(one: Decision): Draft {
  return {
    title: one.title,
    rationale: one.rationale,
    category: one.category,
    alternatives: one.alternatives.join("\n"),
    affects: one.affects,
    needs: one.links.filter((link) => link.rel === "DEPENDS_ON").map((link) => link.to),
    from: one.id,
  };
}

export function isComplete(draft: Draft): boolean {
  return draft.title.trim().length > 0 && draft.rationale.trim().length >= ENOUGH;
}

/** The body of a proposal (GR-70). */
export function proposalBody(draft: Draft): Body {
  return {
    title: draft.title.trim(),
    rationale: draft.rationale.trim(),
    category: draft.category,
    alternatives: draft.alternatives.split("\n").map((one) => one.trim()).filter(Boolean),
    affects: draft.affects,
    links: [
      ...draft.needs.map((id) => ({ rel: "DEPENDS_ON", decision_id: id })),
      ...(draft.from && !draft.needs.includes(draft.from) ? [{ rel: "RELATES_TO", decision_id: draft.from }] : []),
    ],
  };
}
