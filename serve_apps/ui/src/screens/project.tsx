import { type ReactNode, useState } from "react";
import { useApi, useLoaded, useOptional } from "../hooks.ts";
import { words } from "../model/feed.ts";
import { count, duration, moment, percent, tokens } from "../model/format.ts";
import { storyHref } from "../model/route.ts";
import { Bars } from "../parts/bars.tsx";
import { Card, Empty, Figure, Loading, Trouble, actorName } from "../parts/basics.tsx";
import { useLimits } from "../lifecycles.ts";
import { projectNames } from "./stories.ts";

const DAYS = [7, 30, 90, 365] as const;

/** A project over time: how well its stories go, and what happened last in all of them. */
export function ProjectScreen(): ReactNode {
  const api = useApi();
  const projects = useLoaded(() => projectNames(api), "projects");
  const [project, setProject] = useState("");
  const [days, setDays] = useState<number>(30);
  const names = projects.data ?? [];
  const shown = project || names[0] || "";
  return (
    <>
      <div className="page-head">
        <h1>Project</h1>
        <span className="inline">
          <label className="search">
            Project{" "}
            <select value={shown} onChange={(event) => setProject(event.target.value)}>
              {names.map((one) => (
                <option key={one}>{one}</option>
              ))}
            </select>
          </label>
          <label className="search">
            Period{" "}
            <select value={days} onChange={(event) => setDays(Number(event.target.value))}>
              {DAYS.map((one) => (
                <option key={one} value={one}>
                  {one} days
                </option>
              ))}
            </select>
          </label>
        </span>
      </div>
      <Trouble problem={projects.problem} />
      {projects.data && !names.length ? <Empty>You see no project.</Empty> : null}
      {shown ? (
        <div className="stack">
          <Metrics key={`${shown} ${days}`} project={shown} days={days} />
          <TaskFlow key={`flow ${shown}`} project={shown} />
          <Milestones key={`of ${shown} ${days}`} project={shown} days={days} />
        </div>
      ) : null}
    </>
  );
}

function Metrics({ project, days }: { readonly project: string; readonly days: number }): ReactNode {
  const api = useApi();
  const { data, problem } = useOptional(() => api.get("/api/projects/{project_id}/metrics", { project_id: project }, { days }), `metrics ${project} ${days}`, 15_000);
  if (problem) return <Trouble problem={problem} />;
  if (data === undefined) return <Loading what="the figures" />;
  if (!data?.stories) return <Empty>No story moved in this period.</Empty>;
  return (
    <div className="two">
      <Card title={count(data.stories, "story", "stories")}>
        <dl className="figures">
          <Figure name="Solved" value={data.solved_share === null ? "none ended" : `${data.solved} of ${data.solved + data.cancelled + data.parked}, ${percent(data.solved_share)}`} />
          {data.parked ? <Figure name="Stand still" value={count(data.parked, "story", "stories")} /> : null}
          <Figure name="Right at the first try" value={data.first_try_share === null ? "no task done" : `${percent(data.first_try_share)} of ${count(data.tasks_done, "task")}`} />
          <Figure name="Sent back" value={count(data.reworks + data.loopbacks, "time")} />
          <Figure name="Incidents" value={count(data.incidents, "incident")} />
          <Figure name="Used" value={tokens(data.tokens)} />
          {data.tokens_per_solved === null ? null : <Figure name="For a solved story" value={tokens(data.tokens_per_solved)} />}
          {data.gpu_ms_per_solved ? <Figure name="GPU for a solved story" value={duration(data.gpu_ms_per_solved)} /> : null}
          <Figure name="Waited for people" value={duration(data.human_wait_ms)} />
        </dl>
        <h3>Median time in each state</h3>
        {data.lead.length ? (
          <Bars label="Median time in each state" bars={data.lead.map((one) => ({ key: one.state, label: one.state, value: one.median_ms, shown: duration(one.median_ms) }))} />
        ) : (
          <Empty>Nothing moved yet.</Empty>
        )}
      </Card>
      <Card title="Quality, story by story">
        {data.trend.length ? (
          <Bars
            label="Score of each story, the oldest first"
            bars={data.trend.map((one) => ({
              key: one.story_id,
              label: one.story_title,
              value: one.score,
              shown: `${one.score} of 100 points`,
              note: [words(one.verdict), one.coverage_pct === null ? "" : `${one.coverage_pct} % covered`, moment(one.at)].filter(Boolean).join(" · "),
            }))}
          />
        ) : (
          <Empty>Nothing was measured yet.</Empty>
        )}
      </Card>
    </div>
  );
}

/** How the tasks of a project go through their workflow, as far as one sees them (LC-138). */
function TaskFlow({ project }: { readonly project: string }): ReactNode {
  const api = useApi();
  const { data } = useOptional(() => api.get("/api/workflow/stats", {}, { project_id: project }), `flow ${project}`, 15_000);
  const order = useLimits().states;
  if (!data || !Object.keys(data.stays).length) return null;
  const place = (state: string): number => (order.includes(state) ? order.indexOf(state) : order.length);
  const stays = Object.entries(data.stays).sort(([a], [b]) => place(a) - place(b));
  const rates = Object.entries(data.first_try);
  return (
    <Card title="Tasks in their workflow" className="flow">
      <div className="two">
        <section aria-label="Median time of a task in each state">
          <h3>Median time of a task in each state</h3>
          <Bars
            label="Median time of a task in each state"
            bars={stays.map(([state, one]) => ({ key: state, label: words(state), value: one.median_s, shown: duration(one.median_s * 1000), note: `${count(one.tasks, "task")}, 9 of 10 within ${duration(one.p90_s * 1000)}` }))}
          />
        </section>
        <section aria-label="Share that passes at once">
          <h3>Share that passes at once</h3>
          <Bars label="Share that passes at once" bars={rates.map(([role, share]) => ({ key: role, label: `review by ${words(role)}`, value: share ?? 0, shown: share === null ? "none passed yet" : percent(share) }))} />
          <dl className="figures">
            <Figure name="Overdue now" value={count(data.overdue, "task")} {...(data.overdue ? { tone: "bad" as const } : {})} />
            <Figure name="Limits passed so far" value={count(data.sla_breaches, "time")} />
            <Figure name="Held now" value={count(data.open_claims, "task")} />
            <Figure name="Sent back" value={count(data.rejections, "time")} />
          </dl>
        </section>
      </div>
    </Card>
  );
}

function Milestones({ project, days }: { readonly project: string; readonly days: number }): ReactNode {
  const api = useApi();
  const { data, problem } = useOptional(() => api.get("/api/projects/{project_id}/timeline", { project_id: project }, { days, limit: 100 }), `milestones ${project} ${days}`, 15_000);
  if (problem) return <Trouble problem={problem} />;
  if (data === undefined) return <Loading what="the milestones" />;
  if (!data?.items.length) return null;
  return (
    <Card title="Timeline" aside={<span className="hint">{count(data.of, "milestone")}</span>}>
      <ol className="timeline project" reversed aria-label="Milestones of the project">
        {data.items.map((one) => (
          <li key={`${one.story_id} ${one.version}`} className={one.human ? "person" : "plain"}>
            <time dateTime={one.at}>{moment(one.at)}</time>
            <span className="line">
              <a href={storyHref(one.story_id)}>{one.story_title}</a> {one.text}
            </span>
            <span className="who" title={one.event}>
              {actorName(one.actor)}
            </span>
          </li>
        ))}
      </ol>
    </Card>
  );
}
