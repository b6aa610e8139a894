import { type ReactNode, useMemo, useState } from "react";
import type { StoryLine } from "../api/client.ts";
import { useApi, useLoaded, useOptional } from "../hooks.ts";
import { columns } from "../model/board.ts";
import { gateName } from "../model/feed.ts";
import { count, span, tokens } from "../model/format.ts";
import { type LateStory, lateStories } from "../model/overdue.ts";
import { storyHref } from "../model/route.ts";
import { Badge, Empty, Loading, Trouble } from "../parts/basics.tsx";
import { useLifecycles } from "../lifecycles.ts";
import { readStories } from "./stories.ts";

export function BoardScreen(): ReactNode {
  const api = useApi();
  const { data, problem } = useLoaded(() => readStories(api), "board", 4000);
  const lifecycles = useLifecycles();
  const overdue = useOptional(() => api.get("/api/tasks/pending", {}, { overdue: true }), "overdue", 10_000);
  const late = lateStories(overdue.data?.items ?? []);
  const [filter, setFilter] = useState("");
  const shown = useMemo(() => columns(data ?? [], lifecycles, filter), [data, lifecycles, filter]);
  return (
    <>
      <div className="page-head">
        <h1>Board</h1>
        <label className="search">
          <span className="visually-hidden">Find a story</span>
          <input type="search" placeholder="Find a story" value={filter} onChange={(event) => setFilter(event.target.value)} />
        </label>
        <a className="button primary" href="#/new">
          New story
        </a>
      </div>
      <Trouble problem={problem} />
      {data === undefined ? (
        problem ? null : <Loading what="the stories" />
      ) : data.length === 0 ? (
        <Empty>
          There is no story yet. <a href="#/new">Write the first one.</a>
        </Empty>
      ) : (
        <div className="board" tabIndex={0} role="region" aria-label="Stories by state">
          {shown.map((column) => (
            <section key={column.state} className={`column ${column.stories.length ? "" : "bare"}`} aria-label={`${column.state}, ${count(column.stories.length, "story", "stories")}`}>
              <h2>
                {column.state} <span className="number-of">{column.stories.length}</span>
              </h2>
              <ul>
                {column.stories.map((story) => (
                  <li key={story.story_id}>
                    <StoryCard story={story} late={late.get(story.story_id)} />
                  </li>
                ))}
              </ul>
            </section>
          ))}
        </div>
      )}
    </>
  );
}

function StoryCard({ story, late }: { readonly story: StoryLine; readonly late: LateStory | undefined }): ReactNode {
  return (
    <a className={`story-card ${story.waiting_for ? "waiting" : ""}`} href={storyHref(story.story_id)}>
      <span className="story-title">{story.title}</span>
      <span className="story-facts">
        <Badge>{story.rigor}</Badge>
        {story.score === null ? null : <Badge>{story.score}/100 ready</Badge>}
        {story.tasks ? (
          <Badge>
            {story.tasks_done} of {count(story.tasks, "task")}
          </Badge>
        ) : null}
        {story.tokens ? <Badge>{tokens(story.tokens)}</Badge> : null}
        {late ? (
          <Badge tone="bad">
            {count(late.tasks, "task")} overdue{late.byMs ? `, by ${span(late.byMs)}` : ""}
          </Badge>
        ) : null}
        {story.disposition === "active" || story.disposition === "closed" ? null : <Badge tone="bad">{story.disposition}</Badge>}
      </span>
      {story.waiting_for ? (
        <span className="story-wait">
          {story.gates.length ? `${story.gates.map(gateName).join(", ")}: waits for a decision` : story.waiting_for}
        </span>
      ) : null}
    </a>
  );
}
