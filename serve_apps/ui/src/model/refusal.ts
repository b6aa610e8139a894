/** What a person can do about a refusal, in plain words; what the fleet says of it stands beside. */

import { type Body, records, text } from "./envelope.ts";

export interface Refusal {
  readonly code: string;
  readonly details: Body;
}

/** One sentence that says what to do; "" where the message of the refusal says it already. */
export function adviceOn({ code, details }: Refusal): string {
  const settled = SETTLED[text(details, "decision_status")];
  if (settled) return settled;
  if (Array.isArray(details["cycle"])) return "It would depend on itself by way of others. Propose it again without one of these links.";
  if (code === "invalid_input" && details["field"] === "by_decision_id") return "Choose one that is accepted now: propose and accept what comes in its place first.";
  if (code === "already_claimed" && text(details, "holder")) return `${text(details, "holder").replace(/^\w+:/, "")} holds it now. Wait until it is given back, or ask for it.`;
  const guard = GUARDS[text(records(details, "guards").find((one) => one["ok"] !== true) ?? {}, "name")];
  if (guard) return guard;
  if (text(details, "action_status") === "invalid_action") return "The task has moved on meanwhile. The buttons that stand here now say what can be done.";
  if (code === "policy_denied") return denied(details);
  return "";
}

const SETTLED: Readonly<Record<string, string>> = {
  ACCEPTED: "Somebody accepted it before you. To change it now, propose another one, and put it in its place once that is accepted.",
  REJECTED: "Somebody rejected it before you. To have it after all, propose it again.",
  SUPERSEDED: "Another decision stands in its place by now. Look at that one.",
};

const GUARDS: Readonly<Record<string, string>> = {
  claimant: "Hold the review first; then say what you think of the work.",
  not_author: "You did this work yourself, so somebody else reviews it.",
  feedback_given: "Write why, in 10 characters or more: the team reads it.",
  scored_report: "The work cannot be approved as it is measured now. Wait for its score, or reject it with a reason.",
  task_acceptance: "The work was not put up for acceptance yet. Wait for its gate.",
};

function denied(details: Body): string {
  if (text(details, "rule_id") === "author_is_approver") return "You wrote it, so somebody else settles it here. Ask a person with one of its roles.";
  const roles = rolesOf(details["allowed"]);
  return roles.length ? `This is for ${roles.join(" or ")}. Ask somebody who holds that role.` : "";
}

/** Roles that an answer names, in a list or in one text. */
export function rolesOf(allowed: unknown): readonly string[] {
  if (typeof allowed === "string") return allowed.split(/[\s,]+/).filter(Boolean);
  return Array.isArray(allowed) ? allowed.filter((one): one is string => typeof one === "string") : [];
}
