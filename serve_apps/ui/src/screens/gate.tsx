import { type ReactNode, useState } from "react";
import { type Problem } from "../api/client.ts";
import { useApi, useCommand, useFeed, useNow, useOptional } from "../hooks.ts";
import { type Held, heldBy } from "../model/delegations.ts";
import { type Body, isRecord, number, record, records, text, texts } from "../model/envelope.ts";
import { type Approval, type StoryFeed, gateName, latestScore, spentByRole, words } from "../model/feed.ts";
import { cost, count, moment, short, tokens, until } from "../model/format.ts";
import { storyHref } from "../model/route.ts";
import { Badge, Card, Figure, LineBadge, Loading, Trouble, actorName } from "../parts/basics.tsx";
import { CouncilCard } from "../parts/council.tsx";
import { Changes } from "./changes.tsx";

const MIN_REASON = 10;

/** One decision with everything that is needed for it (LC-79). */
export function GateScreen({ story, approval }: { readonly story: string; readonly approval: string }): ReactNode {
  const api = useApi();
  const { feed, line } = useFeed(story);
  const now = useNow(10_000);
  const found = feed.approvals[approval];
  const card = useOptional(() => api.get("/api/approvals/{approval_id}", { approval_id: approval }), `${approval} ${found?.status ?? ""}`);
  const shown = isRecord(card.data) ? card.data : {};
  if (!found) return line === "refused" ? <p className="empty">There is no such gate.</p> : <Loading what="the gate" />;
  const tree = text(record(shown, "diff"), "new");
  const base = text(record(shown, "diff"), "old");
  const councils = Object.values(feed.councils).filter((one) => (one.approvalId ? one.approvalId === found.id : one.outcome !== "cancelled" && concerns(one.taskId, shown, found)));
  const held = heldBy(feed, found, now);
  return (
    <>
      <div className="page-head">
        <div>
          <p className="crumb">
            <a href="#/gates">Gates</a> / <a href={storyHref(story)}>{feed.title || story}</a>
          </p>
          <h1>{gateName(found.gate)}</h1>
        </div>
        <LineBadge line={line} />
      </div>
      <Trouble problem={card.problem} />
      <div className="two wide-left">
        <div className="stack">
          <Subject feed={feed} approval={found} card={shown} />
          {found.gate === "approve_scope" ? <Scope feed={feed} /> : null}
          <Evidence feed={feed} card={shown} tree={found.subjectDigest} />
          {tree || feed.merges.length ? (
            <Card title="Changes">
              <Changes story={story} from={base} to={tree} version={feed.version} />
            </Card>
          ) : null}
          {councils.map((one) => (
            <CouncilCard key={one.id} council={one} story={story} />
          ))}
        </div>
        <div className="stack side">
          {held ? <Delegate held={held} /> : null}
          <Decide story={story} approval={found} card={shown} isRead={card.data !== undefined || card.problem !== null} />
          <History feed={feed} gate={found.gate} current={found.id} />
        </div>
      </div>
    </>
  );
}

function concerns(councilTask: string, card: Body, approval: Approval): boolean {
  // The work on one task is decided on its own council; the gates of the story on all of them.
  const subject = text(record(card, "subject"), "id");
  return approval.gate !== "task_acceptance" || !subject || !councilTask || councilTask === subject;
}

function Subject({ feed, approval, card }: { readonly feed: StoryFeed; readonly approval: Approval; readonly card: Body }): ReactNode {
  const now = useNow(5000);
  const spent = spentByRole(feed);
  const fromCard = record(card, "cost");
  const used = number(fromCard, "tokens") || spent.reduce((sum, one) => sum + one.tokens, 0);
  const unpriced = number(fromCard, "unpriced_tokens") || spent.reduce((sum, one) => sum + one.unpriced, 0);
  const money = number(fromCard, "cost_microusd") || spent.reduce((sum, one) => sum + one.costMicrousd, 0);
  const feedback = texts(card, "feedback");
  const recorded = record(card, "card");
  return (
    <Card title="What you decide">
      <dl className="figures">
        <Figure name="Story is in" value={feed.state} />
        {text(card, "task_title") ? <Figure name="Task" value={text(card, "task_title")} /> : null}
        {text(record(card, "subject"), "kind") === "tree+environment" ? <Figure name="Where to" value={text(record(card, "subject"), "id")} /> : null}
        <Figure name="Risk" value={approval.risk} />
        <Figure name="Used so far" value={tokens(used)} />
        <Figure name="Cost so far" value={cost(money, unpriced)} />
        <Figure name="Asked" value={moment(approval.requestedAt)} />
        {approval.status === "requested" ? <Figure name="Time to decide" value={until(approval.expiresAt, now)} /> : null}
        <Figure name="Subject" value={<code title={approval.subjectDigest}>{short(approval.subjectDigest)}</code>} />
      </dl>
      {isRecord(recorded["call"]) ? (
        <>
          <h3>The call</h3>
          <pre tabIndex={0}>{JSON.stringify(recorded["call"], null, 2)}</pre>
        </>
      ) : null}
      {feedback.length ? (
        <>
          <h3>What reviewers said</h3>
          <ul>
            {feedback.map((one, at) => (
              <li key={at}>{one}</li>
            ))}
          </ul>
        </>
      ) : null}
    </Card>
  );
}

