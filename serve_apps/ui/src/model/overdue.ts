/** Which tasks are past a time limit of their workflow, and for how long (LC-131..LC-136). */

import { type Body, record, records, text, texts } from "./envelope.ts";
import type { StoryFeed, Task } from "./story.ts";

export interface Stage {
  readonly states: readonly string[];
  readonly role: string;
  /** Until somebody takes it, in milliseconds; null without such a limit. */
  readonly waitMs: number | null;
  /** All of its states together. */
  readonly slaMs: number;
}

export interface Limits {
  readonly stages: readonly Stage[];
  /** From the moment at which nothing holds a task back until it is done; null without such a limit. */
  readonly taskMs: number | null;
  /** The states of a task in the order of its workflow. */
  readonly states: readonly string[];
}

export const NO_LIMITS: Limits = { stages: [], taskMs: null, states: [] };

/** The limits of the rules in force. */
export function limitsOf(content: Body): Limits {
  const workflow = record(content, "task_workflow");
  const ms = (body: Body, key: string): number | null => (typeof body[key] === "number" ? body[key] * 1000 : null);
  const states = records(workflow, "transitions").flatMap((one) => [...texts(one, "from"), text(one, "to")]);
  return {
    stages: records(workflow, "limits").map((one) => ({ states: texts(one, "states"), role: text(one, "role"), waitMs: ms(one, "wait_s"), slaMs: ms(one, "sla_s") ?? Infinity })),
    taskMs: ms(workflow, "task_sla_s"),
    states: [...new Set([text(workflow, "initial"), ...states])].filter(Boolean),
  };
}

export interface Late {
  readonly task: Task;
  readonly byMs: number;
  /** Whose turn it is. */
  readonly role: string;
}

/** The tasks of a story that are past a limit now, the latest first; none of a story that rests. */
export function lateTasks(feed: StoryFeed, limits: Limits, nowMs: number): readonly Late[] {
  if (!feed.started || feed.parked || feed.paused || feed.closed || feed.cancelled) return [];
  return Object.values(feed.tasks)
    .flatMap((task) => {
      const late = lateTask(feed, task, limits, nowMs);
      return late ? [late] : [];
    })
    .sort((a, b) => b.byMs - a.byMs);
}

function lateTask(feed: StoryFeed, task: Task, limits: Limits, nowMs: number): Late | null {
  if (task.state === "done" || task.state === "cancelled") return null;
  const stage = limits.stages.find((one) => one.states.includes(task.state));
  const since = stage ? task.entered[stage.states[0] ?? ""] : undefined;
  const own = stage && since !== undefined ? { task, byMs: nowMs - since - allowed(stage, task.state), role: stage.role } : null;
  const ready = readyMs(feed, task);
  const whole = limits.taskMs !== null && ready !== null ? { task, byMs: nowMs - ready - limits.taskMs, role: "po" } : null;
  // Whose turn it is in this stage can do most about it.
  return [own, whole].find((one) => one !== null && one.byMs >= 0) ?? null;
}

/** What a task may take in the stage, from its first state on: as long as nobody took it, the wait. */
function allowed(stage: Stage, state: string): number {
  return state === stage.states[0] && stage.waitMs !== null ? Math.min(stage.waitMs, stage.slaMs) : stage.slaMs;
}

/** Since when nothing holds the task back; null while something does. */
function readyMs(feed: StoryFeed, task: Task): number | null {
  const needed = task.dependsOn.flatMap((id) => feed.tasks[id] ?? []);
  const begins = [task.entered["todo"], ...needed.map((one) => (one.state === "done" ? one.entered["done"] : undefined))];
  const known = begins.filter((one) => one !== undefined);
  return known.length === begins.length ? Math.max(...known) : null;
}

export interface Overdue {
  readonly story_id: string;
  readonly overdue_s: number | null;
}

export interface LateStory {
  readonly tasks: number;
  /** How long the latest is over. */
  readonly byMs: number;
}

/** By story, how many of its tasks are overdue, and by how long at most. */
export function lateStories(rows: readonly Overdue[]): ReadonlyMap<string, LateStory> {
  const found = new Map<string, LateStory>();
  for (const row of rows) {
    if (row.overdue_s === null) continue;
    const before = found.get(row.story_id) ?? { tasks: 0, byMs: 0 };
    found.set(row.story_id, { tasks: before.tasks + 1, byMs: Math.max(before.byMs, row.overdue_s * 1000) });
  }
  return found;
}
