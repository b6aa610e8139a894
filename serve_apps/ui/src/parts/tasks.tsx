import type { ReactNode } from "react";
import { useNow } from "../hooks.ts";
import { type StoryFeed, type Task, words } from "../model/feed.ts";
import { count, span } from "../model/format.ts";
import type { Late } from "../model/overdue.ts";
import { itemHref } from "../model/route.ts";
import { holder } from "../model/tasks.ts";
import { useLate } from "../lifecycles.ts";
import { Badge, Card, actorName } from "./basics.tsx";

export function TaskBadge({ task }: { readonly task: Task }): ReactNode {
  return <Badge tone={task.state === "done" ? "good" : task.state === "cancelled" ? "bad" : "person"}>{words(task.state)}</Badge>;
}

/** For how long a task is past its limit, and whose turn it is. */
export function LateBadge({ late }: { readonly late: Late | undefined }): ReactNode {
  return late ? (
    <Badge tone="bad">
      overdue by {span(late.byMs)}, for {words(late.role)}
    </Badge>
  ) : null;
}

/** The tasks that are overdue, the latest first; nothing where none is. */
export function Overdue({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const late = useLate(feed);
  if (!late.length) return null;
  return (
    <Card title={`${count(late.length, "task")} overdue`}>
      <ul className="tasks">
        {late.map((one) => (
          <li key={one.task.id}>
            <span className="task-head">
              <a href={itemHref(story, "tasks", one.task.id)}>{one.task.title}</a>
              <span className="story-facts">
                <LateBadge late={one} />
                <TaskBadge task={one.task} />
              </span>
            </span>
          </li>
        ))}
      </ul>
      <p className="card-foot">Nothing is approved or skipped by that: whoever can take a task on was told.</p>
    </Card>
  );
}

/** The tasks of a story: where each stands, and who holds it. */
export function TaskList({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const now = useNow(10_000);
  const late = useLate(feed);
  const tasks = Object.values(feed.tasks);
  if (!tasks.length) return null;
  const title = (id: string): string => feed.tasks[id]?.title ?? id;
  return (
    <Card title={count(tasks.length, "task")}>
      <ul className="tasks">
        {tasks.map((task) => (
          <li key={task.id}>
            <span className="task-head">
              <a href={itemHref(story, "tasks", task.id)}>{task.title}</a>
              <span className="story-facts">
                <LateBadge late={late.find((one) => one.task.id === task.id)} />
                {holder(task, now) ? <Badge tone="warn">held by {actorName(holder(task, now))}</Badge> : null}
                <TaskBadge task={task} />
              </span>
            </span>
            <span>{task.description}</span>
            <span className="hint">
              {words(task.role)} · {words(task.kind)}
              {task.criteria.length ? ` · for ${task.criteria.join(", ")}` : ""}
              {task.dependsOn.length ? ` · after ${task.dependsOn.map(title).join(", ")}` : ""}
            </span>
            {task.feedback.map((one, at) => (
              <blockquote key={at}>{one}</blockquote>
            ))}
          </li>
        ))}
      </ul>
    </Card>
  );
}
