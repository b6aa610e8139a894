import { type ReactNode, useState } from "react";
import { useApi, useCommand, useKept, useMe, useOptional } from "../hooks.ts";
import { ENOUGH, nextOf, partsOf, questionOf, waysWith } from "../model/councils.ts";
import { type Council, type StoryFeed, words } from "../model/feed.ts";
import { count } from "../model/format.ts";
import { Badge, Card, Empty, Loading, Trouble, actorName } from "./basics.tsx";

/** What a council was asked and what it answers, as advice. */
export function Advice({ council, feed }: { readonly council: Council; readonly feed: StoryFeed }): ReactNode {
  const api = useApi();
  const { data, problem } = useOptional(() => api.get("/api/councils/{council_id}", { council_id: council.id }), `advice ${council.id} ${council.outcome}`);
  const shown = useKept(data);
  if (!shown) return problem ? <Trouble problem={problem} /> : <Loading what="the advice" />;
  // What is kept from before the outcome says nothing of the answer.
  const isFresh = data !== undefined;
  const parts = council.outcome === "decided" ? partsOf(shown.answer) : [];
  return (
    <Card title="Advice" aside={<Badge tone="person">asked by {actorName(council.askedBy)}</Badge>} className="advice">
      <blockquote className="story-text">{questionOf(shown.asked) || "Its question is not kept any more."}</blockquote>
      {parts.map((part, at) => (
        <section key={at} aria-label={words(part.name) || "Answer"}>
          {part.name ? <h3>{words(part.name)}</h3> : null}
          {part.texts.map((one, n) => (one.includes("\n") ? <pre key={n} tabIndex={0}>{one}</pre> : <p key={n} className="story-text">{one}</p>))}
        </section>
      ))}
      {council.outcome === "decided" && !parts.length && council.kind === "selection" ? isFresh ? <Empty>Its answer is not kept any more.</Empty> : <Loading what="its answer" /> : null}
      {council.outcome === "" ? <Empty>No answer yet.</Empty> : null}
      {council.outcome === "undecided" ? <Empty>It came to no answer.</Empty> : null}
      {council.estimate !== null ? (
        <p>
          <strong>{count(council.estimate, "point")}</strong> {council.taskId ? `for ${feed.tasks[council.taskId]?.title ?? "a task"}` : "for the whole story"}
        </p>
      ) : null}
      {parts.length ? <p className="card-foot">The story did nothing with it. To follow it, propose a decision or a plan.</p> : null}
    </Card>
  );
}

/** End a council at work, or send what one answered back; the reason stays when it moves on meanwhile. */
export function SteerCouncil({ feed, council }: { readonly feed: StoryFeed; readonly council: Council }): ReactNode {
  const me = useMe();
  const { isBusy, problem, run } = useCommand();
  const [reason, setReason] = useState("");
  const [first, setFirst] = useState(council.outcome);
  const [open, setOpen] = useState(false);
  const ways = waysWith(feed, council, me);
  const next = nextOf(feed, council.id);
  const send = (what: "cancel" | "reject"): void =>
    void run(`/api/councils/${encodeURIComponent(council.id)}/${what}`, { reason: reason.trim() }).then(
      () => setReason(""),
      () => undefined,
    );
  const id = `steer-${council.id}`;
  const hasReason = reason.trim().length >= ENOUGH;
  if (!ways.end && !ways.sendBack && !reason && !problem) return next ? <p className="hint">It was sent back; the council that was asked again stands above.</p> : null;
  return (
    <details className="card" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{council.outcome === "" ? "End this council" : "Send its answer back"}</summary>
      {reason !== "" && first !== council.outcome ? <p className="notice">It is {council.outcome || "at work"} by now. What you wrote is still here.</p> : null}
      {council.outcome === "" && !council.askedBy ? <p className="hint">It is the story’s own: the story is parked then, and convenes another one once you let it go on.</p> : null}
      <label htmlFor={id}>Why (at least {ENOUGH} characters)</label>
      <textarea
        id={id}
        rows={2}
        maxLength={2000}
        value={reason}
        onChange={(event) => {
          if (!reason) setFirst(council.outcome);
          setReason(event.target.value);
        }}
      />
      <Trouble problem={problem} />
      <div className="actions">
        {ways.end ? (
          <button type="button" className="danger" disabled={isBusy || !hasReason} onClick={() => send("cancel")}>
            End it
          </button>
        ) : null}
        {ways.sendBack ? (
          <button type="button" disabled={isBusy || !hasReason} onClick={() => send("reject")}>
            Ask again with this reason
          </button>
        ) : null}
      </div>
    </details>
  );
}
