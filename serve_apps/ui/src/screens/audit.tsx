import { type ReactNode, useState } from "react";
import type { Got } from "../api/client.ts";
import { Problem } from "../api/client.ts";
import { useApi, useFeed, useLoaded, useOptional } from "../hooks.ts";
import { retirement } from "../model/checkpoint.ts";
import { words } from "../model/feed.ts";
import { count, duration, moment, short } from "../model/format.ts";
import { Badge, Card, Empty, Figure, LineBadge, Loading, Trouble, actorName } from "../parts/basics.tsx";
import { readStories } from "./stories.ts";

type Status = Got<"/api/audit/status">;

/** Who did what, and the proof that nothing of it was changed since. */
export function AuditScreen(): ReactNode {
  const api = useApi();
  const { data, problem } = useLoaded(() => readStories(api), "audit");
  const [story, setStory] = useState("");
  const chosen = story || data?.[0]?.story_id || "";
  return (
    <>
      <div className="page-head">
        <h1>Audit</h1>
        <label className="search">
          Story{" "}
          <select value={chosen} onChange={(event) => setStory(event.target.value)}>
            {data?.map((one) => (
              <option key={one.story_id} value={one.story_id}>
                {one.title}
              </option>
            ))}
          </select>
        </label>
      </div>
      <Trouble problem={problem} />
      <div className="stack">
        <Verification />
        <Checkpoints />
        {data === undefined ? problem ? null : <Loading what="the stories" /> : chosen ? <Events key={chosen} story={chosen} /> : <Empty>There is no story yet.</Empty>}
      </div>
    </>
  );
}

/** Everything is read again and checked against its hashes and the signed checkpoints. */
function Verification(): ReactNode {
  const api = useApi();
  const [isBusy, setBusy] = useState(false);
  const [failed, setFailed] = useState<Problem | null>(null);
  const status = useOptional(() => api.get("/api/audit/status"), "audit status", 5000);
  if (status.data === null || status.problem?.status === 403) return null;
  const verify = (): void => {
    setBusy(true);
    setFailed(null);
    void api
      .send("/api/audit/verify", { body: {} })
      .catch((error: unknown) => setFailed(error instanceof Problem ? error : new Problem(0, "unknown", String(error))))
      .finally(() => {
        setBusy(false);
        status.reload();
      });
  };
  const found: Status | undefined = status.data;
  const isRunning = isBusy || found?.is_running === true;
  return (
    <Card title="Verification" aside={<Verdict found={found} />}>
      <p>Every event carries the hash of all before it, and signed checkpoints cover all of them. A verification reads everything again and names what was altered, dropped, reordered or rolled back.</p>
      <Trouble problem={failed ?? status.problem} />
      {found?.ended_at ? (
        <dl className="figures">
          <Figure name="Checked" value={moment(found.ended_at)} />
          <Figure name="It took" value={duration(found.took_ms ?? 0)} />
          <Figure name="Streams" value={count(found.streams ?? 0, "stream")} />
          <Figure name="Events" value={count(found.events ?? 0, "event")} />
          <Figure name="Checkpoints" value={count(found.checkpoints ?? 0, "checkpoint")} />
        </dl>
      ) : null}
      {found?.findings.length ? (
        <ul className="reasons">
          {found.findings.map((one, at) => (
            <li key={at}>
              <Badge tone="bad">{words(one.verdict)}</Badge> {one.subject}
              {one.version === null ? "" : `, version ${one.version}`}: {one.detail}
            </li>
          ))}
        </ul>
      ) : null}
      {found?.remarks.map((one) => (
        <p key={one} className="hint">
          {one}
        </p>
      ))}
      <div className="actions">
        <button type="button" className="primary" disabled={isRunning} onClick={verify}>
          {isRunning ? "Checking …" : "Verify now"}
        </button>
      </div>
    </Card>
  );
}

function Verdict({ found }: { readonly found: Status | undefined }): ReactNode {
  if (!found?.ended_at) return <Badge>not checked yet</Badge>;
  // Without a signed checkpoint a log that went back in time looks whole.
  if (found.is_clean && !found.checkpoints) return <Badge tone="warn">hashes fit, no checkpoint yet</Badge>;
  return found.is_clean ? <Badge tone="good">nothing was altered</Badge> : <Badge tone="bad">{count(found.findings.length, "difference")}</Badge>;
}

const NEWEST = 1_000_000_000;
const PAGE = 20;

/** The signed checkpoints, the newest first, and which of them retired a notary's key. */
function Checkpoints(): ReactNode {
  const api = useApi();
  const [before, setBefore] = useState(NEWEST);
  const { data, problem } = useOptional(() => api.get("/api/audit/checkpoints", {}, { before, limit: PAGE }), `checkpoints before ${before}`);
  if (data === null || problem?.status === 403) return null;
  const rows = data ? [...data.items].reverse() : [];
  const lowest = rows.at(-1)?.sequence ?? 1;
  return (
    <Card title="Signed checkpoints">
      <Trouble problem={problem} />
      {data === undefined ? problem ? null : <Loading what="the checkpoints" /> : rows.length ? null : <Empty>Nothing is signed yet.</Empty>}
      {rows.length ? (
        <div className="scroll" tabIndex={0} role="region" aria-label="Signed checkpoints">
          <table>
            <thead>
              <tr>
                <th scope="col">Number</th>
                <th scope="col">Time</th>
                <th scope="col">Covers</th>
                <th scope="col">Key</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((one) => (
                <tr key={one.sequence}>
                  <td>{one.sequence}</td>
                  <td>{one.time === null ? "" : moment(one.time)}</td>
                  <td>{one.streams === null ? <Badge tone="bad">damaged</Badge> : `${count(one.events ?? 0, "event")} of ${count(one.streams, "stream")}`}</td>
                  <td>{retirement(one)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
      {lowest > 1 || before !== NEWEST ? (
        <div className="actions">
          <button type="button" disabled={before === NEWEST} onClick={() => setBefore(NEWEST)}>
            Newest
          </button>
          <button type="button" disabled={lowest <= 1} onClick={() => setBefore(lowest)}>
            Older
          </button>
        </div>
      ) : null}
    </Card>
  );
}

function Events({ story }: { readonly story: string }): ReactNode {
  const { feed, line } = useFeed(story);
  const [people, setPeople] = useState(false);
  const rows = feed.timeline.filter((one) => !people || one.actor.startsWith("user:"));
  return (
    <Card
      title={count(feed.version, "event")}
      aside={
        <span className="story-facts">
          <label className="check">
            <input type="checkbox" checked={people} onChange={(event) => setPeople(event.target.checked)} /> of people only
          </label>
          <LineBadge line={line} />
        </span>
      }
    >
      <div className="scroll tall" tabIndex={0} role="region" aria-label="Recorded events">
        <table>
          <thead>
            <tr>
              <th scope="col">Version</th>
              <th scope="col">Time</th>
              <th scope="col">Who</th>
              <th scope="col">What</th>
              <th scope="col">Hash</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((one) => (
              <tr key={one.version}>
                <td className="number">{one.version}</td>
                <td>{moment(one.ts)}</td>
                <td>{actorName(one.actor)}</td>
                <td>{one.line}</td>
                <td>
                  <code title={one.hash}>{short(one.hash)}</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}
