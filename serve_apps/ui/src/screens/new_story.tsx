import { type FormEvent, type ReactNode, useEffect, useState } from "react";
import { useCommand } from "../hooks.ts";
import { type StoryDraft, draftFrom, draftText, storyBody, suggestionOf } from "../model/coach.ts";
import { isRecord, text } from "../model/envelope.ts";
import { storyHref } from "../model/route.ts";
import { keepDraft, keptDraft } from "../model/session.ts";
import { Trouble } from "../parts/basics.tsx";
import { Coach, StoryFields } from "../parts/story_form.tsx";
import { useLifecycles } from "../lifecycles.ts";

const BLANK: StoryDraft = { title: "", description: "", criteria: [""] };
const RIGORS = [
  ["L0", "L0 · experiment"],
  ["L1", "L1 · standard"],
  ["L2", "L2 · high"],
  ["L3", "L3 · critical"],
] as const;

/** A story is written here, with the coach beside it; what the author wrote is never changed without a click. */
export function NewStoryScreen(): ReactNode {
  const [draft, setDraft] = useState<StoryDraft>(() => draftFrom(keptDraft(sessionStorage)) ?? BLANK);
  const lifecycles = useLifecycles();
  const [rigor, setRigor] = useState("L1");
  const [lifecycle, setLifecycle] = useState("agile");
  const { isBusy, problem, run } = useCommand();
  useEffect(() => keepDraft(sessionStorage, draftText(draft)), [draft]);
  const send = (event: FormEvent): void => {
    event.preventDefault();
    void run("/api/planner/stories", storyBody(draft, rigor, lifecycle)).then(
      (answer) => {
        keepDraft(sessionStorage, "");
        const id = isRecord(answer) ? text(answer, "story_id") : "";
        location.hash = id ? storyHref(id) : "#/board";
      },
      () => undefined,
    );
  };
  return (
    <>
      <div className="page-head">
        <h1>New story</h1>
      </div>
      <div className="two">
        <form className="card form" onSubmit={send} aria-label="The story">
          <GoalBox onDraft={setDraft} isFree={!draft.title && !draft.description} />
          <StoryFields draft={draft} onDraft={setDraft} />
          <div className="row">
            <div>
              <label htmlFor="rigor">Rigor</label>
              <select id="rigor" value={rigor} onChange={(event) => setRigor(event.target.value)}>
                {RIGORS.map(([value, label]) => (
                  <option key={value} value={value}>
                    {label}
                  </option>
                ))}
              </select>
            </div>
            <div>
              <label htmlFor="lifecycle">Lifecycle</label>
              <select id="lifecycle" value={lifecycle} onChange={(event) => setLifecycle(event.target.value)}>
                {lifecycles.map((one) => (
                  <option key={one.name}>{one.name}</option>
                ))}
              </select>
            </div>
          </div>
          <Trouble problem={problem} />
          <div className="actions">
            <button type="submit" className="primary" disabled={isBusy || !draft.title.trim()}>
              {isBusy ? "Creating …" : "Create the story"}
            </button>
            <a className="button quiet" href="#/board" onClick={() => keepDraft(sessionStorage, "")}>
              Cancel
            </a>
          </div>
        </form>
        <Coach draft={draft} rigor={rigor} onDraft={setDraft} />
      </div>
    </>
  );
}

/** A one-line goal becomes a first text. */
function GoalBox({ onDraft, isFree }: { readonly onDraft: (draft: StoryDraft) => void; readonly isFree: boolean }): ReactNode {
  const [goal, setGoal] = useState("");
  const [questions, setQuestions] = useState<readonly string[]>([]);
  const { isBusy, problem, run } = useCommand();
  const [isMissing, setMissing] = useState(false);
  if (isMissing) return null;
  const suggest = (): void =>
    void run("/api/stories/suggest", { goal: goal.trim() }).then(
      (answer) => {
        if (!isRecord(answer)) return;
        const found = suggestionOf(answer);
        onDraft({ ...found.draft, criteria: found.draft.criteria.length ? found.draft.criteria : [""] });
        setQuestions(found.questions);
      },
      (error: unknown) => setMissing((error as { isMissing?: boolean }).isMissing === true),
    );
  return (
    <details className="goal" open={isFree && !questions.length ? undefined : questions.length > 0}>
      <summary>Start from a one-line goal</summary>
      <div className="inline">
        <label htmlFor="goal" className="visually-hidden">
          Goal
        </label>
        <input id="goal" maxLength={300} value={goal} placeholder="Readers can save articles for later" onChange={(event) => setGoal(event.target.value)} />
        <button type="button" disabled={isBusy || goal.trim().length < 5} onClick={suggest}>
          Write a first text
        </button>
      </div>
      <Trouble problem={problem} />
      {questions.length ? (
        <ul className="questions">
          {questions.map((question) => (
            <li key={question}>{question}</li>
          ))}
        </ul>
      ) : null}
    </details>
  );
}

