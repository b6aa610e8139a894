/** What a person may do with a task where it is now: hold a review, give it back, say yes or no (LC-103..LC-117, LC-130). */

import type { Person } from "./decisions.ts";
import type { StoryFeed, Task } from "./story.ts";

/** What a refusal needs at least. */
export const ENOUGH = 10;

export interface Deed {
  /** Of the task workflow; `claim` and `release` are requests of their own. */
  readonly action: string;
  readonly label: string;
  readonly tone: "primary" | "danger" | "";
  /** Whether it needs a reason. */
  readonly why: boolean;
}

const HOLD: Readonly<Record<string, { readonly role: string; readonly action: string }>> = {
  pending_arch_review: { role: "architect", action: "CLAIM_REVIEW" },
  pending_qa: { role: "qa", action: "CLAIM_TESTING" },
};

const GIVE: Readonly<Record<string, { readonly role: string; readonly yes: string; readonly no: string }>> = {
  arch_reviewing: { role: "architect", yes: "APPROVE_DESIGN", no: "REJECT_DESIGN" },
  qa_testing: { role: "qa", yes: "APPROVE_TESTS", no: "REJECT_TESTS" },
};

/** Who has the task at this time; "" when nobody has. */
export function holder(task: Task, nowMs: number): string {
  return task.claim && task.claim.expiresAt > nowMs ? task.claim.principal : "";
}

export function isOver(task: Task): boolean {
  return task.state === "done" || task.state === "cancelled";
}

/** What this person may do now; what takes nobody further is not among it. */
export function deeds(feed: StoryFeed, task: Task, me: Person | null, nowMs: number): readonly Deed[] {
  if (!me || isOver(task) || feed.closed || feed.cancelled) return [];
  const has = (role: string): boolean => me.roles.includes(role);
  const held = holder(task, nowMs);
  const isAccepting = task.state === "pending_po_approval" && has("po");
  const found: Deed[] = [];
  // A parked story takes the word of its product owner on finished work, and nothing else (LC-93).
  if (!feed.parked) found.push(...reviewing(task, me, held), ...working(task, me, held));
  if (isAccepting)
    found.push(
      { action: "APPROVE_STORY", label: "Accept the work", tone: "primary", why: false },
      { action: "REQUEST_REWORK", label: "Ask for rework", tone: "", why: true },
      { action: "REJECT_STORY", label: "Turn the task down", tone: "danger", why: true },
    );
  if (!feed.parked && held && (held === me.principal || has("po")))
    found.push({ action: "release", label: held === me.principal ? "Give it back" : `Take it from ${named(held)}`, tone: "", why: false });
  if (!feed.parked && has("po") && !isAccepting) found.push({ action: "DISCARD_TASK", label: "Discard the task", tone: "danger", why: true });
  return found;
}

function reviewing(task: Task, me: Person, held: string): readonly Deed[] {
  const hold = HOLD[task.state];
  if (hold && me.roles.includes(hold.role) && task.author !== me.principal && (held === "" || held === me.principal))
    return [{ action: hold.action, label: "Hold the review", tone: "primary", why: false }];
  const give = GIVE[task.state];
  if (!give || held !== me.principal || !me.roles.includes(give.role)) return [];
  return [
    { action: give.yes, label: "Approve", tone: "primary", why: false },
    { action: give.no, label: "Reject", tone: "danger", why: true },
  ];
}

function working(task: Task, me: Person, held: string): readonly Deed[] {
  const isFree = task.state === "implementing" && held === "" && me.roles.includes(task.role);
  return isFree ? [{ action: "claim", label: "Hold the work", tone: "", why: false }] : [];
}

/** What the task waits for, in a sentence. */
export function waitsFor(feed: StoryFeed, task: Task, nowMs: number): string {
  const held = holder(task, nowMs);
  if (isOver(task)) return task.state === "done" ? "It is done." : "Nobody works on it any more.";
  if (held) return `${named(held)} holds ${task.state in GIVE ? "its review" : "it"}; the story waits for that.`;
  if (feed.parked) return "The story is parked: let it go on first.";
  const role = HOLD[task.state]?.role;
  if (role) return `It waits for a review by ${role === "qa" ? "qa" : "an architect"}.`;
  if (task.state in GIVE) return "An agent reviews it now.";
  return ELSE[task.state] ?? "The team goes on with it.";
}

const ELSE: Readonly<Record<string, string>> = {
  todo: "Nobody works on it yet.",
  implementing: "The team works on it.",
  pending_po_approval: "It waits for the word of a product owner.",
};

function named(principal: string): string {
  return principal.replace(/^\w+:/, "");
}
