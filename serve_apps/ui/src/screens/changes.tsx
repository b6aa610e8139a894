import { type ReactNode } from "react";
import { useApi, useOptional } from "../hooks.ts";
import { count } from "../model/format.ts";
import { Loading, Trouble } from "../parts/basics.tsx";
import { DiffFiles } from "../parts/diff.tsx";

/** What differs between two trees of the story; from its base to where it is now unless they are named. */
export function Changes({ story, from, to, version }: {
  readonly story: string;
  readonly from?: string;
  readonly to?: string;
  readonly version: number;
}): ReactNode {
  const api = useApi();
  // Named trees never change; the present one does with the story.
  const key = `diff ${story} ${from ?? ""} ${to ?? ""} ${from && to ? "" : version}`;
  const { data, problem } = useOptional(
    () => api.get("/api/planner/stories/{story_id}/diff", { story_id: story }, { from: from || undefined, to: to || undefined }),
    key,
  );
  if (problem) return <Trouble problem={problem} />;
  if (data === undefined) return <Loading what="the changes" />;
  if (data === null) return <p className="empty">There is nothing to compare yet.</p>;
  return (
    <>
      <DiffFiles files={data.files} />
      {data.left_out ? <p className="hint">{count(data.left_out, "further file")} not shown.</p> : null}
    </>
  );
}
