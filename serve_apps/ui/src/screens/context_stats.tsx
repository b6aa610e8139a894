import { type ReactNode, useState } from "react";
import type { Got } from "../api/client.ts";
import { useApi, useChanges, useLoaded } from "../hooks.ts";
import { words } from "../model/feed.ts";
import { count, duration, moment, percent, tokens, whole } from "../model/format.ts";
import { Bars } from "../parts/bars.tsx";
import { Badge, Card, Empty, Figure, LineBadge, Loading, Trouble } from "../parts/basics.tsx";
import { projectNames } from "./stories.ts";

type Stats = Got<"/api/context/stats">;

const TYPES = ["ContextPackBuilt", "ContextChanged", "SummaryRecorded"] as const;
/** Redactions and the age of the graph move with events of every group. */
const EVERY_MS = 15_000;

/** What roles are shown over all stories: sizes of packs, what did not fit, long histories, secrets, the cache. */
export function ContextScreen(): ReactNode {
  const api = useApi();
  const projects = useLoaded(() => projectNames(api), "projects");
  const [project, setProject] = useState("");
  const { data, problem, reload } = useLoaded(() => api.get("/api/context/stats", {}, { project: project || undefined }), `context ${project}`, EVERY_MS);
  const names = projects.data ?? [];
  const line = useChanges(streamOf(project ? [project] : names), reload);
  return (
    <>
      <div className="page-head">
        <h1>Context packs</h1>
        <span className="inline">
          <label className="search">
            Project{" "}
            <select value={project} onChange={(event) => setProject(event.target.value)}>
              <option value="">all that I see</option>
              {names.map((one) => (
                <option key={one}>{one}</option>
              ))}
            </select>
          </label>
          {names.length ? <LineBadge line={line} /> : null}
        </span>
      </div>
      <Trouble problem={problem ?? projects.problem} />
      {data ? <Figures stats={data} /> : problem ? null : <Loading what="the figures of context" />}
    </>
  );
}

/** The stream that tells of new packs in these projects; the interface takes fifty at most. */
function streamOf(projects: readonly string[]): string | null {
  if (!projects.length) return null;
  const query = new URLSearchParams();
  for (const one of projects.slice(0, 50)) query.append("projectId", one);
  for (const one of TYPES) query.append("types", one);
  return `/api/events/stream?${query.toString()}`;
}

function Figures({ stats }: { readonly stats: Stats }): ReactNode {
  return (
    <div className="two">
      <div className="stack">
        <Packs stats={stats} />
        <LeftOut stats={stats} />
      </div>
      <div className="stack">
        <Now stats={stats} />
        <Histories stats={stats} />
        <Redactions stats={stats} />
      </div>
    </div>
  );
}

function Packs({ stats }: { readonly stats: Stats }): ReactNode {
  const all = stats.packs.reduce((sum, one) => sum + one.packs, 0);
  return (
    <Card
      title="Packs by role and phase"
      aside={
        <Badge>
          {count(all, "pack")} in {count(stats.stories, "story", "stories")}
        </Badge>
      }
    >
      {stats.packs.length ? (
        <Bars
          label="Median size of packs against their budget"
          bars={stats.packs.map((one) => ({
            key: `${one.role} ${one.phase}`,
            label: `${words(one.role)}, ${one.phase}`,
            value: one.tokens_median,
            shown: `${whole(one.tokens_median)} of ${tokens(one.budget_median)}`,
            limit: one.budget_median,
            note: [count(one.packs, "pack"), `${percent(one.used)} of all budgets`, `largest ${tokens(one.tokens_largest)}`, one.dropped ? `${count(one.dropped, "item")} left out` : ""]
              .filter(Boolean)
              .join(" · "),
          }))}
        />
      ) : (
        <Empty>No role was given a pack yet.</Empty>
      )}
    </Card>
  );
}

function LeftOut({ stats }: { readonly stats: Stats }): ReactNode {
  return (
    <Card title="Left out for want of room">
      <Counts label="Items left out, by part of the pack" counts={stats.dropped} unit="item" none="Everything fitted." />
    </Card>
  );
}

function Redactions({ stats }: { readonly stats: Stats }): ReactNode {
  return (
    <Card title="Secrets taken out">
      <Counts label="Places taken out of the record, by class" counts={stats.redactions} unit="place" none="No secret was found." />
    </Card>
  );
}

function Counts({ label, counts, unit, none }: {
  readonly label: string;
  readonly counts: Readonly<Record<string, number>>;
  readonly unit: string;
  readonly none: string;
}): ReactNode {
  const rows = Object.entries(counts);
  if (!rows.length) return <Empty>{none}</Empty>;
  return <Bars label={label} bars={rows.map(([key, value]) => ({ key, label: words(key), value, shown: count(value, unit) }))} />;
}

function Histories({ stats }: { readonly stats: Stats }): ReactNode {
  const { compression } = stats;
  if (!compression.summaries)
    return (
      <Card title="Long histories">
        <Empty>No history was long enough to be summed up.</Empty>
      </Card>
    );
  return (
    <Card title="Long histories" aside={<Badge>{count(compression.summaries, "summary", "summaries")}</Badge>}>
      <Bars
        label="Tokens before and after"
        bars={[
          { key: "before", label: "before", value: compression.tokens_before, shown: tokens(compression.tokens_before) },
          { key: "after", label: "after", value: compression.tokens_after, shown: tokens(compression.tokens_after) },
        ]}
      />
      <dl className="figures">
        <Figure name="Smaller by" value={compression.ratio === null ? "nothing" : percent(compression.ratio)} />
        <Figure name="Facts kept" value={compression.recall === null ? "none to keep" : percent(compression.recall)} tone={compression.recall === 1 ? "good" : "bad"} />
        {compression.targets_missed ? <Figure name="Longer than wanted" value={count(compression.targets_missed, "summary", "summaries")} tone="warn" /> : null}
      </dl>
      <Bars
        label="Facts kept, by class"
        bars={Object.entries(compression.recall_by_class).map(([key, share]) => ({ key, label: words(key), value: share, shown: percent(share), limit: null }))}
      />
    </Card>
  );
}

/** What is not on record: it is known only while those who know it are there. */
function Now({ stats }: { readonly stats: Stats }): ReactNode {
  const { projection, activity } = stats;
  return (
    <Card title="Now">
      <dl className="figures">
        {projection.away === null ? (
          <Figure
            name="The graph is behind by"
            value={projection.lag_events ? count(projection.lag_events, "event") : "nothing"}
            tone={projection.lag_events ? "warn" : "good"}
          />
        ) : null}
        {activity.queries ? (
          <>
            <Figure name="Packs that were at hand" value={activity.cache_hit_rate === null ? "none asked for" : `${percent(activity.cache_hit_rate)} of ${count(activity.queries, "query", "queries")}`} />
            <Figure name="95 of 100 packs within" value={activity.p95_ms === null ? "none asked for" : duration(activity.p95_ms)} />
          </>
        ) : null}
      </dl>
      {projection.away === null ? null : <p className="hint">The decision graph: {projection.away}</p>}
      {activity.away === null ? (
        <p className="hint">
          {activity.queries ? "Packs that the context service built for role agents" : "No role agent asked for a pack"} since {moment(activity.since ?? "")}
        </p>
      ) : (
        <p className="hint">The context service: {activity.away}</p>
      )}
    </Card>
  );
}
