import { type ReactNode, useState } from "react";
import type { Got } from "../api/client.ts";
import { useApi, useCommand, useKept, useMe, useNow, useOptional } from "../hooks.ts";
import { type StoryFeed, type Task, gateName, waiting, words } from "../model/feed.ts";
import { count, moment, until } from "../model/format.ts";
import { gateHref, itemHref, storyHref } from "../model/route.ts";
import { type Deed, ENOUGH, deeds, holder, isOver, waitsFor } from "../model/tasks.ts";
import { Badge, Card, Empty, Figure, Loading, Trouble, actorName } from "../parts/basics.tsx";
import { CouncilCard } from "../parts/council.tsx";
import { LateBadge, TaskBadge, TaskList } from "../parts/tasks.tsx";
import { Changes } from "./changes.tsx";
import { useLate } from "../lifecycles.ts";

type Page = Got<"/api/planner/stories/{story_id}/tasks/{task_id}">;

interface Shown {
  readonly feed: StoryFeed;
  readonly story: string;
}

/** The tasks of a story, or one of them in full. */
export function TasksTab({ feed, story, item }: Shown & { readonly item: string }): ReactNode {
  const task = feed.tasks[item];
  if (!item) return Object.keys(feed.tasks).length ? <TaskList feed={feed} story={story} /> : <Empty>There is no task yet. They come from the accepted design.</Empty>;
  return (
    <>
      <p className="crumb">
        <a href={storyHref(story, "tasks")}>All tasks</a>
      </p>
      {task ? <TaskPage key={item} feed={feed} story={story} task={task} /> : <Empty>This story has no such task.</Empty>}
    </>
  );
}

/** One task: what it asks for, what was done, and what one may do with it. */
function TaskPage({ feed, story, task }: Shown & { readonly task: Task }): ReactNode {
  const api = useApi();
  const read = useOptional(
    () => api.get("/api/planner/stories/{story_id}/tasks/{task_id}", { story_id: story, task_id: task.id }),
    `task ${task.id} ${task.events} ${feed.scores.length}`,
  );
  const page = useKept(read.data) ?? null;
  const tree = page?.evidence.candidate_tree ?? "";
  const base = feed.merges.at(-1)?.result ?? "";
  const late = useLate(feed).find((one) => one.task.id === task.id);
  const councils = Object.values(feed.councils).filter((one) => one.taskId === task.id && one.outcome !== "cancelled");
  const gate = waiting(feed).find((one) => one.gate === "task_acceptance" && task.state === "pending_po_approval");
  return (
    <div className="two wide-left">
      <div className="stack">
        <Card title={task.title} aside={
            <span className="story-facts">
              <LateBadge late={late} />
              <TaskBadge task={task} />
            </span>
          }>
          <p className="story-text">{task.description}</p>
          <Facts feed={feed} story={story} task={task} page={page} />
        </Card>
        {tree && !isOver(task) ? (
          <Card title="The work">
            <Changes story={story} from={base} to={tree} version={feed.version} />
          </Card>
        ) : null}
        {councils.map((one) => (
          <CouncilCard key={one.id} council={one} story={story} />
        ))}
      </div>
      <div className="stack side">
        <Act feed={feed} story={story} task={task} />
        {gate ? (
          <a className="wait-line" href={gateHref(story, gate.id)}>
            <span>
              <strong>{gateName(gate.gate)}</strong> waits, with all that is needed for it
            </span>
            <span className="go">Open</span>
          </a>
        ) : null}
        {page ? <History page={page} /> : read.problem ? null : <Loading what="the task" />}
        <Trouble problem={read.problem} />
      </div>
    </div>
  );
}

