import type { ReactNode } from "react";

export interface Bar {
  readonly key: string;
  readonly label: string;
  readonly value: number;
  readonly shown: string;
  readonly limit?: number | null;
  readonly note?: string;
}

/** Horizontal bars on one scale; a limit is a mark on its bar. */
export function Bars({ label, bars }: { readonly label: string; readonly bars: readonly Bar[] }): ReactNode {
  const max = Math.max(1, ...bars.map((bar) => Math.max(bar.value, bar.limit ?? 0)));
  return (
    <ul className="bars" aria-label={label}>
      {bars.map((bar) => (
        <li key={bar.key}>
          <span className="bar-label">{bar.label}</span>
          <span className="bar-value">{bar.shown}</span>
          <svg viewBox="0 0 100 5" preserveAspectRatio="none" aria-hidden="true">
            <rect className="track" width="100" height="5" rx="1" />
            <rect className={`fill ${bar.limit && bar.value > bar.limit * 0.8 ? "warn" : ""}`} width={(bar.value / max) * 100} height="5" rx="1" />
            {bar.limit ? <rect className="mark" x={Math.min(99.2, (bar.limit / max) * 100)} width="0.8" height="5" /> : null}
          </svg>
          {bar.note ? <span className="bar-note">{bar.note}</span> : null}
        </li>
      ))}
    </ul>
  );
}