function Scope({ feed }: { readonly feed: StoryFeed }): ReactNode {
  return (
    <Card title="The story" aside={feed.readiness ? <Badge tone={feed.readiness.ok ? "good" : "warn"}>{feed.readiness.score}/100 ready</Badge> : null}>
      <p className="story-text">{feed.description || "There is no description."}</p>
      <ol className="criteria">
        {feed.criteria.map((one) => (
          <li key={one.id}>{one.text}</li>
        ))}
      </ol>
    </Card>
  );
}

function Evidence({ feed, card, tree }: { readonly feed: StoryFeed; readonly card: Body; readonly tree: string }): ReactNode {
  const score = feed.scores.findLast((one) => one.tree === tree) ?? (isRecord(card["verdict"]) ? latestScore(feed) : null);
  const summary = isRecord(card["tests"]) ? card["tests"] : score ? record(feed.workspace.findLast((one) => text(one, "tree_digest") === score.tree) ?? {}, "summary") : {};
  if (!score) return null;
  const findings = records(card, "findings");
  const unit = record(summary, "unit");
  const coverage = record(summary, "coverage");
  return (
    <Card title="Evidence" aside={<Badge tone={score.verdict === "pass" ? "good" : score.verdict === "block" ? "bad" : "warn"}>{score.verdict}</Badge>}>
      <dl className="figures">
        <Figure name="Score" value={`${score.score} of 100 points`} />
        <Figure name="Unit tests" value={`${number(unit, "passed")} passed, ${number(unit, "failed") + number(unit, "errored")} failed`} tone={number(unit, "failed") + number(unit, "errored") ? "bad" : "good"} />
        {text(coverage, "new_pct") ? <Figure name="Coverage of new lines" value={`${text(coverage, "new_pct")} %`} /> : null}
        {text(coverage, "total_pct") ? <Figure name="Coverage" value={`${text(coverage, "total_pct")} %`} /> : null}
        <Figure name="Lint" value={count(number(record(summary, "lint"), "errors"), "error")} />
        <Figure name="Secrets" value={count(number(summary, "secrets_found"), "secret")} />
      </dl>
      <div className="scroll" tabIndex={0} role="region" aria-label="Dimensions of the score">
        <table>
          <thead>
            <tr>
              <th scope="col">Measured</th>
              <th scope="col">Found</th>
              <th scope="col">Needed</th>
              <th scope="col">Points</th>
            </tr>
          </thead>
          <tbody>
            {score.dimensions.map((one) => (
              <tr key={text(one, "name")}>
                <th scope="row">{words(text(one, "name"))}</th>
                <td>{text(one, "value")}</td>
                <td>{text(one, "limit")}</td>
                <td>{text(one, "score")} of 100</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {score.reasons.length ? (
        <ul className="reasons">
          {score.reasons.map((one) => (
            <li key={one}>{one}</li>
          ))}
        </ul>
      ) : null}
      {findings.length ? (
        <>
          <h3>{count(findings.length, "finding")}</h3>
          <ul className="reasons">
            {findings.map((one, at) => (
              <li key={at}>{[text(one, "severity"), text(one, "rule"), text(one, "message"), text(one, "path")].filter(Boolean).join(" · ")}</li>
            ))}
          </ul>
        </>
      ) : null}
    </Card>
  );
}

function Decide({ story, approval, card, isRead }: { readonly story: string; readonly approval: Approval; readonly card: Body; readonly isRead: boolean }): ReactNode {
  const api = useApi();
  const { isBusy, problem, run } = useCommand();
  const [words_, setWords] = useState("");
  const [back, setBack] = useState("");
  const moves = useOptional(() => api.get("/api/planner/stories/{story_id}/transitions", { story_id: story }), `moves ${approval.status}`);
  const loops = isRecord(moves.data) ? records(moves.data, "items").filter((one) => text(one, "kind") === "loopback") : [];
  if (approval.status !== "requested")
    return (
      <Card title="Decision">
        <p data-testid="decision">
          <Badge tone={approval.status === "granted" ? "good" : "bad"}>{approval.status}</Badge> by {actorName(approval.decidedBy) || "nobody"}
          {approval.delegated ? " (delegated)" : ""}, {moment(approval.decidedAt)}
        </p>
        {approval.words ? <blockquote>{approval.words}</blockquote> : null}
        <a className="button" href={storyHref(story)}>
          To the story
        </a>
      </Card>
    );
  // Buttons that move while they are aimed at decide the wrong thing.
  if (!isRead || (moves.data === undefined && !moves.problem))
    return (
      <Card title="Your decision" className="decide">
        <Loading what="what there is to decide" />
      </Card>
    );
  const mine = card["can_decide"] !== false;
  const hasInbox = card["approval_id"] !== undefined;
  const path = hasInbox ? `/api/approvals/${encodeURIComponent(approval.id)}` : `/api/planner/stories/${encodeURIComponent(story)}/approvals/${encodeURIComponent(approval.id)}`;
  const send = (decision: "grant" | "reject"): void =>
    void run(`${path}/${decision}`, decision === "grant" ? { notes: words_.trim() } : { reason: words_.trim(), ...(back && hasInbox ? { back } : {}) }).catch(
      (_: Problem) => undefined,
    );
  const canReject = words_.trim().length >= MIN_REASON;
  return (
    <Card title="Your decision" className="decide">
      {approval.gate === "council_escalation" ? (
        <p className="notice">The council came to no decision, and nothing has won. Approve, and the same is asked of a new council; reject, and you decide it yourself: propose a decision, or edit the story.</p>
      ) : null}
      {mine ? null : <p className="notice">This gate is decided by {approval.role.toUpperCase()}; you do not hold that role.</p>}
      <label htmlFor="words">Note, or the reason of a rejection</label>
      <textarea id="words" rows={4} maxLength={4000} value={words_} onChange={(event) => setWords(event.target.value)} aria-describedby="words-hint" />
      <p id="words-hint" className="hint">
        A rejection needs a reason of at least {MIN_REASON} characters; the team reads it.
      </p>
      {loops.length && hasInbox && approval.gate !== "task_acceptance" ? (
        <>
          <label htmlFor="back">On a rejection</label>
          <select id="back" value={back} onChange={(event) => setBack(event.target.value)}>
            <option value="">{loops.length === 1 ? "the team works on it" : "stay in this state"}</option>
            {loops.map((one) => (
              <option key={text(one, "event")} value={text(one, "event")}>
                go back to {text(one, "to")}
              </option>
            ))}
          </select>
        </>
      ) : null}
      <Trouble problem={problem} />
      <div className="actions">
        <button type="button" className="primary" disabled={isBusy || !mine} onClick={() => send("grant")}>
          Approve
        </button>
        <button type="button" className="danger" disabled={isBusy || !mine || !canReject} onClick={() => send("reject")}>
          Reject
        </button>
      </div>
    </Card>
  );
}

/** What decides in the place of a person, and what it came to. */
function Delegate({ held }: { readonly held: Held }): ReactNode {
  return (
    <Card title="Delegated">
      <p>{held.line}</p>
      {held.council ? <p className="hint">What it said stands beside, as a council at a gate.</p> : null}
    </Card>
  );
}

function History({ feed, gate, current }: { readonly feed: StoryFeed; readonly gate: string; readonly current: string }): ReactNode {
  const before = Object.values(feed.approvals).filter((one) => one.gate === gate && one.id !== current);
  if (!before.length) return null;
  return (
    <Card title="Decided before">
      <ul className="history">
        {before.map((one) => (
          <li key={one.id}>
            <Badge tone={one.status === "granted" ? "good" : "bad"}>{one.status}</Badge> {actorName(one.decidedBy)} {moment(one.decidedAt)}
            {one.words ? <blockquote>{one.words}</blockquote> : null}
          </li>
        ))}
      </ul>
    </Card>
  );
}
