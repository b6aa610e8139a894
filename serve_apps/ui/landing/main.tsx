import { type ReactNode, StrictMode, useEffect, useMemo, useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import { type Envelope, isRecord, parseEnvelope } from "../src/model/envelope.ts";
import { type Council, type StoryFeed, latestScore, words } from "../src/model/feed.ts";
import { count, duration } from "../src/model/format.ts";
import { countedVotes, votesFor } from "../src/model/votes.ts";
import { Badge, Card, Figure, actorName } from "../src/parts/basics.tsx";
import "../src/style.css";
import "./landing.css";
import recording from "./recording.json";
import { feedAfter, shownAt, takeOf } from "./player.ts";

const STATES = ["DRAFT", "DESIGN", "BUILD", "TEST", "DOCS", "DONE"] as const;
const LINES = 9;
const FRAME_MS = 100;

const events: readonly Envelope[] = (recording.events as readonly unknown[])
  .map((one) => parseEnvelope(JSON.stringify(isRecord(one) ? one : {})))
  .filter((one) => one !== null);
const take = takeOf(events);
const end = take.at.at(-1) ?? 0;

function Landing(): ReactNode {
  const [ms, setMs] = useState(() => (matchMedia("(prefers-reduced-motion: reduce)").matches ? end : 0));
  const [playing, setPlaying] = useState(ms === 0);
  useEffect(() => {
    if (!playing) return undefined;
    const timer = setInterval(() => setMs((now) => Math.min(now + FRAME_MS, end)), FRAME_MS);
    return () => clearInterval(timer);
  }, [playing]);
  useEffect(() => {
    if (ms >= end) setPlaying(false);
  }, [ms]);
  const shown = shownAt(take, ms);
  const feed = useMemo(() => feedAfter(take, shown), [shown]);
  const toggle = (): void => {
    if (ms >= end) setMs(0);
    setPlaying((now) => !now || ms >= end);
  };
  return (
    <>
      <header className="hero">
        <h1>A software team that argues by evidence, on your own machines</h1>
        <p className="lead">
          Write a story. Role agents refine it, decide the design, write code and tests in a sandbox, and vote on what to keep.
          You decide at the gates. The result is a tested branch, and a record of who decided what, when, and why.
        </p>
        <pre className="try" aria-label="How to try it">{"git clone REPOSITORY swe-fleet && cd swe-fleet\nmake demo"}</pre>
        <p className="hint">Linux, Python 3.11 to 3.13, git and make. No account, no key, no container engine.</p>
      </header>
      <main>
        <section aria-labelledby="seen">
          <div className="page-head">
            <div>
              <h2 id="seen">What happens when you type it</h2>
              <p className="hint">
                A real recording: {count(events.length, "event")} in {duration(take.tookMs)}, with the answers of a 1.5B model replayed. Pauses are cut short.
              </p>
            </div>
            <button type="button" onClick={toggle} aria-pressed={playing}>
              {playing ? "Pause" : ms >= end ? "Play again" : "Play"}
            </button>
          </div>
          <input
            className="reel" type="range" min={0} max={end} step={FRAME_MS} value={ms} aria-label="Moment of the recording"
            aria-valuetext={`event ${shown} of ${events.length}`}
            onChange={(event) => { setPlaying(false); setMs(Number(event.target.value)); }}
          />
          <ol className="states" aria-label="State of the story">
            {STATES.map((state) => (
              <li key={state} className={stateClass(feed, state)} aria-current={feed.state === state ? "step" : undefined}>{words(state)}</li>
            ))}
          </ol>
          <div className="two wide-right">
            <Told feed={feed} />
            <div className="stack">
              {Object.values(feed.councils).map((council) => <Seats key={council.id} council={council} />)}
              <Result feed={feed} />
            </div>
          </div>
        </section>
        <section className="claims" aria-label="What it promises">
          <Card title="Kill anything">
            <p>Every step is in one event log before it counts. Kill a process, a node or a store at any moment: the story goes on where it was, and no recorded answer of a model is asked for again.</p>
            <p className="hint">docs/guarantees.md says what is promised, and what is not.</p>
          </Card>
          <Card title="Evidence before opinion">
            <p>Tests are written by another agent than the code and run in a sandbox without network. They decide first; votes only choose among what passes.</p>
            <p className="hint">`fleet council bench` measures the council against one agent at equal tokens.</p>
          </Card>
          <Card title="Yours, and provable">
            <p>Models, code and log stay on your machines, from one laptop to a GPU cluster. The log is a chain of hashes with signed checkpoints: `fleet audit verify` shows tampering.</p>
            <p className="hint">The recording above ends with {(events.at(-1)?.hash ?? "").slice(0, 19)}.</p>
          </Card>
        </section>
      </main>
    </>
  );
}

function stateClass(feed: StoryFeed, state: (typeof STATES)[number]): string {
  const at = STATES.indexOf(feed.state as (typeof STATES)[number]);
  const its = STATES.indexOf(state);
  return its === at ? "now" : its < at ? "past" : "";
}

function Told({ feed }: { readonly feed: StoryFeed }): ReactNode {
  const list = useRef<HTMLOListElement>(null);
  const lines = feed.timeline.filter((one) => one.type !== "StepStarted").slice(-LINES);
  return (
    <Card title={feed.title || "A story"}>
      <ol className="told" ref={list}>
        {lines.map((one) => (
          <li key={one.version} className={one.tone}>
            <span className="hint">{actorName(one.actor)}</span> {one.line}
          </li>
        ))}
      </ol>
    </Card>
  );
}

function Seats({ council }: { readonly council: Council }): ReactNode {
  const votes = countedVotes(council.ballots);
  return (
    <Card
      title={`Council: ${words(council.output)}`}
      aside={council.outcome === "decided" ? <Badge tone="good">decided</Badge> : <Badge tone="person">{words(council.phase || "drafting")} …</Badge>}
    >
      <ul className="seats">
        {council.members.map((member) => {
          const draft = council.candidates.find((one) => one.member === member.id);
          return (
            <li key={member.id} className={draft ? "has-draft" : ""}>
              <strong>{member.id}</strong>
              <span>
                {draft ? (draft.id === council.winner ? "its draft is chosen" : "draft delivered") : member.canPropose ? "thinks" : "writes the tests"}
                {draft && votesFor(votes, draft.id) ? ` · ${votesFor(votes, draft.id)}` : ""}
              </span>
            </li>
          );
        })}
      </ul>
    </Card>
  );
}

function Result({ feed }: { readonly feed: StoryFeed }): ReactNode {
  const score = latestScore(feed);
  const merge = feed.merges.at(-1);
  if (!score && !merge) return null;
  return (
    <Card title="So far" aside={feed.closed ? <Badge tone="good">branch delivered</Badge> : null}>
      <div className="figures">
        {score ? <Figure name="Quality" value={`${score.score} of 100`} /> : null}
        <Figure name="Merges" value={feed.merges.length} />
        <Figure name="Gates decided" value={Object.values(feed.approvals).filter((one) => one.status !== "requested").length} />
      </div>
    </Card>
  );
}

const root = document.getElementById("root");
if (root)
  createRoot(root).render(
    <StrictMode>
      <Landing />
    </StrictMode>,
  );
