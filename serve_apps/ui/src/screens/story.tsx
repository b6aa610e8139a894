import { type ReactNode, useState } from "react";
import { useFeed } from "../hooks.ts";
import { type StoryFeed, gateName, spentByRole, waiting, words } from "../model/feed.ts";
import { cost, count, moment, tokens } from "../model/format.ts";
import { gateHref, storyHref } from "../model/route.ts";
import { Bars } from "../parts/bars.tsx";
import { Badge, Card, Empty, LineBadge, Loading } from "../parts/basics.tsx";
import { Checkpoints } from "../parts/checkpoints.tsx";
import { Deployments } from "../parts/deployments.tsx";
import { StepList } from "../parts/runs.tsx";
import { AskAgain, Parked, Start } from "../parts/steering.tsx";
import { Overdue } from "../parts/tasks.tsx";
import { ChangeRequest } from "./change_request.tsx";
import { Changes } from "./changes.tsx";
import { ContextTab } from "./context.tsx";
import { CouncilTab } from "./councils.tsx";
import { DecisionsTab } from "./decisions.tsx";
import { Overview } from "./overview.tsx";
import { ReportTab } from "./report.tsx";
import { FilesTab } from "./files.tsx";
import { LifecycleTab } from "./lifecycle.tsx";
import { TasksTab } from "./tasks.tsx";
import { TestsTab } from "./tests.tsx";
import { Timeline } from "./timeline.tsx";
import { BudgetBars } from "./usage.tsx";

const TABS: readonly (readonly [string, string])[] = [
  ["overview", "Overview"],
  ["lifecycle", "Lifecycle"],
  ["tasks", "Tasks"],
  ["council", "Council"],
  ["activity", "Activity"],
  ["work", "Work"],
  ["changes", "Changes"],
  ["files", "Files"],
  ["tests", "Tests"],
  ["decisions", "Decisions"],
  ["context", "Context"],
  ["costs", "Costs"],
  ["report", "Report"],
];

/** One story, live. */
export function StoryScreen({ story, tab, item }: { readonly story: string; readonly tab: string; readonly item: string }): ReactNode {
  const { feed, line } = useFeed(story);
  if (feed.version === 0) return line === "refused" ? <Empty>There is no story {story}.</Empty> : <Loading what="the story" />;
  return (
    <>
      <div className="page-head">
        <div>
          <p className="crumb">
            <a href="#/board">Board</a>
          </p>
          <h1>{feed.title}</h1>
          <p className="story-facts">
            <Badge tone={feed.closed ? "good" : "person"}>{feed.state}</Badge>
            <Badge>{feed.rigor}</Badge>
            <Badge>{feed.lifecycle}</Badge>
            {feed.closed ? <Badge tone="good">closed</Badge> : null}
            {feed.cancelled ? <Badge tone="bad">cancelled</Badge> : null}
            {feed.parked ? <Badge tone="bad">parked</Badge> : null}
            {feed.paused ? <Badge tone="warn">paused</Badge> : null}
          </p>
        </div>
        <LineBadge line={line} />
      </div>
      <Waiting feed={feed} story={story} />
      <nav className="tabs" aria-label="Parts of the story">
        {TABS.map(([name, label]) => (
          <a key={name} href={storyHref(story, name)} aria-current={tab === name ? "page" : undefined}>
            {label}
          </a>
        ))}
      </nav>
      <Tab tab={tab} item={item} feed={feed} story={story} />
    </>
  );
}

