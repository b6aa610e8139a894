import { type ReactNode, useState } from "react";
import { useApi, useCommand, useKept, useOptional } from "../hooks.ts";
import type { StoryFeed } from "../model/feed.ts";
import { count, moment, short } from "../model/format.ts";
import { Badge, Card, Trouble } from "./basics.tsx";

const ENOUGH = 10;

/** The trees that the story can go back to; a restoration is a new merge, so nothing is lost by it. */
export function Checkpoints({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const api = useApi();
  // A checkpoint is saved with each merge.
  const { data, problem, reload } = useOptional(
    () => api.get("/api/planner/stories/{story_id}/checkpoints", { story_id: story }),
    `checkpoints ${story} ${feed.merges.length}`,
  );
  const shown = useKept(data);
  const [reason, setReason] = useState("");
  const command = useCommand();
  const restore = (checkpoint: string): void =>
    void command.run(`/api/planner/stories/${encodeURIComponent(story)}/restore`, { checkpoint, reason: reason.trim() }).then(
      () => {
        setReason("");
        reload();
      },
      () => undefined,
    );
  if (!shown?.items.length) return <Trouble problem={problem} />;
  const isOver = feed.closed || feed.cancelled;
  return (
    <Card title="Checkpoints" aside={shown.restoring ? <Badge tone="person">going back to {shown.restoring}</Badge> : null}>
      <div className="scroll" tabIndex={0} role="region" aria-label="Checkpoints">
        <table>
          <thead>
            <tr>
              <th scope="col">Saved</th>
              <th scope="col">After</th>
              <th scope="col">Tree</th>
              <th scope="col">Tasks done</th>
              <th scope="col">
                <span className="visually-hidden">Go back</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {shown.items.map((one) => (
              <tr key={one.checkpoint_id}>
                <td>{moment(one.saved_at)}</td>
                <td>{one.note}</td>
                <td>
                  <code title={one.tree}>{short(one.tree)}</code>
                </td>
                <td className="number">{Object.values(one.tasks).filter((state) => state === "done").length}</td>
                <td>
                  {one.is_present ? (
                    <Badge tone="good">present</Badge>
                  ) : isOver ? null : (
                    <button type="button" className="danger" disabled={command.isBusy || reason.trim().length < ENOUGH} onClick={() => restore(one.checkpoint_id)}>
                      Go back to this
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {isOver ? (
        <p className="hint">The story is over: {count(shown.items.length, "checkpoint")} on record.</p>
      ) : (
        <>
          <label htmlFor="restore-reason">Why go back (at least {ENOUGH} characters)</label>
          <textarea id="restore-reason" rows={2} maxLength={4000} value={reason} onChange={(event) => setReason(event.target.value)} />
          <p className="hint">It is a new merge: what was done since stays on record, and its tasks open again.</p>
        </>
      )}
      <Trouble problem={command.problem ?? problem} />
    </Card>
  );
}
