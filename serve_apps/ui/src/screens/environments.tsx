import { type ReactNode, useState } from "react";
import type { Got } from "../api/client.ts";
import { useApi, useCommand, useKept, useLoaded } from "../hooks.ts";
import { moment, short } from "../model/format.ts";
import { storyHref } from "../model/route.ts";
import { Badge, Card, Empty, Loading, Trouble } from "../parts/basics.tsx";

type Environment = Got<"/api/deployments">["items"][number];
type Action = "stop" | "rollback";

const ENOUGH = 10;

/** What runs where this fleet deploys, and its end by hand; for devops and admins. */
export function EnvironmentsScreen(): ReactNode {
  const api = useApi();
  const { data, problem, reload } = useLoaded(() => api.get("/api/deployments"), "environments", 10_000);
  const shown = useKept(data);
  return (
    <>
      <div className="page-head">
        <h1>Environments</h1>
      </div>
      <Trouble problem={problem} />
      <div className="stack">
        {shown === undefined && !problem ? <Loading what="the environments" /> : null}
        {shown?.items.length === 0 ? <Empty>No environment is declared.</Empty> : null}
        {shown?.items.map((one) => <Runs key={one.environment} one={one} reload={reload} />)}
      </div>
    </>
  );
}

function Runs({ one, reload }: { readonly one: Environment; readonly reload: () => void }): ReactNode {
  return (
    <Card title={one.environment} aside={<State one={one} />}>
      {one.is_running ? (
        <p>
          {one.story_id ? <a href={storyHref(one.story_id, "changes")}>{one.story_id}</a> : "A story"} runs here
          {one.since ? ` since ${moment(one.since)}` : ""}
          {one.tree ? (
            <>
              {" "}
              from tree <code title={one.tree}>{short(one.tree)}</code>
            </>
          ) : null}
          {one.port ? `, at port ${one.port} of the fleet's node` : ""}.
        </p>
      ) : (
        <p>Nothing runs here.</p>
      )}
      {one.ended ? <p className="hint">Ended by hand last: {one.ended}</p> : null}
      {one.revision ? <End one={one} revision={one.revision} reload={reload} /> : null}
    </Card>
  );
}

function State({ one }: { readonly one: Environment }): ReactNode {
  if (!one.is_running) return <Badge>empty</Badge>;
  if (!one.answers) return <Badge tone="bad">does not answer</Badge>;
  return one.is_healthy === false ? <Badge tone="warn">answers, not healthy yet</Badge> : <Badge tone="good">answers</Badge>;
}

/** Exactly what is shown is ended: what another story deploys meanwhile is left alone. */
function End({ one, revision, reload }: { readonly one: Environment; readonly revision: string; readonly reload: () => void }): ReactNode {
  const [reason, setReason] = useState("");
  const command = useCommand();
  const id = `end-${one.environment}`;
  const isReady = !command.isBusy && reason.trim().length >= ENOUGH;
  const end = (action: Action): void =>
    void command.run(`/api/deployments/${encodeURIComponent(one.environment)}/${action}`, { reason: reason.trim(), revision }).then(
      () => {
        setReason("");
        reload();
      },
      () => undefined,
    );
  return (
    <>
      <label htmlFor={id}>Why end it (at least {ENOUGH} characters)</label>
      <textarea id={id} rows={2} maxLength={4000} value={reason} onChange={(event) => setReason(event.target.value)} />
      <p className="hint">It is on record in the story that deployed it; one that is watching it waits for a person.</p>
      <div className="actions">
        <button type="button" className="danger" disabled={!isReady} onClick={() => end("stop")}>
          Stop it
        </button>
        {one.previous ? (
          <button type="button" disabled={!isReady} onClick={() => end("rollback")}>
            Run what ran before
          </button>
        ) : null}
      </div>
      <Trouble problem={command.problem} />
    </>
  );
}
