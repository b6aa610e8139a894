import { type ReactNode } from "react";
import { useApi, useOptional, useSettled } from "../hooks.ts";
import { type Change, type StoryDraft, applyChange, changesOf, isApplicable, readinessOf } from "../model/coach.ts";
import { isRecord } from "../model/envelope.ts";
import { type Finding, findingsOf, words } from "../model/feed.ts";
import { count } from "../model/format.ts";
import { Badge, Card, Meter, Trouble } from "./basics.tsx";

/** Characters that the fleet takes as a description. */
const LONGEST = 20_000;

/** Title, description and criteria of a story, as its author writes them. */
export function StoryFields({ draft, onDraft }: { readonly draft: StoryDraft; readonly onDraft: (draft: StoryDraft) => void }): ReactNode {
  return (
    <>
      <label htmlFor="title">Title</label>
      <input id="title" required maxLength={200} value={draft.title} placeholder="As a reader, I want to save articles" onChange={(event) => onDraft({ ...draft, title: event.target.value })} />
      <label htmlFor="description">Description</label>
      <textarea
        id="description"
        rows={5}
        maxLength={LONGEST}
        value={draft.description}
        placeholder="What is wanted, and what it is good for"
        onChange={(event) => onDraft({ ...draft, description: event.target.value })}
      />
      {draft.description.length >= LONGEST ? (
        <p className="notice" role="status">
          A description ends at {LONGEST.toLocaleString("en")} characters; what was beyond them is not here.
        </p>
      ) : null}
      <Criteria draft={draft} onDraft={onDraft} />
    </>
  );
}

function Criteria({ draft, onDraft }: { readonly draft: StoryDraft; readonly onDraft: (draft: StoryDraft) => void }): ReactNode {
  const put = (criteria: readonly string[]): void => onDraft({ ...draft, criteria });
  return (
    <fieldset>
      <legend>Acceptance criteria</legend>
      <p className="hint">One scenario each: Given …, when …, then …</p>
      {draft.criteria.map((value, at) => (
        <div className="criterion" key={at}>
          <textarea
            aria-label={`Acceptance criterion ${at + 1}`}
            rows={2}
            maxLength={2000}
            value={value}
            placeholder="Given a saved article, when I open my list, then it stands first"
            onChange={(event) => put(draft.criteria.map((one, n) => (n === at ? event.target.value : one)))}
          />
          <button type="button" className="quiet" aria-label={`Remove criterion ${at + 1}`} disabled={draft.criteria.length === 1} onClick={() => put(draft.criteria.filter((_, n) => n !== at))}>
            ✕
          </button>
        </div>
      ))}
      <button type="button" className="quiet" disabled={draft.criteria.length >= 50} onClick={() => put([...draft.criteria, ""])}>
        + Add a criterion
      </button>
    </fieldset>
  );
}

/** How ready the text is, and what one click would add to it; what the author wrote stays. */
export function Coach({ draft, rigor, onDraft }: { readonly draft: StoryDraft; readonly rigor: string; readonly onDraft: (draft: StoryDraft) => void }): ReactNode {
  const api = useApi();
  const settled = useSettled(draft, 350);
  const body = { title: settled.title, description: settled.description, acceptance_criteria: settled.criteria.filter((one) => one.trim()) };
  const key = JSON.stringify([body, rigor]);
  const isBlank = !settled.title.trim() && !settled.description.trim();
  const score = useOptional(async () => (isBlank ? undefined : api.send("/api/stories/score", { body: { ...body, rigor } })), key);
  const refined = useOptional(async () => (isBlank ? undefined : api.send("/api/stories/refine", { body })), `refine ${key}`);
  // A gateway without a coach has no panel.
  if (score.data === null) return null;
  const found = isRecord(score.data) ? readinessOf(score.data) : null;
  const findings = isRecord(score.data) ? findingsOf(score.data) : [];
  const changes = isRecord(refined.data) ? changesOf(refined.data).filter(isApplicable) : [];
  return (
    <Card title="Readiness" className="coach" aside={found ? <Badge tone={found.ok ? "good" : "warn"}>{found.ok ? "Ready" : "Not ready yet"}</Badge> : null}>
      {found === null ? (
        <p className="empty">Write a title and see here how ready the story is.</p>
      ) : (
        <>
          <p className="score" aria-live="polite">
            <strong data-testid="score">{found.score}</strong> of 100 points; {rigor} needs {found.threshold}
          </p>
          <Meter label="Readiness" value={found.score} max={100} mark={found.threshold} unit="points" />
          <Trouble problem={score.problem} />
          {changes.length ? (
            <section aria-label="Suggestions" className="suggestions">
              <h3>Suggestions</h3>
              <ul>
                {changes.map((change) => (
                  <li key={`${change.field} ${change.kind} ${change.text} ${String(change.span)}`}>
                    <Proposal change={change} isFresh={draft === settled} onApply={() => onDraft(applyChange(draft, change))} />
                  </li>
                ))}
              </ul>
            </section>
          ) : null}
          <Findings findings={findings} />
        </>
      )}
    </Card>
  );
}

const FIELDS: Readonly<Record<string, string>> = { title: "Title", description: "Description", acceptance_criteria: "Criterion" };

function Proposal({ change, isFresh, onApply }: { readonly change: Change; readonly isFresh: boolean; readonly onApply: () => void }): ReactNode {
  const field = FIELDS[change.field.split("/")[0] ?? ""] ?? words(change.field);
  const what = change.kind === "clarify" ? `Mark an unclear word in the ${field.toLowerCase()}` : field === "Criterion" ? "Add a scenario to fill in" : `Use this ${field.toLowerCase()}`;
  return (
    <div className="proposal">
      <div>
        <strong>{what}</strong>
        <p className="quoted">{change.text.trim()}</p>
      </div>
      {/* A proposal names places in the text that the coach has read, and in no other. */}
      <button type="button" disabled={!isFresh} onClick={onApply} aria-label={`Apply: ${what}`}>
        Apply
      </button>
    </div>
  );
}

export function Findings({ findings }: { readonly findings: readonly Finding[] }): ReactNode {
  if (!findings.length) return <p className="fine">Nothing is missing.</p>;
  return (
    <section aria-label="Findings">
      <h3>{count(findings.length, "finding")}</h3>
      <ul className="findings">
        {findings.map((finding) => (
          <li key={finding.code + finding.message}>
            <span className="finding-head">
              <strong>{words(finding.dimension)}</strong>
              <Badge tone={finding.pointsLost ? "warn" : "plain"}>{finding.pointsLost ? `−${finding.pointsLost} points` : "hint"}</Badge>
            </span>
            <span>{finding.message}</span>
            {finding.suggestion ? <span className="hint">{finding.suggestion}</span> : null}
          </li>
        ))}
      </ul>
    </section>
  );
}
