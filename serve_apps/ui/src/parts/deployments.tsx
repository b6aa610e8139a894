import type { ReactNode } from "react";
import { useApi, useKept, useOptional } from "../hooks.ts";
import type { StoryFeed } from "../model/feed.ts";
import { short } from "../model/format.ts";
import { Badge, Card, type Tone, Trouble } from "./basics.tsx";

const TONES: Readonly<Record<string, Tone>> = { succeeded: "good", failed: "bad", rolled_back: "warn", unknown: "warn" };

/** Where the story runs, how it has been since, and what was seen to be wrong; nothing for a story that runs nowhere. */
export function Deployments({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const api = useApi();
  const seen = feed.timeline.filter((entry) => entry.type === "HealthObserved" || entry.type === "DeploymentRecorded").length;
  const { data, problem } = useOptional(
    () => api.get("/api/planner/stories/{story_id}/deployments", { story_id: story }),
    `deployments ${story} ${seen} ${feed.closed}`,
  );
  const shown = useKept(data);
  if (!shown?.environment) return <Trouble problem={problem} />;
  return (
    <Card title="Deployments" aside={<Badge>{shown.environment}</Badge>}>
      {shown.items.length ? (
        <div className="scroll" tabIndex={0} role="region" aria-label="Deployments">
          <table>
            <thead>
              <tr>
                <th scope="col">Outcome</th>
                <th scope="col">Healthy</th>
                <th scope="col">Tree</th>
                <th scope="col">What it said</th>
              </tr>
            </thead>
            <tbody>
              {shown.items.map((one) => (
                <tr key={one.deployment_id}>
                  <td>
                    <Badge tone={TONES[one.status] ?? "plain"}>{one.status.replaceAll("_", " ")}</Badge>
                  </td>
                  <td>
                    <meter aria-label={`Healthy for ${one.healthy_s} of ${one.monitor_s} seconds`} min={0} max={Math.max(1, one.monitor_s)} value={one.healthy_s} />{" "}
                    {one.is_healthy ? "yes" : `${one.healthy_s} of ${one.monitor_s} s`}
                  </td>
                  <td>
                    <code title={one.tree}>{short(one.tree)}</code>
                  </td>
                  <td>{one.detail}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <p className="hint">Nothing was deployed yet.</p>
      )}
      {shown.incidents.map((one) => (
        <p key={one.incident_id}>
          <Badge tone={one.status === "open" ? "bad" : "good"}>{one.status === "open" ? "incident" : "incident, over"}</Badge> {one.summary}
        </p>
      ))}
      <Trouble problem={problem} />
    </Card>
  );
}
