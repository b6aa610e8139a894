import { type FormEvent, type ReactNode, useId } from "react";
import { useApi, useCommand, useOptional } from "../hooks.ts";
import { type Ask, OUTPUTS, askBody, isComplete, seatOf, takesTask } from "../model/councils.ts";
import { type StoryFeed, words } from "../model/feed.ts";
import { isOver } from "../model/tasks.ts";
import { Card, Trouble } from "./basics.tsx";

const SEATS = ["architect", "developer", "qa"] as const;

/** A question for a council: it advises beside the story's own work, and moves nothing. */
export function AskCouncil({ feed, story, ask, onAsk, onEnd }: {
  readonly feed: StoryFeed;
  readonly story: string;
  readonly ask: Ask;
  readonly onAsk: (ask: Ask) => void;
  readonly onEnd: () => void;
}): ReactNode {
  const api = useApi();
  const roles = useOptional(() => api.get("/api/roles"), "roles");
  const seats = roles.data?.items.filter((one) => one.assignable).map((one) => one.name) ?? SEATS;
  const { isBusy, problem, run } = useCommand();
  const tasks = Object.values(feed.tasks).filter((one) => !isOver(one));
  const send = (event: FormEvent): void => {
    event.preventDefault();
    void run("/api/councils", askBody(story, ask)).then(onEnd, () => undefined);
  };
  const put = (more: Partial<Ask>): void => onAsk({ ...ask, ...more });
  return (
    <Card title="Ask a council">
      <form className="form" onSubmit={send}>
        <p className="hint">
          {ask.output === "estimate"
            ? "Each member gives a value in points, alone; in the next round it sees the median and the reasons, without names. The estimate stands with the task, and moves nothing."
            : "What it answers is advice: it stands on record, and the story does nothing with it by itself."}
        </p>
        <Field label="Your question">
          {(id) => <textarea id={id} required rows={3} maxLength={20_000} value={ask.question} onChange={(event) => put({ question: event.target.value })} />}
        </Field>
        <div className="row">
          <div>
            <Field label="What you want">
              {(id) => (
                <select id={id} value={ask.output} onChange={(event) => put({ output: OUTPUTS.find(([name]) => name === event.target.value)?.[0] ?? "text" })}>
                  {OUTPUTS.map(([name, label]) => (
                    <option key={name} value={name}>
                      {label}
                    </option>
                  ))}
                </select>
              )}
            </Field>
          </div>
          {takesTask(ask) ? (
            <div>
              <Field label="Task">
                {(id) => (
                  <select id={id} required={ask.output === "code_patch"} value={ask.task} onChange={(event) => put({ task: event.target.value })}>
                    <option value="">{ask.output === "estimate" ? "the whole story" : "choose a task"}</option>
                    {tasks.map((one) => (
                      <option key={one.id} value={one.id}>
                        {one.title}
                      </option>
                    ))}
                  </select>
                )}
              </Field>
            </div>
          ) : null}
          <div>
            <Field label="Who answers">
              {(id) => (
                <select id={id} value={seatOf(ask)} onChange={(event) => put({ role: event.target.value })}>
                  {[...new Set([...seats, seatOf(ask)])].map((one) => (
                    <option key={one} value={one}>
                      {words(one)}
                    </option>
                  ))}
                </select>
              )}
            </Field>
          </div>
        </div>
        <Field label="What makes an answer good, one in each line">
          {(id) => <textarea id={id} required rows={2} value={ask.aims} onChange={(event) => put({ aims: event.target.value })} />}
        </Field>
        <Field label="What it has to meet, one in each line">
          {(id) => <textarea id={id} rows={2} value={ask.requirements} onChange={(event) => put({ requirements: event.target.value })} />}
        </Field>
        <div className="row">
          <div>
            <Field label="Tokens at most">{(id) => <input id={id} required inputMode="numeric" pattern="[0-9]{1,12}" value={ask.tokens} onChange={(event) => put({ tokens: event.target.value })} />}</Field>
          </div>
          <div>
            <Field label="Minutes at most">{(id) => <input id={id} required inputMode="numeric" pattern="[0-9]{1,4}" value={ask.minutes} onChange={(event) => put({ minutes: event.target.value })} />}</Field>
          </div>
        </div>
        <Trouble problem={problem} />
        <div className="actions">
          <button type="submit" className="primary" disabled={isBusy || !isComplete(ask)}>
            {isBusy ? "Asking …" : "Ask"}
          </button>
          <button type="button" className="quiet" onClick={onEnd}>
            Close
          </button>
        </div>
      </form>
    </Card>
  );
}

function Field({ label, children }: { readonly label: string; readonly children: (id: string) => ReactNode }): ReactNode {
  const id = useId();
  return (
    <>
      <label htmlFor={id}>{label}</label>
      {children(id)}
    </>
  );
}