function Tab({ tab, item, feed, story }: { readonly tab: string; readonly item: string; readonly feed: StoryFeed; readonly story: string }): ReactNode {
  switch (tab) {
    case "council":
      return <CouncilTab feed={feed} story={story} />;
    case "activity":
      return <Timeline feed={feed} />;
    case "work":
      return <WorkTab feed={feed} story={story} />;
    case "lifecycle":
      return <LifecycleTab feed={feed} story={story} />;
    case "files":
      return <FilesTab feed={feed} story={story} />;
    case "tests":
      return <TestsTab feed={feed} story={story} />;
    case "changes":
      return (
        <div className="stack">
          {feed.merges.length ? <ChangeRequest feed={feed} story={story} /> : null}
          <Card title="Changes since the start">
            {feed.merges.length ? <Changes story={story} version={feed.merges.length} /> : <Empty>Nothing was merged yet.</Empty>}
          </Card>
          <Deployments feed={feed} story={story} />
          <Checkpoints key={story} feed={feed} story={story} />
        </div>
      );
    case "tasks":
      return <TasksTab feed={feed} story={story} item={item} />;
    case "decisions":
      return <DecisionsTab feed={feed} story={story} item={item} />;
    case "context":
      return <ContextTab feed={feed} story={story} />;
    case "costs":
      return <CostsTab feed={feed} story={story} />;
    case "report":
      return <ReportTab feed={feed} story={story} />;
    default:
      return <Overview feed={feed} story={story} />;
  }
}

function Waiting({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const gates = feed.closed || feed.cancelled ? [] : waiting(feed);
  return (
    <>
      {feed.parked ? <Parked feed={feed} story={story} /> : null}
      {feed.parked && feed.started && !feed.closed && !feed.cancelled ? (
        <details>
          <summary>Start again with another repository or model</summary>
          <Start story={story} before={feed} />
        </details>
      ) : null}
      {gates.map((one) => (
        <a key={one.id} className="wait-line" href={gateHref(story, one.id)}>
          <span>
            <strong>{gateName(one.gate)}</strong> waits for a decision ({one.role.toUpperCase()})
          </span>
          <span className="go">Decide</span>
        </a>
      ))}
      <AskAgain feed={feed} story={story} />
      {!feed.started && !feed.closed && !feed.cancelled ? <Start story={story} /> : null}
    </>
  );
}

function WorkTab({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  return (
    <div className="stack">
      <Overdue feed={feed} story={story} />
      <Steps feed={feed} story={story} />
    </div>
  );
}

function Steps({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const [onlyRuns, setOnlyRuns] = useState(true);
  const steps = Object.values(feed.steps).reverse();
  const shown = onlyRuns ? steps.filter((one) => one.kind !== "model") : steps;
  const running = steps.filter((one) => one.outcome === "").length;
  return (
    <Card
      title="Work"
      aside={
        <span className="story-facts">
          {running ? <Badge tone="person">{running} running</Badge> : null}
          <label className="check">
            <input type="checkbox" checked={!onlyRuns} onChange={(event) => setOnlyRuns(!event.target.checked)} /> with calls of models
          </label>
        </span>
      }
    >
      {shown.length ? <StepList story={story} steps={shown} feed={feed} /> : <Empty>Nothing ran yet.</Empty>}
      {feed.merges.length ? (
        <>
          <h3>Merged</h3>
          <ul className="merges">
            {feed.merges.map((one) => (
              <li key={one.result + one.at}>
                <code>{one.commit.slice(0, 10)}</code> {one.files.length ? count(one.files.length, "file") : "the start"} <span className="hint">{moment(one.at)}</span>
              </li>
            ))}
          </ul>
        </>
      ) : null}
    </Card>
  );
}

function CostsTab({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const spent = spentByRole(feed).filter((one) => one.tokens > 0);
  return (
    <div className="two">
      <Card title="Tokens by role">
        {spent.length ? (
          <Bars
            label="Tokens by role"
            bars={spent.map((one) => ({ key: one.key, label: words(one.key), value: one.tokens, shown: tokens(one.tokens), note: `${count(one.steps, "step")}, ${cost(one.costMicrousd, one.unpriced)}` }))}
          />
        ) : (
          <Empty>No model was asked yet.</Empty>
        )}
      </Card>
      <Card title="Budget">
        <BudgetBars
          scope={`story:${story}`}
          round={feed.version}
          name={(scope, id) => (scope === "story" ? "story" : scope === "council" ? `council for ${words(feed.councils[id]?.output ?? id)}` : scope === "task" ? `task “${feed.tasks[id]?.title ?? id}”` : `${scope} ${id}`)}
        />
      </Card>
    </div>
  );
}
