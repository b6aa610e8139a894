import { type ReactNode, useEffect, useRef, useState } from "react";
import { type LineState, follow } from "../api/sse.ts";
import { useApi, useCommand } from "../hooks.ts";
import { isRecord, parsed, text } from "../model/envelope.ts";
import { type Step, type StoryFeed, stepAbout, words } from "../model/feed.ts";
import { bytes, clock, duration } from "../model/format.ts";
import { Badge, LineBadge, type Tone, Trouble } from "./basics.tsx";
import { Pictures } from "./pictures.tsx";

const TONES: Readonly<Record<string, Tone>> = { succeeded: "good", failed: "bad", denied: "bad", timed_out: "bad", cancelled: "warn", unknown: "bad" };

/** What was run, the newest first; a run that goes on shows its lines as they come. */
export function StepList({ story, steps, feed }: { readonly story: string; readonly steps: readonly Step[]; readonly feed: StoryFeed }): ReactNode {
  return (
    <ul className="steps">
      {steps.map((step) => (
        <li key={step.id}>
          <StepRow story={story} step={step} about={stepAbout(feed, step)} />
        </li>
      ))}
    </ul>
  );
}

function StepRow({ story, step, about }: { readonly story: string; readonly step: Step; readonly about: string }): ReactNode {
  const isOver = step.outcome !== "";
  const [open, setOpen] = useState(false);
  const took = isOver ? Date.parse(step.finishedAt) - Date.parse(step.startedAt) : 0;
  return (
    <details className="step" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span className="step-name">
          {words(step.tool)} {words(step.op)}{" "}
          <span className="hint">
            by {words(step.role)}
            {about ? ` · ${about}` : ""}
          </span>
        </span>
        <span className="step-facts">
          <time>{clock(step.startedAt)}</time>
          {isOver ? <span>{duration(took)}</span> : null}
          {isOver ? (
            <Badge tone={TONES[step.outcome] ?? "plain"}>
              {words(step.outcome)}
              {step.exitCode ? ` (exit code ${step.exitCode})` : ""}
            </Badge>
          ) : (
            <Badge tone="person">running …</Badge>
          )}
        </span>
      </summary>
      {open ? <StepDetail story={story} step={step} isOver={isOver} /> : null}
    </details>
  );
}

function StepDetail({ story, step, isOver }: { readonly story: string; readonly step: Step; readonly isOver: boolean }): ReactNode {
  return (
    <div className="step-detail">
      {step.kind === "run" ? <LiveLog story={story} step={step} isOver={isOver} /> : step.excerpt ? <pre tabIndex={0}>{step.excerpt}</pre> : null}
      {step.outcome === "unknown" ? <Resolve story={story} step={step} /> : null}
      <Pictures story={story} artifacts={step.artifacts} />
      {step.artifacts.length ? (
        <ul className="artifacts">
          {step.artifacts.map((one) => (
            <li key={one.path}>
              <Download story={story} digest={one.digest} name={one.path} /> <span className="hint">{bytes(one.sizeBytes)}</span>
            </li>
          ))}
        </ul>
      ) : null}
      <p className="hint">
        Step <code>{step.id}</code>
      </p>
    </div>
  );
}

/** A person says what came of a step that may or may not have happened: it is never done twice by itself. */
function Resolve({ story, step }: { readonly story: string; readonly step: Step }): ReactNode {
  const [note, setNote] = useState("");
  const { isBusy, problem, run } = useCommand();
  const path = `/api/planner/stories/${encodeURIComponent(story)}/steps/${step.id.split("/").map(encodeURIComponent).join("/")}/resolve`;
  const send = (outcome: "happened" | "not_happened"): void => void run(path, { outcome, note: note.trim() }).catch(() => undefined);
  const hasNote = note.trim().length >= 10;
  const id = `resolve-${step.id}`;
  return (
    <section className="notice" aria-label="What came of it">
      <label htmlFor={id}>Nobody knows whether this happened. Look where it was sent, then say what you found (at least 10 characters)</label>
      <textarea id={id} rows={2} maxLength={4000} value={note} onChange={(event) => setNote(event.target.value)} />
      <Trouble problem={problem} />
      <div className="actions">
        <button type="button" disabled={isBusy || !hasNote} onClick={() => send("happened")}>
          It happened
        </button>
        <button type="button" disabled={isBusy || !hasNote} onClick={() => send("not_happened")}>
          It did not happen
        </button>
      </div>
    </section>
  );
}

/** Saves a blob of the story as a file; nothing of it is opened here. */
export function Download({ story, digest, name }: { readonly story: string; readonly digest: string; readonly name: string }): ReactNode {
  const api = useApi();
  const [problem, setProblem] = useState("");
  const save = (): void =>
    void api.blob(`/api/planner/stories/${encodeURIComponent(story)}/blobs/${encodeURIComponent(digest)}`).then(
      (found) => saveAs(found, name.split("/").at(-1) ?? name),
      (error: unknown) => setProblem(error instanceof Error ? error.message : String(error)),
    );
  return (
    <>
      <button type="button" className="link" onClick={save}>
        {name}
      </button>
      {problem ? <span role="alert"> {problem}</span> : null}
    </>
  );
}

export function saveAs(blob: Blob, name: string): void {
  const url = URL.createObjectURL(new Blob([blob], { type: "application/octet-stream" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

interface LogLine {
  readonly n: number;
  readonly line: string;
  readonly level: string;
}

const MAX_LINES = 2000;

function LiveLog({ story, step, isOver }: { readonly story: string; readonly step: Step; readonly isOver: boolean }): ReactNode {
  const api = useApi();
  const [lines, setLines] = useState<readonly LogLine[]>([]);
  const [line, setLine] = useState<LineState>("connecting");
  const box = useRef<HTMLPreElement>(null);
  const id = step.id;
  useEffect(() => {
    const stop = new AbortController();
    let last = 0;
    let found: LogLine[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    setLines([]);
    const path = `/api/planner/stories/${encodeURIComponent(story)}/steps/${id.split("/").map(encodeURIComponent).join("/")}/logs?follow=true`;
    void follow({
      path,
      token: api.token,
      signal: stop.signal,
      lastEvent: "end",
      lastId: () => (last ? String(last) : ""),
      onState: setLine,
      onFrame: ({ event, id: frameId, data }) => {
        const value = parsed(data);
        if (event !== "log" || !isRecord(value)) return true;
        const n = Number(frameId) || last + 1;
        if (n <= last) return true;
        last = n;
        found = [...found, { n, line: text(value, "line"), level: text(value, "level") }].slice(-MAX_LINES);
        timer ??= setTimeout(() => {
          timer = undefined;
          setLines(found);
        }, 60);
        return true;
      },
    });
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [api, story, id]);
  useEffect(() => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines]);
  if (!lines.length && step.excerpt) return <pre tabIndex={0}>{step.excerpt}</pre>;
  if (!lines.length && (line === "refused" || isOver)) return <p className="empty">It wrote nothing.</p>;
  return (
    <>
      {isOver ? null : <LineBadge line={line} />}
      <pre ref={box} className="log" tabIndex={0} aria-label="Lines of the run" role="log">
        {lines.map((one) => (
          <span key={one.n} className={one.level}>{`${one.line}\n`}</span>
        ))}
      </pre>
    </>
  );
}
