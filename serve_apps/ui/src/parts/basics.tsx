import { type ReactNode, useId } from "react";
import type { Problem } from "../api/client.ts";
import type { LineState } from "../api/sse.ts";
import { adviceOn } from "../model/refusal.ts";

export type Tone = "plain" | "good" | "bad" | "person" | "warn";

export function Badge({ tone = "plain", children }: { readonly tone?: Tone; readonly children: ReactNode }): ReactNode {
  return <span className={`badge ${tone}`}>{children}</span>;
}

export function Card({ title, aside, children, className = "" }: {
  readonly title?: ReactNode;
  readonly aside?: ReactNode;
  readonly children: ReactNode;
  readonly className?: string;
}): ReactNode {
  const id = useId();
  return (
    <section className={`card ${className}`} aria-labelledby={title ? id : undefined}>
      {title ? (
        <header className="card-head">
          <h2 id={id}>{title}</h2>
          {aside}
        </header>
      ) : null}
      {children}
    </section>
  );
}

export function Trouble({ problem }: { readonly problem: Problem | null }): ReactNode {
  if (!problem) return null;
  const advice = adviceOn(problem);
  return (
    <div className="trouble" role="alert">
      <strong>{advice || problem.message}</strong>
      {advice ? <p>{problem.message}</p> : null}
      {problem.fields.length ? (
        <ul>
          {problem.fields.map((field) => (
            <li key={field.pointer + field.message}>
              <code>{field.pointer}</code> {field.message}
            </li>
          ))}
        </ul>
      ) : null}
    </div>
  );
}

export function Empty({ children }: { readonly children: ReactNode }): ReactNode {
  return <p className="empty">{children}</p>;
}

export function Loading({ what }: { readonly what: string }): ReactNode {
  return (
    <p className="empty" role="status">
      Reading {what} …
    </p>
  );
}

const LINES: Readonly<Record<LineState, readonly [string, Tone]>> = {
  connecting: ["Connecting", "plain"],
  live: ["Live", "good"],
  waiting: ["Line lost, comes again", "warn"],
  ended: ["Over", "plain"],
  refused: ["Not allowed", "bad"],
};

export function LineBadge({ line }: { readonly line: LineState }): ReactNode {
  const [label, tone] = LINES[line];
  return (
    <span className={`badge line ${tone}`} role="status">
      <span className="dot" aria-hidden="true" /> {label}
    </span>
  );
}

/** A figure with its name. */
export function Figure({ name, value, tone }: { readonly name: string; readonly value: ReactNode; readonly tone?: Tone }): ReactNode {
  return (
    <div className={`figure ${tone ?? ""}`}>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

export function Meter({ label, value, max, mark, unit }: {
  readonly label: string;
  readonly value: number;
  readonly max: number;
  readonly mark?: number;
  readonly unit: string;
}): ReactNode {
  const share = max > 0 ? Math.min(1, value / max) : 0;
  const tone = mark === undefined ? "plain" : value >= mark ? "good" : "warn";
  return (
    <div className="meter" role="meter" aria-label={label} aria-valuenow={value} aria-valuemin={0} aria-valuemax={max} aria-valuetext={`${value} of ${max} ${unit}`}>
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        <rect className="track" width="100" height="6" rx="3" />
        <rect className={`fill ${tone}`} width={share * 100} height="6" rx="3" />
        {mark === undefined ? null : <rect className="mark" x={Math.min(99, (mark / max) * 100)} width="1" height="6" />}
      </svg>
    </div>
  );
}

/** Who acted, in plain words. */
export function actorName(actor: string): string {
  const [kind, name] = actor.split(":");
  return name === undefined ? actor : kind === "user" ? name : kind === "system" ? "the fleet" : name;
}
