import { type ReactNode, useState } from "react";
import { useApi, useOptional } from "../hooks.ts";
import type { StoryFeed } from "../model/feed.ts";
import { count, moment, short } from "../model/format.ts";
import { lastPictured } from "../model/pictures.ts";
import { Badge, Card, Empty, Loading, Trouble } from "../parts/basics.tsx";
import { Pictures } from "../parts/pictures.tsx";

const MARK: Readonly<Record<string, string>> = { passed: "✓", failed: "✗", errored: "!", skipped: "–" };
const SHOWN = 200;

/** Each test by name, with its result in every report, and how the pages of the preview looked last. */
export function TestsTab({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const pictured = lastPictured(Object.values(feed.steps));
  return (
    <div className="stack">
      <TestTable feed={feed} story={story} />
      {pictured ? (
        <Card title="Pages of the preview" aside={<span className="hint">{moment(pictured.finishedAt)}</span>}>
          <Pictures story={story} artifacts={pictured.artifacts} />
        </Card>
      ) : null}
    </div>
  );
}

function TestTable({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const api = useApi();
  const [onlyTrouble, setOnlyTrouble] = useState(false);
  const { data, problem } = useOptional(() => api.get("/api/planner/stories/{story_id}/tests", { story_id: story }), `tests ${story} ${feed.workspace.length}`);
  if (problem) return <Trouble problem={problem} />;
  if (data === undefined) return <Loading what="the tests" />;
  if (!data?.reports.length) return <Empty>No tests ran on the story’s own tree yet.</Empty>;
  const rows = onlyTrouble ? data.items.filter((one) => one.is_flaky || one.results.some((result) => result === "failed" || result === "errored")) : data.items;
  const flaky = data.items.filter((one) => one.is_flaky).length;
  return (
    <Card
      title={count(data.items.length, "test")}
      aside={
        <span className="story-facts">
          {flaky ? <Badge tone="warn">{count(flaky, "flaky test")}</Badge> : null}
          <label className="check">
            <input type="checkbox" checked={onlyTrouble} onChange={(event) => setOnlyTrouble(event.target.checked)} /> only with trouble
          </label>
        </span>
      }
    >
      {rows.length ? (
        <div className="scroll" tabIndex={0} role="region" aria-label="Tests over reports">
          <table className="test-table">
            <thead>
              <tr>
                <th scope="col">Test</th>
                {data.reports.map((one) => (
                  <th key={one.version} scope="col" title={`${moment(one.at)}, tree ${short(one.tree)}`}>
                    {short(one.tree).slice(0, 6)}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.slice(0, SHOWN).map((one) => (
                <tr key={one.test_id}>
                  <th scope="row">
                    <code>{one.test_id}</code> {one.is_flaky ? <Badge tone="warn">flaky</Badge> : null}
                    {one.is_known_failing ? <Badge>fails without this work too</Badge> : null}
                    {one.message ? <span className="hint"> {one.message}</span> : null}
                  </th>
                  {one.results.map((result, n) => (
                    <td key={n} className={`result ${result ?? "none"}`} title={result ?? "did not run"}>
                      <span aria-hidden="true">{result ? (MARK[result] ?? result) : ""}</span>
                      <span className="visually-hidden">{result ?? "did not run"}</span>
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <Empty>{data.items.length ? "No test ever failed." : "The reports name no test."}</Empty>
      )}
      {rows.length > SHOWN || data.left_out ? <p className="hint">{count(rows.length - Math.min(rows.length, SHOWN) + data.left_out, "further test")} not shown.</p> : null}
    </Card>
  );
}
