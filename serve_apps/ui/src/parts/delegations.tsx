import { type FormEvent, type ReactNode, useId, useState } from "react";
import type { Got } from "../api/client.ts";
import { useApi, useCommand, useKept, useLoaded, useOptional } from "../hooks.ts";
import { COUNCIL, GATES, type Grant, NEW_GRANT, canGrant, delegateName, grantBody } from "../model/delegations.ts";
import { gateName, words } from "../model/feed.ts";
import { moment } from "../model/format.ts";
import { Badge, Card, Empty, Loading, Trouble, actorName } from "./basics.tsx";

type Delegation = Got<"/api/delegations">["items"][number];

/** The gates that agents may decide in stories to come: granted here, and taken back. */
export function Delegations(): ReactNode {
  const api = useApi();
  const { data, problem, reload } = useLoaded(() => api.get("/api/delegations"), "delegations", 10_000);
  const shown = useKept(data);
  const [grant, setGrant] = useState<Grant | null>(null);
  const active = shown?.items.filter((one) => one.status === "active") ?? [];
  return (
    <Card
      title="Delegated gates"
      aside={
        grant ? null : (
          <button type="button" onClick={() => setGrant(NEW_GRANT)}>
            Delegate a gate
          </button>
        )
      }
    >
      <p className="hint">In stories that are started from here on agents decide these gates; each of their decisions is recorded as delegated.</p>
      <Trouble problem={problem} />
      {grant ? (
        <GrantForm
          grant={grant}
          onGrant={setGrant}
          onEnd={() => {
            setGrant(null);
            reload();
          }}
        />
      ) : null}
      {shown === undefined && !problem ? <Loading what="what is delegated" /> : null}
      {shown && !active.length ? <Empty>People decide every gate.</Empty> : null}
      {active.map((one) => (
        <Standing key={one.delegation_id} one={one} reload={reload} />
      ))}
    </Card>
  );
}

function Standing({ one, reload }: { readonly one: Delegation; readonly reload: () => void }): ReactNode {
  const { isBusy, problem, run } = useCommand();
  const revoke = (): void => void run(`/api/delegations/${encodeURIComponent(one.delegation_id)}`, undefined, { method: "DELETE" }).then(reload, () => undefined);
  const isCouncil = one.delegate.startsWith(COUNCIL);
  return (
    <section className="delegation" aria-label={`${gateName(one.gate)} by ${one.delegate}`}>
      <h3>
        {gateName(one.gate)} <Badge tone={isCouncil ? "person" : "plain"}>{delegateName(one.delegate)}</Badge>
      </h3>
      <p>
        {actorName(one.granted_by)}, until {moment(one.valid_until)}, up to rigor {one.max_rigor}, {one.projects.length ? one.projects.join(", ") : "all projects"}
      </p>
      <blockquote>{one.reason}</blockquote>
      <button type="button" className="danger" disabled={isBusy} onClick={revoke}>
        Take it back
      </button>
      <Trouble problem={problem} />
    </section>
  );
}

function GrantForm({ grant, onGrant, onEnd }: { readonly grant: Grant; readonly onGrant: (grant: Grant) => void; readonly onEnd: () => void }): ReactNode {
  const api = useApi();
  const roles = useOptional(() => api.get("/api/roles"), "roles").data?.items ?? [];
  const { isBusy, problem, run } = useCommand();
  const id = useId();
  const put = (more: Partial<Grant>): void => onGrant({ ...grant, ...more });
  const send = (event: FormEvent): void => {
    event.preventDefault();
    void run("/api/delegations", grantBody(grant, Date.now())).then(onEnd, () => undefined);
  };
  return (
    <form className="form" onSubmit={send}>
      <div className="row">
        <div>
          <label htmlFor={`${id}-gate`}>Gate</label>
          <select id={`${id}-gate`} value={grant.gate} onChange={(event) => put({ gate: event.target.value })}>
            {GATES.map((one) => (
              <option key={one} value={one}>
                {gateName(one)}
              </option>
            ))}
          </select>
        </div>
        <div>
          <label htmlFor={`${id}-delegate`}>Who decides it</label>
          <select id={`${id}-delegate`} required value={grant.delegate} onChange={(event) => put({ delegate: event.target.value })}>
            <option value="">choose</option>
            {roles.filter((one) => one.assignable).map((one) => (
              <option key={one.name} value={`${COUNCIL}${one.name}`}>
                a council of role {words(one.name)}
              </option>
            ))}
            {roles.filter((one) => one.actor !== "human").map((one) => (
              <option key={one.name} value={one.name}>
                an agent of role {words(one.name)}
              </option>
            ))}
          </select>
        </div>
        <div>
          <label htmlFor={`${id}-rigor`}>Up to rigor</label>
          <select id={`${id}-rigor`} value={grant.maxRigor} onChange={(event) => put({ maxRigor: event.target.value })}>
            {["L0", "L1", "L2", "L3"].map((one) => (
              <option key={one}>{one}</option>
            ))}
          </select>
        </div>
        <div>
          <label htmlFor={`${id}-days`}>Days, 30 at most</label>
          <input id={`${id}-days`} required inputMode="numeric" pattern="[0-9]{1,2}" value={grant.days} onChange={(event) => put({ days: event.target.value })} />
        </div>
      </div>
      <label htmlFor={`${id}-why`}>Why (at least 10 characters)</label>
      <textarea id={`${id}-why`} required rows={2} maxLength={4000} value={grant.reason} onChange={(event) => put({ reason: event.target.value })} />
      <label htmlFor={`${id}-projects`}>Projects, by their ids; empty for all</label>
      <input id={`${id}-projects`} maxLength={4000} value={grant.projects} onChange={(event) => put({ projects: event.target.value })} />
      <p className="hint">Only a yes of a council is delegated: whatever else comes of it, the gate waits for a person.</p>
      <Trouble problem={problem} />
      <div className="actions">
        <button type="submit" className="primary" disabled={isBusy || !canGrant(grant)}>
          Delegate
        </button>
        <button type="button" className="quiet" onClick={onEnd}>
          Close
        </button>
      </div>
    </form>
  );
}
