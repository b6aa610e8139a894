import { type ReactNode, useState } from "react";
import type { Got } from "../api/client.ts";
import { useApi, useCommand, useKept, useMe, useOptional } from "../hooks.ts";
import { ENOUGH, type May, mayDo, replacements } from "../model/decisions.ts";
import type { Body } from "../model/envelope.ts";
import { type Decision, type StoryFeed, words } from "../model/feed.ts";
import { count, moment, short } from "../model/format.ts";
import { itemHref, storyHref } from "../model/route.ts";
import { Badge, Card, Empty, Loading, Trouble, actorName } from "../parts/basics.tsx";
import { DecisionBadge, DecisionWords } from "../parts/decision_text.tsx";

type Page = Got<"/api/decisions/{decision_id}">;

interface Shown {
  readonly feed: StoryFeed;
  readonly story: string;
}

/** One decision: why, on what, how it came to stand as it does, what hangs on it, and what one may do with it. */
export function DecisionPage({ feed, story, id, change }: Shown & { readonly id: string; readonly change: ReactNode }): ReactNode {
  const api = useApi();
  const decision = feed.decisions[id];
  // Another one may have come in its place, or it in that of another.
  const standing = Object.values(feed.decisions).map((one) => one.status[0]).join("");
  const page = useOptional(() => api.get("/api/decisions/{decision_id}", { decision_id: id }), `decision ${id} ${standing}`);
  const shown = useKept(page.data) ?? null;
  const back = (
    <p className="crumb">
      <a href={storyHref(story, "decisions")}>All decisions</a>
    </p>
  );
  if (!decision)
    return (
      <>
        {back}
        <Empty>This story has no such decision.</Empty>
      </>
    );
  return (
    <>
      {back}
      <div className="two wide-left">
        <div className="stack">
          <Card title={decision.title} aside={<DecisionBadge status={decision.status} />}>
            <DecisionWords decision={decision} />
            <Links feed={feed} story={story} decision={decision} />
            {shown?.based_on.length ? (
              <>
                <h3>Based on</h3>
                <ul>
                  {shown.based_on.map((one) => (
                    <li key={`${one.kind} ${one.id}`}>
                      {one.kind} <code title={one.id}>{short(one.id)}</code>
                    </li>
                  ))}
                </ul>
              </>
            ) : null}
          </Card>
          <Impact feed={feed} story={story} id={id} standing={standing} />
        </div>
        <div className="stack side">
          {shown ? <Settle feed={feed} decision={decision} page={shown} change={change} /> : page.problem ? null : <Loading what="the decision" />}
          <Trouble problem={page.problem} />
          {shown ? <History feed={feed} story={story} decision={decision} page={shown} /> : null}
        </div>
      </div>
    </>
  );
}

function Links({ feed, story, decision }: Shown & { readonly decision: Decision }): ReactNode {
  if (!decision.links.length && !decision.affects.length) return null;
  return (
    <ul className="near">
      {decision.links.map((link) => (
        <li key={`${link.rel} ${link.to}`}>
          <span className="hint">{words(link.rel)}</span> <Other feed={feed} story={story} id={link.to} />
        </li>
      ))}
      {decision.affects.map((task) => (
        <li key={task}>
          <span className="hint">affects</span> {feed.tasks[task]?.title ?? task}
        </li>
      ))}
    </ul>
  );
}

function Other({ feed, story, id }: Shown & { readonly id: string }): ReactNode {
  return <a href={itemHref(story, "decisions", id)}>{feed.decisions[id]?.title ?? id}</a>;
}

/** How it came to stand as it does, the oldest first. */
function History({ feed, story, decision, page }: Shown & { readonly decision: Decision; readonly page: Page }): ReactNode {
  const { settled, superseded, supersedes } = page;
  return (
    <Card title="History">
      <ul className="history">
        <li>
          Proposed by {actorName(decision.author)} <span className="hint">{moment(decision.at)}</span>
        </li>
        {settled ? (
          <li>
            {settled.verdict === "accepted" ? "Accepted" : "Rejected"} by {actorName(settled.by)} as {settled.as_role} <span className="hint">{moment(settled.at)}</span>
            {settled.said ? <blockquote>{settled.said}</blockquote> : null}
          </li>
        ) : null}
        {supersedes.map((id) => (
          <li key={id}>
            Stands in the place of <Other feed={feed} story={story} id={id} />
          </li>
        ))}
        {superseded ? (
          <li>
            Replaced by <Other feed={feed} story={story} id={superseded.by_decision_id} /> {superseded.by ? `(${actorName(superseded.by)})` : ""} <span className="hint">{moment(superseded.at)}</span>
            {superseded.reason ? <blockquote>{superseded.reason}</blockquote> : null}
          </li>
        ) : null}
      </ul>
    </Card>
  );
}

