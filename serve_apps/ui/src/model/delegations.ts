/** Gates that agents decide in the place of a person: who may, what is delegated, what came of it (LC-77, AP-94). */

import type { Person } from "./decisions.ts";
import type { Body } from "./envelope.ts";
import type { Approval, Council, StoryFeed } from "./story.ts";

/** What a delegate begins with that is a council of the role behind it. */
export const COUNCIL = "council:";

/** Gates that some lifecycle lets be delegated; the fleet itself refuses what it does not allow. */
export const GATES = ["approve_scope", "approve_plan", "approve_design", "task_acceptance", "qa_passed", "docs_ready", "review_approved", "accept_warning"] as const;

export function mayDelegate(me: Person | null): boolean {
  return me !== null && me.principal.startsWith("user:") && me.roles.some((role) => role === "po" || role === "admin");
}

export interface Grant {
  readonly gate: string;
  /** A role that agents may have, or `council:<role>`. */
  readonly delegate: string;
  readonly reason: string;
  readonly days: string;
  readonly maxRigor: string;
  /** Ids of projects, with blanks or commas between them; "" for all. */
  readonly projects: string;
}

export const NEW_GRANT: Grant = { gate: "approve_scope", delegate: "", reason: "", days: "7", maxRigor: "L1", projects: "" };

export function canGrant(grant: Grant): boolean {
  const days = Number(grant.days);
  return grant.delegate !== "" && grant.reason.trim().length >= 10 && Number.isInteger(days) && days >= 1 && days <= 30;
}

/** The body of the request. */
export function grantBody(grant: Grant, nowMs: number): Body {
  // A minute less, so that thirty days are no more than that when the clocks differ.
  const until = new Date(nowMs + Number(grant.days) * 86_400_000 - 60_000);
  return {
    gate: grant.gate,
    delegate: grant.delegate,
    reason: grant.reason.trim(),
    valid_until: until.toISOString(),
    max_rigor: grant.maxRigor,
    projects: grant.projects.split(/[\s,]+/).filter(Boolean),
  };
}

/** Who decides that is no person, in plain words: `a council of role architect`. */
export function delegateName(delegate: string): string {
  return delegate.startsWith(COUNCIL) ? `a council of role ${delegate.slice(COUNCIL.length)}` : `an agent of role ${delegate}`;
}

export interface Held {
  readonly line: string;
  /** The council of this request, once there is one. */
  readonly council: Council | null;
}

/** What holds a gate that was delegated, and what came of it; null where a person decides from the start. */
export function heldBy(feed: StoryFeed, approval: Approval, nowMs: number): Held | null {
  const council = Object.values(feed.councils).find((one) => one.approvalId === approval.id) ?? null;
  const found = feed.delegations.find((one) => one.gate === approval.gate);
  if (!found) return null;
  const by = found.grantedBy.replace(/^\w+:/, "");
  if (!found.council) {
    if (found.ended || found.validUntil <= nowMs) return null;
    return { line: `${by} delegated it to an agent, who decides once a recorded fact supports that.`, council };
  }
  const who = `A council of role ${found.council}, by delegation of ${by},`;
  if (council) return { line: `${who} ${OUTCOMES[outcomeOf(council)]}`, council };
  if (approval.status !== "requested") return null;
  if (found.ended) return { line: `It was delegated to a council of role ${found.council}, and is no more: ${found.ended} A person decides.`, council };
  if (found.validUntil <= nowMs) return { line: `Its delegation to a council of role ${found.council} is over: a person decides.`, council };
  if (wasDenied(feed, approval)) return { line: `${who} had the same before and did not say yes: a person decides.`, council };
  return { line: `${who} is convened. Whoever holds the role may decide first.`, council };
}

function outcomeOf(council: Council): keyof typeof OUTCOMES {
  if (council.outcome !== "decided") return council.outcome || "open";
  return council.verdict === "approve" ? "approve" : "reject";
}

const OUTCOMES = {
  open: "looks at it now. Whoever holds the role may decide first.",
  approve: "said yes.",
  reject: "said no: a person decides.",
  undecided: "came to no decision: a person decides.",
  cancelled: "was ended: a person decides.",
} as const;

function wasDenied(feed: StoryFeed, approval: Approval): boolean {
  return Object.values(feed.councils).some((one) => {
    const earlier = feed.approvals[one.approvalId];
    const isSame = earlier?.gate === approval.gate && earlier.subjectDigest === approval.subjectDigest;
    return isSame && (one.verdict === "reject" || one.outcome === "undecided");
  });
}
