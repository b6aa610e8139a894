import { type ReactNode, useMemo, useState } from "react";
import { useApi, useOptional } from "../hooks.ts";
import { type Body, isRecord, record, records, text } from "../model/envelope.ts";
import { type StoryFeed, words } from "../model/feed.ts";
import type { Edge, Node } from "../model/layout.ts";
import { itemHref } from "../model/route.ts";
import { Badge, Card } from "./basics.tsx";
import { DecisionBadge } from "./decision_text.tsx";
import { Graph } from "./graph.tsx";

/** Decisions, what they touch, and on request everything around the story. */
export function DecisionGraph({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const api = useApi();
  const [chosen, setChosen] = useState<string | null>(null);
  const [isWhole, setWhole] = useState(false);
  const around = useOptional(
    async () => (isWhole ? api.get("/api/context/{story_id}/graph", { story_id: story }, { depth: 2, limit: 120 }) : undefined),
    `graph ${story} ${isWhole ? feed.version : ""}`,
  );
  const own = useMemo(() => ownGraph(feed), [feed.decisions, feed.tasks, feed.criteria, feed.councils]);
  const whole = useMemo(() => (isWhole && isRecord(around.data) ? wholeGraph(around.data) : null), [isWhole, around.data]);
  const { nodes, edges } = whole ?? own;
  const details = chosen === null ? null : (whole?.props.get(chosen) ?? null);
  return (
    <Card
      title="How they hang together"
      aside={
        <label className="check">
          <input type="checkbox" checked={isWhole} onChange={(event) => setWhole(event.target.checked)} /> everything around the story
        </label>
      }
    >
      <Graph label="Graph of decisions" nodes={nodes} edges={edges} chosen={chosen} onChoose={(id) => setChosen(id === chosen ? null : id)} />
      {chosen === null ? <p className="hint">Choose a node to read about it.</p> : <Chosen feed={feed} story={story} id={chosen} nodes={nodes} edges={edges} props={details} onChoose={setChosen} />}
    </Card>
  );
}

interface Drawn {
  readonly nodes: readonly Node[];
  readonly edges: readonly Edge[];
  readonly props: ReadonlyMap<string, Body>;
}

function ownGraph(feed: StoryFeed): Drawn {
  const decisions = Object.values(feed.decisions);
  const nodes: Node[] = decisions.map((one) => ({ id: one.id, label: one.title, kind: "decision" }));
  const edges: Edge[] = [];
  for (const one of decisions) {
    if (one.councilId && feed.councils[one.councilId]) edges.push({ from: one.councilId, to: one.id, label: "decided" });
    for (const task of one.affects) edges.push({ from: one.id, to: task, label: "affects" });
    for (const link of one.links) edges.push({ from: one.id, to: link.to, label: words(link.rel) });
  }
  for (const council of Object.values(feed.councils)) nodes.push({ id: council.id, label: `for ${words(council.output)}`, kind: "council" });
  for (const task of Object.values(feed.tasks)) {
    nodes.push({ id: task.id, label: task.title, kind: "task" });
    for (const on of task.dependsOn) edges.push({ from: on, to: task.id, label: "comes before" });
    for (const criterion of task.criteria) edges.push({ from: task.id, to: criterion, label: "serves" });
  }
  for (const criterion of feed.criteria) nodes.push({ id: criterion.id, label: `${criterion.id}: ${criterion.text}`, kind: "criterion" });
  return { nodes, edges, props: new Map() };
}

function wholeGraph(body: Body): Drawn {
  const key = (label: string, id: string): string => `${label} ${id}`;
  const found = records(body, "nodes");
  return {
    nodes: found.map((one) => ({ id: key(text(one, "label"), text(one, "id")), label: text(one, "title") || text(one, "id"), kind: text(one, "label").toLowerCase() })),
    edges: records(body, "edges").map((one) => ({
      from: key(text(one, "from_label"), text(one, "from_id")),
      to: key(text(one, "to_label"), text(one, "to_id")),
      label: words(text(one, "type")),
    })),
    props: new Map(found.map((one) => [key(text(one, "label"), text(one, "id")), record(one, "props")])),
  };
}

function Chosen({ feed, story, id, nodes, edges, props, onChoose }: {
  readonly feed: StoryFeed;
  readonly story: string;
  readonly id: string;
  readonly nodes: readonly Node[];
  readonly edges: readonly Edge[];
  readonly props: Body | null;
  readonly onChoose: (id: string) => void;
}): ReactNode {
  const node = nodes.find((one) => one.id === id);
  const decision = feed.decisions[id] ?? feed.decisions[id.split(" ").at(-1) ?? ""];
  const label = (other: string): string => nodes.find((one) => one.id === other)?.label ?? other;
  const near = edges.flatMap((edge) => (edge.from === id ? [{ other: edge.to, what: `${edge.label} →` }] : edge.to === id ? [{ other: edge.from, what: `← ${edge.label}` }] : []));
  return (
    <section className="chosen-node" aria-live="polite" aria-label="Chosen">
      {decision ? (
        <>
          <h3>
            <a href={itemHref(story, "decisions", decision.id)}>{decision.title}</a> <DecisionBadge status={decision.status} />
          </h3>
          <p className="story-text">{decision.rationale}</p>
        </>
      ) : (
        <>
          <h3>
            {node?.label ?? id} <Badge>{node?.kind ?? ""}</Badge>
          </h3>
          <p>{feed.tasks[id]?.description ?? ""}</p>
          {props ? (
            <dl className="props">
              {Object.entries(props).map(([key, value]) => (
                <div key={key}>
                  <dt>{words(key)}</dt>
                  <dd>{String(value)}</dd>
                </div>
              ))}
            </dl>
          ) : null}
        </>
      )}
      <ul className="near">
        {near.map((one, at) => (
          <li key={at}>
            <span className="hint">{one.what}</span>{" "}
            <button type="button" className="link" onClick={() => onChoose(one.other)}>
              {label(one.other)}
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
