/** Sums and choices over a story that several screens show. */

import type { Approval, Score, Step, StoryFeed } from "./story.ts";

/** Gates that wait for a person now, oldest first. */
export function waiting(feed: StoryFeed): readonly Approval[] {
  return Object.values(feed.approvals).filter((one) => one.status === "requested");
}

/** The gate that a person may ask for again: nobody answered, or somebody said no and the story stayed; null when there is none (AP-76). */
export function askable(feed: StoryFeed): Approval | null {
  if (feed.closed || feed.cancelled || waiting(feed).length) return null;
  const last = Object.values(feed.approvals).findLast((one) => !one.gate.startsWith("tool:"));
  if (!last || !["expired", "rejected"].includes(last.status) || last.gate === "task_acceptance") return null;
  const moved = feed.transitions.at(-1)?.ts ?? "";
  return moved >= last.decidedAt ? null : last;
}

export interface Spent {
  readonly key: string;
  readonly tokens: number;
  readonly costMicrousd: number;
  readonly unpriced: number;
  readonly steps: number;
}

/** Tokens and money by role, greatest first. */
export function spentByRole(feed: StoryFeed): readonly Spent[] {
  const sums = new Map<string, Spent>();
  for (const step of Object.values(feed.steps)) {
    const before = sums.get(step.role) ?? { key: step.role, tokens: 0, costMicrousd: 0, unpriced: 0, steps: 0 };
    const tokens = step.tokensIn + step.tokensOut;
    sums.set(step.role, {
      key: step.role,
      tokens: before.tokens + tokens,
      costMicrousd: before.costMicrousd + step.costMicrousd,
      unpriced: before.unpriced + (step.priced ? 0 : tokens),
      steps: before.steps + 1,
    });
  }
  return [...sums.values()].sort((a, b) => b.tokens - a.tokens || a.key.localeCompare(b.key));
}

/** What a step was about: the draft that was measured, or the task. */
export function stepAbout(feed: StoryFeed, step: Step): string {
  const parts = step.id.split("/");
  for (const council of Object.values(feed.councils)) {
    const found = council.candidates.find((one) => parts.includes(one.id));
    if (found) return `draft of ${found.member}`;
  }
  return Object.values(feed.tasks).find((task) => task.id === step.taskId || parts.includes(task.id))?.title ?? "";
}

/** The latest score of the work, null before the first. */
export function latestScore(feed: StoryFeed): Score | null {
  return feed.scores.at(-1) ?? null;
}
