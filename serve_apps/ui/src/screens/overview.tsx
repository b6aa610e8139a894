import { type FormEvent, type ReactNode, useState } from "react";
import { useApi, useCommand, useOptional } from "../hooks.ts";
import { type StoryDraft, editBody } from "../model/coach.ts";
import { isRecord, records, text } from "../model/envelope.ts";
import { type StoryFeed, latestScore, spentByRole, words } from "../model/feed.ts";
import { cost, count, tokens } from "../model/format.ts";
import { storyHref } from "../model/route.ts";
import { Badge, Card, Empty, Figure, Trouble } from "../parts/basics.tsx";
import { CouncilCard } from "../parts/council.tsx";
import { Questions, Steering } from "../parts/steering.tsx";
import { Coach, Findings, StoryFields } from "../parts/story_form.tsx";
import { TaskList } from "../parts/tasks.tsx";
import { useLifecycles } from "../lifecycles.ts";
import { Timeline } from "./timeline.tsx";

/** The story at a glance: where it stands, what it says, what is done. */
export function Overview({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const score = latestScore(feed);
  const spent = spentByRole(feed);
  const used = spent.reduce((sum, one) => sum + one.tokens, 0);
  const open = Object.values(feed.councils).filter((one) => one.outcome === "");
  const [isEditing, setEditing] = useState(false);
  const isOpen = EDITABLE.has(feed.state) && !feed.closed && !feed.cancelled;
  if (isEditing) return <EditStory feed={feed} story={story} onEnd={() => setEditing(false)} />;
  return (
    <>
      <StatePath feed={feed} story={story} />
      <div className="two wide-left">
        <div className="stack">
          <Card title="The story" aside={isOpen ? <button type="button" onClick={() => setEditing(true)}>Edit the text</button> : null}>
            <p className="story-text">{feed.description || "There is no description."}</p>
            <h3>Acceptance criteria</h3>
            {feed.criteria.length ? (
              <ol className="criteria">
                {feed.criteria.map((one) => (
                  <li key={one.id} id={one.id}>
                    {one.text}
                  </li>
                ))}
              </ol>
            ) : (
              <Empty>None yet.</Empty>
            )}
          </Card>
          {open.map((one) => (
            <CouncilCard key={one.id} council={one} story={story} />
          ))}
          <TaskList feed={feed} story={story} />
        </div>
        <div className="stack side">
          <Card title="Now">
            <dl className="figures">
              <Figure name="Readiness" value={feed.readiness ? `${feed.readiness.score} of 100 points` : "not scored"} />
              {score ? <Figure name="Work" value={`${score.score} of 100 points, ${score.verdict}`} /> : null}
              <Figure name="Used" value={tokens(used)} />
              <Figure name="Cost" value={cost(spent.reduce((sum, one) => sum + one.costMicrousd, 0), spent.reduce((sum, one) => sum + one.unpriced, 0))} />
              <Figure name="Events" value={count(feed.version, "event")} />
            </dl>
          </Card>
          {feed.readiness?.findings.length ? (
            <Card title="Readiness">
              <Findings findings={feed.readiness.findings} />
            </Card>
          ) : null}
          <Questions feed={feed} story={story} />
          {feed.closed || feed.cancelled ? null : <Steering feed={feed} story={story} />}
          <Card title="Latest" aside={<a href={storyHref(story, "activity")}>All activity</a>}>
            <Timeline feed={feed} last={8} />
          </Card>
        </div>
      </div>
    </>
  );
}

/** Before the scope is approved, its text is written. */
const EDITABLE: ReadonlySet<string> = new Set(["BACKLOG", "DRAFT", "NEW", "PLANNING"]);

function EditStory({ feed, story, onEnd }: { readonly feed: StoryFeed; readonly story: string; readonly onEnd: () => void }): ReactNode {
  const [before] = useState(() => ({ title: feed.title, description: feed.description, criteria: feed.criteria }));
  const [draft, setDraft] = useState<StoryDraft>(() => ({ ...before, criteria: before.criteria.length ? before.criteria.map((one) => one.text) : [""] }));
  const { isBusy, problem, run } = useCommand();
  const isMoved = feed.title !== before.title || feed.description !== before.description || feed.criteria !== before.criteria;
  const body = editBody(before, draft);
  const save = (event: FormEvent): void => {
    event.preventDefault();
    if (body === null) return onEnd();
    // The version only says that nothing moved since; that the text did not is seen above.
    void run(`/api/planner/stories/${encodeURIComponent(story)}`, body, { method: "PATCH", ifMatch: `"v${feed.version}"` }).then(onEnd, () => undefined);
  };
  return (
    <div className="two">
      <form className="card form" onSubmit={save} aria-label="The story">
        <StoryFields draft={draft} onDraft={setDraft} />
        {isMoved ? <p className="notice">Somebody changed the text in the meantime. Close this and look at it before you save.</p> : null}
        <Trouble problem={problem} />
        <div className="actions">
          <button type="submit" className="primary" disabled={isBusy || isMoved || !draft.title.trim()}>
            Save
          </button>
          <button type="button" className="quiet" onClick={onEnd}>
            Close
          </button>
        </div>
      </form>
      <Coach draft={draft} rigor={feed.rigor} onDraft={setDraft} />
    </div>
  );
}

const GUARDS: Readonly<Record<string, string>> = {
  dor_ok: "ready enough",
  po_approved: "product owner agrees",
  design_complete: "design is complete",
  all_tasks_done: "all tasks are done",
  builds_passing: "it builds",
  tests_passing: "tests pass",
  qa_signoff: "QA agrees",
  docs_complete: "documents are complete",
};

/** The way through the lifecycle, with what each guard of the next step says now. */
function StatePath({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const api = useApi();
  const states = useLifecycles().find((one) => one.name === feed.lifecycle)?.states ?? [];
  const moves = useOptional(() => api.get("/api/planner/stories/{story_id}/transitions", { story_id: story }), `moves ${feed.state} ${feed.version}`);
  const forward = isRecord(moves.data) ? records(moves.data, "items").filter((one) => text(one, "kind") !== "loopback") : [];
  const at = states.indexOf(feed.state);
  return (
    <section className="card path" aria-label="Way through the lifecycle">
      <ol className="states">
        {states.map((state, n) => (
          <li key={state} className={n < at ? "past" : ""} aria-current={n === at ? "step" : undefined}>
            {state}
          </li>
        ))}
      </ol>
      {forward.map((one) => (
        <ul key={text(one, "event")} className="guards" aria-label={`What ${text(one, "to")} needs`}>
          <li className="hint">{text(one, "to")} needs</li>
          {records(one, "guards").map((guard) => (
            <li key={text(guard, "name")} title={text(guard, "message")}>
              <Badge tone={guard["ok"] === true ? "good" : "warn"}>
                {guard["ok"] === true ? "✓" : "○"} {GUARDS[text(guard, "name")] ?? words(text(guard, "name"))}
              </Badge>
            </li>
          ))}
        </ul>
      ))}
    </section>
  );
}
