import { type ReactNode, useMemo, useState } from "react";
import { useApi, useOptional } from "../hooks.ts";
import { isRecord } from "../model/envelope.ts";
import { type StoryFeed, gateName, words } from "../model/feed.ts";
import { SMALL } from "../model/layout.ts";
import { type GuardValue, drawn, offers, waysOf } from "../model/lifecycle.ts";
import { Badge, Card, Empty, Loading, Trouble } from "../parts/basics.tsx";
import { Graph } from "../parts/graph.tsx";
import { useLifecycles } from "../lifecycles.ts";

/** The lifecycle as a graph: where the story is, where it can go, and what each way needs. */
export function LifecycleTab({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const api = useApi();
  const [chosen, setChosen] = useState<string | null>(null);
  const states = useLifecycles().find((one) => one.name === feed.lifecycle)?.states ?? [];
  const rules = useOptional(() => api.get("/api/lifecycles"), "rules");
  const moves = useOptional(() => api.get("/api/planner/stories/{story_id}/transitions", { story_id: story }), `moves ${feed.state} ${feed.version}`);
  const ways = useMemo(() => (rules.data ? waysOf(rules.data.content, feed.lifecycle) : []), [rules.data, feed.lifecycle]);
  const { nodes, edges } = useMemo(() => drawn(states, ways, feed.state), [states, ways, feed.state]);
  if (rules.problem) return <Trouble problem={rules.problem} />;
  if (rules.data === undefined) return <Loading what="the lifecycle" />;
  const state = chosen ?? feed.state;
  const found = offers(ways, state, isRecord(moves.data) ? moves.data : {}, feed.state);
  return (
    <div className="stack">
      <Card title={`Lifecycle ${feed.lifecycle}`} aside={<Badge tone={feed.closed ? "good" : "person"}>now in {feed.state}</Badge>}>
        <Graph label="Graph of the lifecycle" nodes={nodes} edges={edges} chosen={state} onChoose={setChosen} size={SMALL} />
        <p className="hint">Choose a state to read what leads out of it.</p>
      </Card>
      <Card title={`Ways out of ${state}`}>
        {found.length ? (
          <div className="scroll" tabIndex={0} role="region" aria-label={`Ways out of ${state}`}>
            <table>
              <thead>
                <tr>
                  <th scope="col">To</th>
                  <th scope="col">By</th>
                  <th scope="col">Needs</th>
                </tr>
              </thead>
              <tbody>
                {found.map((one) => (
                  <tr key={one.event}>
                    <th scope="row">
                      {one.to}
                      <span className="hint"> {one.gate ? `gate: ${gateName(one.gate).toLowerCase()}` : words(one.event)}</span>
                    </th>
                    <td>{one.by.map(words).join(", ")}</td>
                    <td>{one.values.length ? <Guards values={one.values} /> : <span className="hint">nothing</span>}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        ) : (
          <Empty>Nothing leads out of this state.</Empty>
        )}
        {state !== feed.state && found.length ? <p className="hint">The fleet looks at these when the story is in {state}.</p> : null}
      </Card>
    </div>
  );
}

function Guards({ values }: { readonly values: readonly GuardValue[] }): ReactNode {
  return (
    <ul className="guard-values">
      {values.map((one) => (
        <li key={one.name}>
          <Badge tone={one.ok === null ? "plain" : one.ok ? "good" : "warn"}>
            {one.ok === null ? "" : one.ok ? "✓ " : "○ "}
            {words(one.name)}
          </Badge>{" "}
          {one.message && one.ok !== true ? <span className="hint">{one.message}</span> : null}
        </li>
      ))}
    </ul>
  );
}
