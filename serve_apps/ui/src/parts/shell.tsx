import { type ReactNode, useEffect } from "react";
import { CHANGED, useApi, useLoaded, useMe } from "../hooks.ts";
import type { Route } from "../model/route.ts";
import { actorName } from "./basics.tsx";
import { readStories } from "../screens/stories.ts";

const PAGES: readonly { readonly name: Route["name"]; readonly href: string; readonly label: string }[] = [
  { name: "board", href: "#/board", label: "Board" },
  { name: "gates", href: "#/gates", label: "Gates" },
  { name: "project", href: "#/project", label: "Project" },
  { name: "context", href: "#/context", label: "Packs" },
  { name: "usage", href: "#/usage", label: "Usage" },
  { name: "audit", href: "#/audit", label: "Audit" },
  { name: "agents", href: "#/agents", label: "Agents" },
  { name: "environments", href: "#/environments", label: "Environments" },
];

/** Who may look at a page that is not for everybody. */
const FOR: Partial<Readonly<Record<Route["name"], readonly string[]>>> = { environments: ["admin", "devops"], agents: ["admin"] };

const TITLES: Readonly<Record<Route["name"], string>> = {
  board: "Board",
  new: "New story",
  gates: "Gates",
  gate: "Decide",
  project: "Project",
  context: "Context packs",
  usage: "Usage",
  audit: "Audit",
  agents: "Agents",
  environments: "Environments",
  story: "Story",
};

/** The frame of every page: where one is, where one can go, how many decisions wait. */
export function Shell({ route, onSignOut, children }: {
  readonly route: Route;
  readonly onSignOut: () => void;
  readonly children: ReactNode;
}): ReactNode {
  const api = useApi();
  const { data, reload } = useLoaded(() => readStories(api), "waiting", 5_000);
  const me = useMe();
  useEffect(() => {
    addEventListener(CHANGED, reload);
    return () => removeEventListener(CHANGED, reload);
  }, [reload]);
  const waiting = data?.reduce((sum, one) => sum + one.gates.length, 0) ?? 0;
  useEffect(() => {
    document.title = `${waiting ? `(${waiting}) ` : ""}${TITLES[route.name]} · SWE Fleet`;
  }, [waiting, route.name]);
  // What nobody may look at is not offered.
  const pages = PAGES.filter((page) => FOR[page.name] === undefined || me?.roles.some((role) => FOR[page.name]?.includes(role)));
  const current = route.name === "gate" ? "gates" : route.name === "story" || route.name === "new" ? "board" : route.name;
  return (
    <>
      <a className="skip" href="#main" onClick={skip}>
        To the content
      </a>
      <header className="top">
        <a className="brand" href="#/board" aria-label="SWE Fleet, to the board">
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <rect width="32" height="32" rx="8" />
            <path d="M7 21 16 8l9 13h-6l-3-5-3 5z" />
          </svg>
          <span>SWE Fleet</span>
        </a>
        <nav aria-label="Pages">
          {pages.map((page) => (
            <a key={page.name} href={page.href} aria-current={current === page.name ? "page" : undefined}>
              {page.label}
              {page.name === "gates" && waiting ? (
                <span className="bubble" aria-label={`, ${waiting} waiting`}>
                  {waiting}
                </span>
              ) : null}
            </a>
          ))}
        </nav>
        {me ? (
          <span className="me" title={me.principal}>
            {actorName(me.principal)} <span className="hint">{me.roles.join(", ")}</span>
          </span>
        ) : null}
        <button type="button" className="quiet" onClick={onSignOut}>
          Sign out
        </button>
      </header>
      {children}
    </>
  );
}

function skip(event: { preventDefault: () => void }): void {
  // The address after # names the page, so the jump is made by hand.
  event.preventDefault();
  document.getElementById("main")?.focus();
}
