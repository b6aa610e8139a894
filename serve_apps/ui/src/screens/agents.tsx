import { type FormEvent, type ReactNode, useId, useState } from "react";
import type { Got } from "../api/client.ts";
import { useApi, useCommand, useKept, useLoaded, useOptional } from "../hooks.ts";
import { words } from "../model/feed.ts";
import { moment } from "../model/format.ts";
import { Badge, Card, Empty, Loading, Trouble, actorName } from "../parts/basics.tsx";

type Agent = Got<"/api/agents">["items"][number];

const MAX_PERSONA = 1000;

/** The named agents that councils of their role seat first, each with what makes it itself; for admins. */
export function AgentsScreen(): ReactNode {
  const api = useApi();
  const { data, problem, reload } = useLoaded(() => api.get("/api/agents"), "agents", 10_000);
  const shown = useKept(data);
  return (
    <>
      <div className="page-head">
        <h1>Agents</h1>
      </div>
      <Trouble problem={problem} />
      <div className="stack">
        <AddAgent reload={reload} />
        {shown === undefined && !problem ? <Loading what="the agents" /> : null}
        {shown?.items.length === 0 ? <Empty>No agent was added by name. Councils seat those of their role’s pool.</Empty> : null}
        {shown?.items.map((one) => <Named key={one.agent_id} one={one} reload={reload} />)}
      </div>
    </>
  );
}

function Named({ one, reload }: { readonly one: Agent; readonly reload: () => void }): ReactNode {
  const { isBusy, problem, run } = useCommand();
  const remove = (): void => void run(`/api/agents/${encodeURIComponent(one.agent_id)}`, undefined, { method: "DELETE" }).then(reload, () => undefined);
  return (
    <Card title={one.agent_id} aside={<Badge tone={one.status === "busy" ? "person" : "good"}>{one.status}</Badge>}>
      <p>
        {words(one.role)}, answers with policy <code>{one.model_policy}</code>; added by {actorName(one.registered_by)}, {moment(one.registered_at)}
      </p>
      {one.persona ? <blockquote className="story-text">{one.persona}</blockquote> : <p className="hint">It has the persona of its role alone.</p>}
      <div className="actions">
        <button type="button" className="danger" disabled={isBusy} onClick={remove}>
          Take it away
        </button>
      </div>
      <Trouble problem={problem} />
    </Card>
  );
}

function AddAgent({ reload }: { readonly reload: () => void }): ReactNode {
  const api = useApi();
  const roles = useOptional(() => api.get("/api/roles"), "roles").data?.items.filter((one) => one.assignable) ?? [];
  const policies = useOptional(() => api.get("/api/models/policies"), "policies").data?.items ?? [];
  const [role, setRole] = useState("developer");
  const [policy, setPolicy] = useState("default");
  const [persona, setPersona] = useState("");
  const { isBusy, problem, run } = useCommand();
  const id = useId();
  const send = (event: FormEvent): void => {
    event.preventDefault();
    void run("/api/agents", { role, model_policy: policy, ...(persona.trim() ? { persona: persona.trim() } : {}) }).then(
      () => {
        setPersona("");
        reload();
      },
      () => undefined,
    );
  };
  return (
    <Card title="Add an agent">
      <form className="form" onSubmit={send}>
        <div className="row">
          <div>
            <label htmlFor={`${id}-role`}>Role</label>
            <select id={`${id}-role`} value={role} onChange={(event) => setRole(event.target.value)}>
              {[...new Set([role, ...roles.map((one) => one.name)])].map((one) => (
                <option key={one} value={one}>
                  {words(one)}
                </option>
              ))}
            </select>
          </div>
          <div>
            <label htmlFor={`${id}-policy`}>Policy of models</label>
            <select id={`${id}-policy`} value={policy} onChange={(event) => setPolicy(event.target.value)}>
              {[...new Set([policy, ...policies.map((one) => one.role)])].map((one) => (
                <option key={one}>{one}</option>
              ))}
            </select>
          </div>
        </div>
        <label htmlFor={`${id}-persona`}>Persona: how it works, in words</label>
        <textarea id={`${id}-persona`} rows={3} maxLength={MAX_PERSONA} value={persona} onChange={(event) => setPersona(event.target.value)} />
        <p className="hint">Its own model reads it as data, beside the persona of its role. Councils of the role that open from here on seat it first.</p>
        <Trouble problem={problem} />
        <div className="actions">
          <button type="submit" className="primary" disabled={isBusy}>
            Add it
          </button>
        </div>
      </form>
    </Card>
  );
}
