import { type FormEvent, type ReactNode } from "react";
import { useCommand } from "../hooks.ts";
import { CATEGORIES, type Draft, ENOUGH, isComplete, proposalBody } from "../model/decisions.ts";
import { isRecord, record, text } from "../model/envelope.ts";
import { type StoryFeed, words } from "../model/feed.ts";
import { Card, Trouble } from "./basics.tsx";

/** A choice with its reasons, put on record; it binds nobody until it is accepted. `onEnd` is told its id, or null. */
export function ProposeForm({ feed, story, draft, onDraft, onEnd }: {
  readonly feed: StoryFeed;
  readonly story: string;
  readonly draft: Draft;
  readonly onDraft: (draft: Draft) => void;
  readonly onEnd: (id: string | null) => void;
}): ReactNode {
  const { isBusy, problem, run } = useCommand();
  const from = feed.decisions[draft.from];
  const send = (event: FormEvent): void => {
    event.preventDefault();
    void run(`/api/planner/stories/${encodeURIComponent(story)}/decisions`, proposalBody(draft)).then(
      (made) => onEnd(isRecord(made) ? text(record(made, "decision"), "decision_id") : null),
      () => undefined,
    );
  };
  const others = Object.values(feed.decisions).filter((one) => one.status === "PROPOSED" || one.status === "ACCEPTED");
  return (
    <Card title={from ? "Propose it changed" : "Propose a decision"}>
      <form className="form" onSubmit={send}>
        {from ? <p className="hint">“{from.title}” stays on record as it is. Once this one is accepted, put it in the place of the other.</p> : null}
        <label htmlFor="decision-title">What is decided</label>
        <input id="decision-title" required maxLength={200} value={draft.title} onChange={(event) => onDraft({ ...draft, title: event.target.value })} />
        <label htmlFor="decision-why">Why (at least {ENOUGH} characters)</label>
        <textarea id="decision-why" required rows={4} maxLength={4000} value={draft.rationale} onChange={(event) => onDraft({ ...draft, rationale: event.target.value })} />
        <label htmlFor="decision-category">Category</label>
        <select id="decision-category" value={draft.category} onChange={(event) => onDraft({ ...draft, category: event.target.value })}>
          {CATEGORIES.map((one) => (
            <option key={one} value={one}>
              {words(one)}
            </option>
          ))}
        </select>
        <label htmlFor="decision-else">What else there was, one in each line</label>
        <textarea id="decision-else" rows={2} value={draft.alternatives} onChange={(event) => onDraft({ ...draft, alternatives: event.target.value })} />
        <Checks legend="Tasks that it affects" all={Object.values(feed.tasks)} chosen={draft.affects} onChosen={(affects) => onDraft({ ...draft, affects })} />
        <Checks legend="Decisions that it needs" all={others} chosen={draft.needs} onChosen={(needs) => onDraft({ ...draft, needs })} />
        <Trouble problem={problem} />
        <div className="actions">
          <button type="submit" className="primary" disabled={isBusy || !isComplete(draft)}>
            {isBusy ? "Proposing …" : "Propose"}
          </button>
          <button type="button" className="quiet" onClick={() => onEnd(null)}>
            Close
          </button>
        </div>
      </form>
    </Card>
  );
}

function Checks({ legend, all, chosen, onChosen }: {
  readonly legend: string;
  readonly all: readonly { readonly id: string; readonly title: string }[];
  readonly chosen: readonly string[];
  readonly onChosen: (chosen: readonly string[]) => void;
}): ReactNode {
  if (!all.length) return null;
  return (
    <fieldset className="checks">
      <legend>{legend}</legend>
      {all.map((one) => (
        <label key={one.id} className="check">
          <input
            type="checkbox"
            checked={chosen.includes(one.id)}
            onChange={(event) => onChosen(event.target.checked ? [...chosen, one.id] : chosen.filter((id) => id !== one.id))}
          />{" "}
          {one.title}
        </label>
      ))}
    </fieldset>
  );
}
