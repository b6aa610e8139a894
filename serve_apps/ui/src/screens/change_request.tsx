import { type ReactNode } from "react";
import { useApi, useOptional } from "../hooks.ts";
import type { StoryFeed } from "../model/feed.ts";
import { Badge, Card, Empty, Figure, Loading, Trouble } from "../parts/basics.tsx";
import { Markdown } from "../parts/markdown.tsx";

/** What the change request says, or would say now: the words in which the work is offered to a forge. */
export function ChangeRequest({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const api = useApi();
  const { data, problem } = useOptional(() => api.get("/api/planner/stories/{story_id}/change-request", { story_id: story }), `change ${story} ${feed.merges.length} ${feed.closed}`);
  if (problem) return <Trouble problem={problem} />;
  if (data === undefined) return <Loading what="the change request" />;
  if (data === null) return <Empty>This fleet shows no change requests.</Empty>;
  return (
    <Card
      title="Change request"
      aside={data.outcome === null || data.outcome === undefined ? <Badge>preview</Badge> : <Badge tone={data.outcome === "succeeded" ? "good" : "bad"}>{data.outcome}</Badge>}
    >
      <dl className="figures">
        <Figure name="Title" value={data.title} />
        <Figure name="Branch" value={<code>{data.head}</code>} />
        <Figure name="Verdict" value={data.verdict} />
        {data.commit ? <Figure name="Commit" value={<code>{data.commit.slice(0, 10)}</code>} /> : null}
      </dl>
      {data.summary ? <p>{data.summary}</p> : null}
      <details>
        <summary>Its text</summary>
        <Markdown source={data.body} inner={() => null} />
      </details>
    </Card>
  );
}
