import { type ReactNode } from "react";
import type { Api } from "../api/client.ts";
import { Problem } from "../api/client.ts";
import { useApi, useLoaded, useMe, useNow } from "../hooks.ts";
import { mayDelegate } from "../model/delegations.ts";
import { type Body, isRecord, number, record, records, text } from "../model/envelope.ts";
import { gateName } from "../model/feed.ts";
import { tokens, until } from "../model/format.ts";
import { gateHref } from "../model/route.ts";
import { Badge, Empty, Loading, Trouble } from "../parts/basics.tsx";
import { Delegations } from "../parts/delegations.tsx";
import { readStories } from "./stories.ts";

interface Line {
  readonly id: string;
  readonly gate: string;
  readonly role: string;
  readonly storyId: string;
  readonly storyTitle: string;
  readonly taskTitle: string;
  readonly expiresAt: number;
  readonly verdict: string;
  readonly tokens: number;
  readonly mine: boolean;
}

export async function readGates(api: Api): Promise<readonly Line[]> {
  try {
    const page = await api.get("/api/approvals", {}, { status: "requested", limit: 100 });
    return isRecord(page) ? records(page, "items").map(lineOf) : [];
  } catch (error) {
    if (!(error instanceof Problem) || !error.isMissing) throw error;
    return fromStories(api);
  }
}

function lineOf(card: Body): Line {
  const story = record(card, "story");
  return {
    id: text(card, "approval_id"),
    gate: text(card, "gate"),
    role: text(card, "role"),
    storyId: text(story, "story_id"),
    storyTitle: text(story, "title"),
    taskTitle: text(card, "task_title"),
    expiresAt: Date.parse(text(card, "expires_at")) || 0,
    verdict: text(record(card, "verdict"), "verdict"),
    tokens: number(record(card, "cost"), "tokens"),
    mine: card["can_decide"] !== false,
  };
}

/** The same from the stories themselves, for a gateway without an inbox. */
async function fromStories(api: Api): Promise<readonly Line[]> {
  const waiting = (await readStories(api)).filter((one) => one.waiting_for !== null).slice(0, 50);
  const views = await Promise.all(waiting.map((one) => api.get("/api/planner/stories/{story_id}", { story_id: one.story_id })));
  return views.flatMap((view) =>
    view.approvals
      .filter((one) => one.status === "requested")
      .map((one) => ({
        id: one.approval_id,
        gate: one.gate,
        role: one.role,
        storyId: view.story_id,
        storyTitle: view.title,
        taskTitle: "",
        expiresAt: 0,
        verdict: "",
        tokens: view.tokens,
        mine: true,
      })),
  );
}

/** Everything that waits for a person. */
export function GatesScreen(): ReactNode {
  const api = useApi();
  const { data, problem } = useLoaded(() => readGates(api), "gates", 4000);
  const now = useNow(10_000);
  const me = useMe();
  return (
    <>
      <div className="page-head">
        <h1>Gates</h1>
      </div>
      <Trouble problem={problem} />
      {data === undefined ? (
        problem ? null : <Loading what="what waits" />
      ) : data.length === 0 ? (
        <Empty>Nothing waits for a person.</Empty>
      ) : (
        <ul className="inbox">
          {data.map((one) => (
            <li key={`${one.storyId} ${one.id}`}>
              <a className="gate-line" href={gateHref(one.storyId, one.id)}>
                <span className="gate-what">
                  <strong>{gateName(one.gate)}</strong>
                  <span>{one.taskTitle ? `${one.taskTitle} · ${one.storyTitle}` : one.storyTitle}</span>
                </span>
                <span className="gate-facts">
                  <Badge tone={one.mine ? "person" : "plain"}>{one.mine ? "You can decide" : `For ${one.role}`}</Badge>
                  {one.verdict ? <Badge tone={one.verdict === "pass" ? "good" : one.verdict === "block" ? "bad" : "warn"}>{one.verdict}</Badge> : null}
                  {one.tokens ? <span className="hint">{tokens(one.tokens)} used</span> : null}
                  {one.expiresAt ? <span className="hint">{until(one.expiresAt, now)}</span> : null}
                </span>
              </a>
            </li>
          ))}
        </ul>
      )}
      {mayDelegate(me) ? <Delegations /> : null}
    </>
  );
}
