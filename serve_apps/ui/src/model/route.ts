/** Addresses of the page: everything after `#`, so that any static server will do. */

export type Route =
  | { readonly name: "board" | "new" | "gates" | "project" | "context" | "usage" | "audit" | "agents" | "environments" }
  | { readonly name: "gate"; readonly story: string; readonly approval: string }
  | { readonly name: "story"; readonly story: string; readonly tab: string; readonly item: string };

export function parseRoute(hash: string): Route {
  const [name, first, second, third] = hash.replace(/^#\/?/, "").split("/").map(plain);
  if (name === "story" && first) return { name, story: first, tab: second || "overview", item: third || "" };
  if (name === "gates" && first && second) return { name: "gate", story: first, approval: second };
  if (name === "new" || name === "gates" || name === "project" || name === "context") return { name };
  if (name === "usage" || name === "audit" || name === "agents" || name === "environments") return { name };
  return { name: "board" };
}

export function storyHref(story: string, tab = "overview"): string {
  return `#/story/${encodeURIComponent(story)}/${encodeURIComponent(tab)}`;
}

/** One thing in a part of a story's page: a decision, a task. */
export function itemHref(story: string, tab: string, item: string): string {
  return `${storyHref(story, tab)}/${encodeURIComponent(item)}`;
}

export function gateHref(story: string, approval: string): string {
  return `#/gates/${encodeURIComponent(story)}/${encodeURIComponent(approval)}`;
}

/** The part of a story's page that shows what a path of the interface names; "" for what has no page. */
export function tabOf(path: string): string {
  const name = /^\/api\/(?:planner\/stories\/[^/]+\/)?([a-z]+)/.exec(path)?.[1] ?? "";
  if (/^\/api\/planner\/stories\/[^/]+(#|$)/.test(path)) return "overview";
  return TAB_OF[name] ?? "";
}

const TAB_OF: Readonly<Record<string, string>> = {
  tasks: "tasks",
  plans: "overview",
  councils: "council",
  decisions: "decisions",
  runs: "work",
  steps: "work",
  approvals: "activity",
  report: "report",
};

function plain(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
