/** The trees of a story: every state of its files that has a name. */

import type { StoryFeed } from "./story.ts";

export interface NamedTree {
  readonly digest: string;
  readonly name: string;
}

/** The trees that the story went through, the newest first, each once. */
export function treesOf(feed: Pick<StoryFeed, "merges" | "scores" | "tasks">): readonly NamedTree[] {
  const found = new Map<string, string>();
  for (const [n, one] of feed.merges.entries()) {
    const task = feed.tasks[one.taskId]?.title;
    if (n === 0 && one.base) found.set(one.base, "before the work");
    if (one.result && !found.has(one.result)) found.set(one.result, task ? `after “${task}”` : n === 0 ? "the start" : `merge ${n + 1}`);
  }
  for (const one of feed.scores) if (one.tree && !found.has(one.tree)) found.set(one.tree, `measured: ${one.score} points`);
  return [...found].map(([digest, name]) => ({ digest, name })).reverse();
}
