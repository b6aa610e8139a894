import { type ReactNode, useCallback, useState } from "react";
import { useApi, useOptional } from "../hooks.ts";
import type { StoryFeed } from "../model/feed.ts";
import { count } from "../model/format.ts";
import { storyHref, tabOf } from "../model/route.ts";
import { Badge, Card, Empty, Loading, Trouble } from "../parts/basics.tsx";
import { Markdown } from "../parts/markdown.tsx";
import { Download, saveAs } from "../parts/runs.tsx";

const FORMATS = [
  ["html", "HTML"],
  ["md", "Markdown"],
  ["json", "JSON"],
] as const;

/** The technical report: what was done, by whom and why, with every link that must be there. */
export function ReportTab({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const api = useApi();
  const path = `/api/planner/stories/${encodeURIComponent(story)}/report`;
  const recorded = feed.reports.at(-1);
  const [asOf, setAsOf] = useState(feed.version);
  const { data, problem } = useOptional(async () => {
    try {
      return await api.text(path, { format: "md" });
    } catch (error) {
      if (!recorded) throw error;
      return api.text(`/api/artifacts/${encodeURIComponent(recorded.digest)}`, { storyId: story });
    }
  }, `report ${story} ${asOf}`);
  const inner = useCallback(
    (href: string, label: string): ReactNode => {
      const digest = /^\/api\/artifacts\/(sha256:[0-9a-f]{64})/.exec(href)?.[1];
      if (digest) return <Download story={story} digest={digest} name={label} />;
      const tab = tabOf(href);
      return tab && tab !== "report" ? <a href={storyHref(story, tab)}>{label}</a> : null;
    },
    [story],
  );
  const save = (format: string): void => void api.blob(path, { format }).then((found) => saveAs(found, `${story}.${format}`), () => undefined);
  return (
    <Card
      title="Report"
      className="report"
      aside={
        <span className="story-facts">
          {recorded ? (
            <Badge tone={recorded.linked === recorded.total ? "good" : "warn"}>
              {recorded.linked} of {count(recorded.total, "item")} traced
            </Badge>
          ) : null}
          {feed.version > asOf ? (
            <button type="button" onClick={() => setAsOf(feed.version)}>
              Read again
            </button>
          ) : null}
          {data
            ? FORMATS.map(([format, label]) => (
                <button key={format} type="button" className="quiet" onClick={() => save(format)}>
                  Save as {label}
                </button>
              ))
            : null}
        </span>
      }
    >
      {problem ? <Trouble problem={problem} /> : data === undefined ? <Loading what="the report" /> : data === null ? <Empty>There is no report yet.</Empty> : <Markdown source={data} inner={inner} />}
    </Card>
  );
}
