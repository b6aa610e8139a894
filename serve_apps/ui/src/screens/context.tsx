import { type ReactNode, useState } from "react";
import type { Got } from "../api/client.ts";
import { useApi, useLoaded, useOptional } from "../hooks.ts";
import { type StoryFeed, words } from "../model/feed.ts";
import { count, short, tokens } from "../model/format.ts";
import { leftOutWords, pieceWords } from "../model/packs.ts";
import { Badge, Card, Empty, Loading, Meter, Trouble } from "../parts/basics.tsx";

interface Line {
  readonly key: string;
  readonly role: string;
  readonly phase: string;
  readonly scopes: readonly string[];
  readonly tokens: number;
  readonly budget: number;
  readonly dropped: number;
  /** Of the story; a pack that is open is read again when there is a newer one. */
  readonly version: number;
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
    version: one.version,
    refused: one.refused ?? "",
    canRead: true,
    counter: one.counter ?? "",
  };
}

function built(feed: StoryFeed): readonly Line[] {
  return feed.packs.map((one) => ({ ...one, key: `${one.id} ${short(one.hash)}`, version: 0, refused: "", canRead: false, counter: "" }));
}

function PackText({ story, line }: { readonly story: string; readonly line: Line }): ReactNode {
  const api = useApi();
  const { data, problem } = useLoaded(() => api.get("/api/context/{story_id}/{role}/{phase}", { story_id: story, role: line.role, phase: line.phase }), `${line.key} ${line.version}`);
  if (problem) return <Trouble problem={problem} />;
  if (data === undefined) return <Loading what="the pack" />;
  const secrets = Object.values(data.redactions).reduce((sum, places) => sum + places, 0);
  return (
    <div className="pack">
      <p className="hint">
        As of version {data.version} of the story: {tokens(data.token_count)} of {tokens(data.budget)}
        {data.blocks ? ", with the rules of the role and its tools" : ""}.{secrets ? ` ${count(secrets, "secret was", "secrets were")} taken out.` : ""}
      </p>
      <details>
        <summary>What is in it, and why</summary>
        <dl className="pieces">
          {data.scopes.map((scope) => (
            <div key={scope}>
              <dt>{words(scope)}</dt>
              <dd>{pieceWords(scope) || "a piece that this page does not know"}</dd>
            </div>
          ))}
        </dl>
        <p className="hint">These are the pieces that {words(data.role)} may see in {data.phase}.</p>
      </details>
      {data.dropped.length ? (
        <details open>
          <summary>Left out, because it did not fit</summary>
          <dl className="pieces">
            {data.dropped.map((one) => (
              <div key={one.scope}>
                <dt>
                  {words(one.scope)}: {count(one.items, "item")}
                </dt>
                <dd>{leftOutWords(one.ids, one.items)}</dd>
              </div>
            ))}
          </dl>
        </details>
      ) : null}
      <pre tabIndex={0} aria-label={`What ${words(data.role)} is told of the story in ${data.phase}`}>{data.text ?? ""}</pre>
      {data.blocks ? <Around title="Rules of the role" text={data.blocks.system} /> : null}
      {data.blocks ? <Around title="Its tools" text={data.blocks.tools} /> : null}
    </div>
  );
}

/** What stands around the text, and counts as tokens too. */
function Around({ title, text }: { readonly title: string; readonly text: string }): ReactNode {
  if (!text) return null;
  return (
    <details>
      <summary>{title}</summary>
      <pre tabIndex={0} aria-label={title}>{text}</pre>
    </details>
  );
}
