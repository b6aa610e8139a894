import { type ReactNode, useState } from "react";
import { useMe } from "../hooks.ts";
import { BLANK, CATEGORIES, type Draft, STATUSES, changedFrom, decisionRows, mayPropose } from "../model/decisions.ts";
import { type StoryFeed, words } from "../model/feed.ts";
import { count } from "../model/format.ts";
import { itemHref, storyHref } from "../model/route.ts";
import { Card, Empty, actorName } from "../parts/basics.tsx";
import { ProposeForm } from "../parts/decision_form.tsx";
import { DecisionGraph } from "../parts/decision_graph.tsx";
import { DecisionBadge } from "../parts/decision_text.tsx";
import { DecisionPage } from "./decision.tsx";

/** Why things are as they are: the decisions of a story, one of them in full, and a new one. */
export function DecisionsTab({ feed, story, item }: { readonly feed: StoryFeed; readonly story: string; readonly item: string }): ReactNode {
  const me = useMe();
  // It stands here, above all that the story's events change, so that nothing typed is lost.
  const [draft, setDraft] = useState<Draft | null>(null);
  const mayWrite = mayPropose(feed, me);
  const found = feed.decisions[item];
  const change = draft ? (
    <a href={storyHref(story, "decisions")}>To your open proposal</a>
  ) : found ? (
    <button
      type="button"
      onClick={() => {
        setDraft(changedFrom(found));
        location.hash = storyHref(story, "decisions");
      }}
    >
      Propose it changed
    </button>
  ) : null;
  if (item) return <DecisionPage key={item} feed={feed} story={story} id={item} change={change} />;
  return (
    <div className="stack">
      {draft ? (
        <ProposeForm
          feed={feed}
          story={story}
          draft={draft}
          onDraft={setDraft}
          onEnd={(id) => {
            setDraft(null);
            if (id) location.hash = itemHref(story, "decisions", id);
          }}
        />
      ) : null}
      <DecisionList
        feed={feed}
        story={story}
        action={
          mayWrite && !draft ? (
            <button type="button" onClick={() => setDraft(BLANK)}>
              Propose a decision
            </button>
          ) : null
        }
      />
      {Object.keys(feed.decisions).length ? <DecisionGraph feed={feed} story={story} /> : null}
    </div>
  );
}

function DecisionList({ feed, story, action }: { readonly feed: StoryFeed; readonly story: string; readonly action: ReactNode }): ReactNode {
  const [status, setStatus] = useState("");
  const [category, setCategory] = useState("");
  const all = Object.keys(feed.decisions).length;
  const rows = decisionRows(feed.decisions, status, category);
  return (
    <Card title="Decisions" aside={action}>
      {all ? (
        <>
          <div className="inline">
            <Choice label="Status" value={status} values={STATUSES} onValue={setStatus} />
            <Choice label="Category" value={category} values={CATEGORIES} onValue={setCategory} />
            <span className="hint" role="status">
              {count(rows.length, "decision")}
            </span>
          </div>
          <div className="scroll" tabIndex={0} role="region" aria-label="Decisions of the story">
            <table>
              <thead>
                <tr>
                  <th scope="col">Decision</th>
                  <th scope="col">Status</th>
                  <th scope="col">Category</th>
                  <th scope="col">By</th>
                  <th scope="col">Hangs on it</th>
                </tr>
              </thead>
              <tbody>
                {rows.map(({ decision, dependents, tasks }) => (
                  <tr key={decision.id}>
                    <th scope="row">
                      <a href={itemHref(story, "decisions", decision.id)}>{decision.title}</a>
                    </th>
                    <td>
                      <DecisionBadge status={decision.status} />
                    </td>
                    <td>{words(decision.category)}</td>
                    <td>{actorName(decision.author)}</td>
                    <td>{[tasks ? count(tasks, "task") : "", dependents ? count(dependents, "decision") : ""].filter(Boolean).join(", ") || "nothing"}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      ) : (
        <Empty>No decision was made yet.</Empty>
      )}
    </Card>
  );
}

function Choice({ label, value, values, onValue }: {
  readonly label: string;
  readonly value: string;
  readonly values: readonly string[];
  readonly onValue: (value: string) => void;
}): ReactNode {
  return (
    <label className="search">
      {label}{" "}
      <select value={value} onChange={(event) => onValue(event.target.value)}>
        <option value="">any</option>
        {values.map((one) => (
          <option key={one} value={one}>
            {words(one)}
          </option>
        ))}
      </select>
    </label>
  );
}
