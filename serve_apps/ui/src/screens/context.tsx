import { type ReactNode, useState } from "react";
import type { Got } from "../api/client.ts";
import { useApi, useLoaded, useOptional } from "../hooks.ts";
import { type StoryFeed, words } from "../model/feed.ts";
import { count, short, tokens } from "../model/format.ts";
import { Badge, Card, Empty, Loading, Meter, Trouble } from "../parts/basics.tsx";

interface Line {
  readonly key: string;
  readonly role: string;
  readonly phase: string;
  readonly scopes: readonly string[];
  readonly tokens: number;
  readonly budget: number;
  readonly dropped: number;
  readonly refused: string;
  readonly canRead: boolean;
  /** What counted the tokens; empty when nobody said. */
  readonly counter: string;
}

/** What each role sees in each phase, with its size. */
export function ContextTab({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const api = useApi();
  const all = useOptional(() => api.get("/api/context/{story_id}/packs", { story_id: story }), `packs ${story} ${feed.packs.length}`);
  const [chosen, setChosen] = useState<Line | null>(null);
  if (all.data === undefined) return all.problem ? <Trouble problem={all.problem} /> : <Loading what="the context packs" />;
  const lines = all.data ? all.data.items.map(fromApi) : built(feed);
  if (!lines.length) return <Empty>No context was built yet.</Empty>;
  const phases = [...new Set(lines.map((one) => one.phase))];
  return (
    <div className="stack">
      {phases.map((phase) => (
        <Card key={phase} title={phase}>
          <ul className="packs">
            {lines
              .filter((one) => one.phase === phase)
              .map((one) => (
                <li key={one.key}>
                  <span className="pack-head">
                    <strong>{words(one.role)}</strong>
                    {one.refused ? (
                      <Badge>sees nothing</Badge>
                    ) : (
                      <span>
                        {tokens(one.tokens)} of {tokens(one.budget)}
                      </span>
                    )}
                    {one.dropped ? <Badge tone="warn">{count(one.dropped, "item")} left out</Badge> : null}
                    {one.canRead && !one.refused ? (
                      <button type="button" className="link" aria-expanded={chosen?.key === one.key} onClick={() => setChosen(chosen?.key === one.key ? null : one)}>
                        {chosen?.key === one.key ? "Close" : "Read"}
                      </button>
                    ) : null}
                  </span>
                  {one.refused ? <span className="hint">{one.refused}</span> : <Meter label={`${one.role} in ${phase}`} value={one.tokens} max={one.budget} unit="tokens" />}
                  {one.refused ? null : <span className="hint">{[...one.scopes.map(words), ...(one.counter ? [`counted by ${counted(one.counter)}`] : [])].join(" · ")}</span>}
                  {chosen?.key === one.key ? <PackText story={story} line={one} /> : null}
                </li>
              ))}
          </ul>
        </Card>
      ))}
    </div>
  );
}

/** A tokenizer's digest is told by how it begins. */
function counted(counter: string): string {
  return counter === "estimate" ? "estimate" : counter.replace(/(sha256:[0-9a-f]{8})[0-9a-f]+/, "$1");
}

function fromApi(one: Got<"/api/context/{story_id}/packs">["items"][number]): Line {
  return {
    key: `${one.role} ${one.phase}`,
    role: one.role,
    phase: one.phase,
    scopes: one.scopes,
    tokens: one.token_count,
    budget: one.budget,
    dropped: one.dropped.reduce((sum, item) => sum + item.items, 0),
    refused: one.refused ?? "",
    canRead: true,
    counter: one.counter ?? "",
  };
}

function built(feed: StoryFeed): readonly Line[] {
  return feed.packs.map((one) => ({ ...one, key: `${one.id} ${short(one.hash)}`, refused: "", canRead: false, counter: "" }));
}

function PackText({ story, line }: { readonly story: string; readonly line: Line }): ReactNode {
  const api = useApi();
  const { data, problem } = useLoaded(() => api.get("/api/context/{story_id}/{role}/{phase}", { story_id: story, role: line.role, phase: line.phase }), line.key);
  if (problem) return <Trouble problem={problem} />;
  if (data === undefined) return <Loading what="the pack" />;
  return <pre tabIndex={0}>{data.text ?? ""}</pre>;
}
