/** Words about context packs: what their pieces are, and what did not fit. */
import { count } from "./format.ts";

const PIECES: Readonly<Record<string, string>> = {
  CASE_HEADER: "title, description, criteria, constraints and state of the story",
  PLAN_HEADER: "the plan's status, its reasons and the number of tasks in each state",
  DECISIONS_GLOBAL: "every decision of the story, and those of the project that hold for all stories",
  DECISIONS_GLOBAL_MIN: "the titles and states of all decisions",
  DECISIONS_RELEVANT_ROLE: "the decisions on tasks of this role, or the first five",
  DEPS_DECISIONS: "which decision depends on which",
  DEPS_RELEVANT: "what the decisions and tasks of this role depend on",
  SUBTASKS_ALL: "all tasks of the plan in full",
  SUBTASKS_ALL_MIN: "title, role and state of all tasks",
  SUBTASKS_ROLE: "the tasks of this role in full",
  SUBTASKS_ROLE_MIN: "title and state of the tasks of this role",
  MILESTONES: "the last ten milestones",
  SUMMARY_LAST: "the last verified summary",
};

/** What a piece of a pack holds; empty for one that this page does not know. */
export function pieceWords(scope: string): string {
  return PIECES[scope] ?? "";
}

const SHOWN = 12;

/** What of a piece was left out: some of its ids, and how many there are beside them. */
export function leftOutWords(ids: readonly string[], items: number): string {
  const shown = ids.slice(0, SHOWN);
  const more = Math.max(items, ids.length) - shown.length;
  if (!shown.length) return count(more, "item");
  return more > 0 ? `${shown.join(", ")} and ${count(more, "more", "more")}` : shown.join(", ");
}
