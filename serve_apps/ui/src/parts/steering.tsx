import { type FormEvent, type ReactNode, useState } from "react";
import { useApi, useCommand, useOptional } from "../hooks.ts";
import { type StoryFeed, askable, gateName, words } from "../model/feed.ts";
import { Badge, Card, Trouble, actorName } from "./basics.tsx";

export function Parked({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const [note, setNote] = useState("");
  const { isBusy, problem, run } = useCommand();
  const send = (event: FormEvent): void => {
    event.preventDefault();
    void run(`/api/planner/stories/${encodeURIComponent(story)}/unpark`, { note: note.trim() }).catch(() => undefined);
  };
  return (
    <section className="trouble" aria-label="Parked">
      <strong>Parked:</strong> <span>{feed.parked}</span>
      <form className="inline" onSubmit={send}>
        <label htmlFor="note" className="visually-hidden">
          Note
        </label>
        <input id="note" value={note} maxLength={4000} placeholder="What changed, so that it can go on" onChange={(event) => setNote(event.target.value)} />
        <button type="submit" disabled={isBusy || note.trim().length < 10}>
          Go on
        </button>
      </form>
      <Trouble problem={problem} />
    </section>
  );
}

/** A gate that nobody answered, or that was turned down where the story stands: what can be done, and the way to ask again. */
export function AskAgain({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const { isBusy, problem, run } = useCommand();
  const gate = askable(feed);
  if (!gate) return null;
  return (
    <section className="notice" aria-label="Asked before">
      <p>
        <strong>{gateName(gate.gate)}</strong> {gate.status === "expired" ? "was not answered in time." : "was turned down, and the story stays where it is: change its text, or ask again."}
      </p>
      <button type="button" disabled={isBusy} onClick={() => void run("/api/approvals", { story_id: story, gate: gate.gate }).catch(() => undefined)}>
        Ask again
      </button>
      <Trouble problem={problem} />
    </section>
  );
}

const DELEGATES = [
  ["po", "those of the product owner"],
  ["qa", "those of QA"],
] as const;

/** Asks for the work; of a parked story, for another try with what was wrong set right. */
export function Start({ story, before }: { readonly story: string; readonly before?: StoryFeed }): ReactNode {
  const [repo, setRepo] = useState(before?.repo ?? "");
  const [model, setModel] = useState(before?.model ?? "");
  const [delegate, setDelegate] = useState<readonly string[]>([]);
  const [council, setCouncil] = useState("");
  const api = useApi();
  const roles = useOptional(() => api.get("/api/roles"), "roles");
  const seats = roles.data?.items.filter((one) => one.assignable).map((one) => one.name) ?? [];
  const { isBusy, problem, run } = useCommand();
  const send = (event: FormEvent): void => {
    event.preventDefault();
    void run(`/api/planner/stories/${encodeURIComponent(story)}/start`, { repo: repo.trim(), delegate: council ? [...delegate, `council:${council}`] : delegate, ...(model.trim() ? { model: model.trim() } : {}) }).catch(() => undefined);
  };
  const what = before ? "Start again" : "Start the work";
  return (
    <section className="card start" aria-label={what}>
      <form onSubmit={send}>
        <h2>{what}</h2>
        {before ? <p className="hint">With another model, or with another repository as long as nothing of it was read. What is on record stays.</p> : null}
        <div className="row">
          <div className="grow">
            <label htmlFor="repo">Repository: its path on the fleet’s machine</label>
            <input id="repo" required maxLength={4096} value={repo} placeholder="path of a local git repository" onChange={(event) => setRepo(event.target.value)} />
          </div>
          <div>
            <label htmlFor="model">Model profile</label>
            <input id="model" maxLength={200} value={model} placeholder="the default" onChange={(event) => setModel(event.target.value)} />
          </div>
          <button type="submit" className="primary" disabled={isBusy || !repo.trim()}>
            {isBusy ? "Starting …" : before ? "Start again" : "Start"}
          </button>
        </div>
        <fieldset className="delegate">
          <legend>Gates that agents may decide in this run; each decision is recorded as delegated</legend>
          {DELEGATES.map(([role, label]) => (
            <label key={role} className="check">
              <input
                type="checkbox"
                checked={delegate.includes(role)}
                onChange={(event) => setDelegate(event.target.checked ? [...delegate, role] : delegate.filter((one) => one !== role))}
              />{" "}
              {label}
            </label>
          ))}
          <label className="check">
            those of the others by{" "}
            <select aria-label="A council for the other gates" value={council} onChange={(event) => setCouncil(event.target.value)}>
              <option value="">nobody: people decide them</option>
              {seats.map((one) => (
                <option key={one} value={one}>
                  a council of role {words(one)}
                </option>
              ))}
            </select>
          </label>
        </fieldset>
        <Trouble problem={problem} />
      </form>
    </section>
  );
}

export function Questions({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const [asked, setAsked] = useState("");
  const { isBusy, problem, run } = useCommand();
  const questions = Object.values(feed.questions);
  const path = `/api/planner/stories/${encodeURIComponent(story)}/questions`;
  const ask = (event: FormEvent): void => {
    event.preventDefault();
    void run(path, { text: asked.trim() }).then(
      () => setAsked(""),
      () => undefined,
    );
  };
  if (!questions.length && feed.closed) return null;
  return (
    <Card title="Questions">
      <ul className="questions-list">
        {questions.map((one) => (
          <li key={one.id}>
            <p>
              {one.severity === "blocking" && !one.answer ? <Badge tone="bad">blocking</Badge> : null} {one.text} <span className="hint">{actorName(one.askedBy)}</span>
            </p>
            {one.answer ? (
              <blockquote>
                {one.answer} <span className="hint">{actorName(one.answeredBy)}</span>
              </blockquote>
            ) : (
              <Answer path={`${path}/${encodeURIComponent(one.id)}/answer`} id={one.id} />
            )}
          </li>
        ))}
      </ul>
      {feed.closed || feed.cancelled ? null : (
        <form className="inline" onSubmit={ask}>
          <label htmlFor="ask" className="visually-hidden">
            Ask the team
          </label>
          <input id="ask" value={asked} maxLength={4000} placeholder="Ask something about this story" onChange={(event) => setAsked(event.target.value)} />
          <button type="submit" disabled={isBusy || !asked.trim()}>
            Ask
          </button>
        </form>
      )}
      <Trouble problem={problem} />
    </Card>
  );
}

function Answer({ path, id }: { readonly path: string; readonly id: string }): ReactNode {
  const [answer, setAnswer] = useState("");
  const { isBusy, problem, run } = useCommand();
  const send = (event: FormEvent): void => {
    event.preventDefault();
    void run(path, { answer: answer.trim() }).catch(() => undefined);
  };
  return (
    <form className="inline" onSubmit={send}>
      <label htmlFor={`answer-${id}`} className="visually-hidden">
        Your answer
      </label>
      <input id={`answer-${id}`} value={answer} maxLength={4000} placeholder="Your answer" onChange={(event) => setAnswer(event.target.value)} />
      <button type="submit" disabled={isBusy || !answer.trim()}>
        Answer
      </button>
      <Trouble problem={problem} />
    </form>
  );
}

/** Pause, resume and cancel: each with its reason for the record. */
export function Steering({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const [reason, setReason] = useState("");
  const { isBusy, problem, run } = useCommand();
  const send = (what: "pause" | "resume" | "cancel"): void =>
    void run(`/api/planner/stories/${encodeURIComponent(story)}/${what}`, what === "resume" ? { note: reason.trim() } : { reason: reason.trim() }).then(
      () => setReason(""),
      () => undefined,
    );
  const hasReason = reason.trim().length >= 10;
  return (
    <details className="card">
      <summary>Pause or cancel</summary>
      <label htmlFor="steer">Reason (at least 10 characters)</label>
      <textarea id="steer" rows={2} maxLength={4000} value={reason} onChange={(event) => setReason(event.target.value)} />
      <Trouble problem={problem} />
      <div className="actions">
        {feed.paused ? (
          <button type="button" disabled={isBusy} onClick={() => send("resume")}>
            Resume
          </button>
        ) : (
          <button type="button" disabled={isBusy || !hasReason} onClick={() => send("pause")}>
            Pause
          </button>
        )}
        <button type="button" className="danger" disabled={isBusy || !hasReason} onClick={() => send("cancel")}>
          Cancel the story
        </button>
      </div>
    </details>
  );
}