/** What would have to be looked at again, the nearest first (GR-82); it comes from the graph, which may lag behind. */
function Impact({ feed, story, id, standing }: Shown & { readonly id: string; readonly standing: string }): ReactNode {
  const api = useApi();
  const { data, problem } = useOptional(
    () => api.get("/api/decisions/{decision_id}/impact", { decision_id: id }, { depth: 4 }),
    `impact ${id} ${standing} ${Object.keys(feed.tasks).length} ${feed.merges.length}`,
  );
  const shown = useKept(data);
  return (
    <Card title="What hangs on it" aside={shown ? <Badge>{count(shown.items.length, "thing")}</Badge> : null}>
      {shown?.items.length ? (
        <div className="scroll" tabIndex={0} role="region" aria-label="What hangs on it">
          <table>
            <thead>
              <tr>
                <th scope="col">What</th>
                <th scope="col">Name</th>
                <th scope="col">State</th>
                <th scope="col">Steps away</th>
              </tr>
            </thead>
            <tbody>
              {shown.items.map((one) => (
                <tr key={`${one.kind} ${one.id}`}>
                  <td>{words(one.kind)}</td>
                  <th scope="row">{feed.decisions[one.id] ? <Other feed={feed} story={story} id={one.id} /> : (one.title ?? one.id)}</th>
                  <td>{words(one.state ?? "")}</td>
                  <td className="number">{one.distance}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : shown ? (
        <Empty>Nothing hangs on it.</Empty>
      ) : null}
      {problem ? <p className="hint">The graph of decisions does not answer now: {problem.message}</p> : shown === undefined ? <Loading what="the graph" /> : null}
    </Card>
  );
}

/** The words and buttons for what this person may do; the words stay when the decision moves on meanwhile. */
function Settle({ feed, decision, page, change }: Pick<Shown, "feed"> & { readonly decision: Decision; readonly page: Page; readonly change: ReactNode }): ReactNode {
  const me = useMe();
  const { isBusy, problem, run } = useCommand();
  const [said, setSaid] = useState("");
  const [by, setBy] = useState("");
  const [first, setFirst] = useState(decision.status);
  const may = mayDo(feed, decision, page.settled_by_roles, me);
  const send = (what: string, body: Body): void =>
    void run(`/api/decisions/${encodeURIComponent(decision.id)}/${what}`, body).then(
      () => setSaid(""),
      () => undefined,
    );
  const others = replacements(feed, decision);
  const chosen = others.some((one) => one.id === by) ? by : "";
  const isMoved = decision.status !== first && said !== "";
  const write = (words: string): void => {
    if (!said) setFirst(decision.status);
    setSaid(words);
  };
  if (!settles(may) && !said && !problem)
    return (
      <Card title="Settle it">
        <p className="hint">{whyNot(decision, page, may)}</p>
        {may.propose ? change : null}
      </Card>
    );
  const words_ = said.trim();
  const hasReason = words_.length >= ENOUGH;
  return (
    <Card title="Your decision" className="decide">
      {isMoved ? <p className="notice">It is {words(decision.status)} by now. What you wrote is still here.</p> : null}
      <label htmlFor="decision-said">{may.supersede ? "Why another one comes in its place" : "Note, or the reason of a rejection"}</label>
      <textarea id="decision-said" rows={4} maxLength={4000} value={said} onChange={(event) => write(event.target.value)} aria-describedby="decision-said-hint" />
      <p id="decision-said-hint" className="hint">
        A reason has at least {ENOUGH} characters; the team reads it.
      </p>
      {may.supersede ? (
        <>
          <label htmlFor="decision-by">What comes in its place</label>
          <select id="decision-by" value={chosen} onChange={(event) => setBy(event.target.value)}>
            <option value="">choose an accepted decision</option>
            {others.map((one) => (
              <option key={one.id} value={one.id}>
                {one.title}
              </option>
            ))}
          </select>
        </>
      ) : null}
      <Trouble problem={problem} />
      <div className="actions">
        {may.accept ? (
          <button type="button" className="primary" disabled={isBusy || (words_ !== "" && !hasReason)} onClick={() => send("accept", { note: words_ })}>
            Accept
          </button>
        ) : null}
        {may.reject ? (
          <button type="button" className="danger" disabled={isBusy || !hasReason} onClick={() => send("reject", { reason: words_ })}>
            {may.accept ? "Reject" : "Take it back"}
          </button>
        ) : null}
        {may.supersede ? (
          <button type="button" disabled={isBusy || !hasReason || !chosen} onClick={() => send("supersede", { by_decision_id: chosen, reason: words_ })}>
            Put it in the place of this one
          </button>
        ) : null}
        {may.propose ? change : null}
      </div>
    </Card>
  );
}

function settles(may: May): boolean {
  return may.accept || may.reject || may.supersede;
}

function whyNot(decision: Decision, page: Page, may: May): string {
  if (!may.propose || decision.status === "REJECTED" || decision.status === "SUPERSEDED") return `It is ${words(decision.status)}; nothing more is decided about it.`;
  const by = `Decisions of this category are settled by ${page.settled_by_roles.join(", ")}.`;
  return decision.status === "ACCEPTED" ? `It holds. To change it, propose another one, have that accepted, and put it in the place of this one. ${by}` : by;
}