function Facts({ feed, story, task, page }: Shown & { readonly task: Task; readonly page: Page | null }): ReactNode {
  const score = page?.evidence.score;
  return (
    <>
      <dl className="figures">
        <Figure name="For" value={words(task.role)} />
        <Figure name="Kind" value={words(task.kind)} />
        {page ? <Figure name="Priority" value={String(page.priority)} /> : null}
        {page ? <Figure name="Estimate" value={count(page.estimated_hours, "hour")} /> : null}
        {task.author ? <Figure name="Work of" value={actorName(task.author)} /> : null}
        {score ? <Figure name="Score" value={`${score} of 100 points, ${page.evidence.verdict ?? ""}`} /> : null}
      </dl>
      {task.criteria.length ? (
        <ul className="criteria">
          {feed.criteria
            .filter((one) => task.criteria.includes(one.id))
            .map((one) => (
              <li key={one.id}>{one.text}</li>
            ))}
        </ul>
      ) : null}
      {task.dependsOn.length ? (
        <p className="hint">
          After{" "}
          {task.dependsOn.map((id) => (
            <a key={id} href={itemHref(story, "tasks", id)}>
              {feed.tasks[id]?.title ?? id}{" "}
            </a>
          ))}
        </p>
      ) : null}
      {page?.notes ? <p className="story-text">{page.notes}</p> : null}
    </>
  );
}

/** Who holds it, and the buttons for what this person may do; what was typed stays when the task moves on meanwhile. */
function Act({ feed, story, task }: Shown & { readonly task: Task }): ReactNode {
  const me = useMe();
  const now = useNow(5000);
  const { isBusy, problem, run } = useCommand();
  const [said, setSaid] = useState("");
  const [first, setFirst] = useState(task.state);
  const held = holder(task, now);
  const ways = deeds(feed, task, me, now);
  const path = `/api/planner/stories/${encodeURIComponent(story)}/tasks/${encodeURIComponent(task.id)}`;
  const write = (value: string): void => {
    if (!said) setFirst(task.state);
    setSaid(value);
  };
  const send = ({ action }: Deed): void => {
    const feedback = SILENT.has(action) ? "" : said.trim();
    const done = action === "release" ? run(`${path}/release`, undefined) : action === "claim" ? run(`${path}/claim`, { role: task.role }) : run(`${path}/actions`, { action, feedback });
    void done.then(
      // Holding or giving back says nothing yet: the words are for what comes after it.
      () => (SILENT.has(action) ? setFirst("") : setSaid("")),
      () => undefined,
    );
  };
  const hasWords = said.trim().length >= ENOUGH;
  const takesWords = ways.some((one) => !SILENT.has(one.action));
  const isMoved = said !== "" && first !== "" && first !== task.state;
  return (
    <Card title="Who has it" className={ways.length ? "decide" : ""} aside={held ? <Badge tone="warn">{actorName(held)}</Badge> : <Badge>nobody</Badge>}>
      <p>{waitsFor(feed, task, now)}</p>
      {held && task.claim ? <p className="hint">{until(task.claim.expiresAt, now)}, until {moment(task.claim.expiresAt)}</p> : null}
      {isMoved ? <p className="notice">It is {words(task.state)} by now. What you wrote is still here.</p> : null}
      {takesWords || said ? (
        <>
          <label htmlFor="task-said">Note, or why not</label>
          <textarea id="task-said" rows={4} maxLength={4000} value={said} onChange={(event) => write(event.target.value)} aria-describedby="task-said-hint" />
          <p id="task-said-hint" className="hint">
            A no needs at least {ENOUGH} characters; the team reads them.
          </p>
        </>
      ) : null}
      <Trouble problem={problem} />
      <div className="actions">
        {ways.map((one) => (
          <button key={one.action} type="button" className={one.tone} disabled={isBusy || (one.why && !hasWords)} onClick={() => send(one)}>
            {one.label}
          </button>
        ))}
      </div>
    </Card>
  );
}

const SILENT: ReadonlySet<string> = new Set(["claim", "release", "CLAIM_REVIEW", "CLAIM_TESTING"]);

function History({ page }: { readonly page: Page }): ReactNode {
  if (!page.history.length) return null;
  return (
    <Card title="History">
      <ol className="history">
        {page.history.toReversed().map((one) => (
          <li key={one.version + one.action}>
            {words(one.action)} <span className="hint">→ {words(one.to_state)} · {actorName(one.principal)} · {moment(one.at)}</span>
            {one.feedback ? <blockquote>{one.feedback}</blockquote> : null}
          </li>
        ))}
      </ol>
    </Card>
  );
}
