/** Councils on request: who may ask, end or send one back, and what is asked (AP-77, AP-78). */

import type { Person } from "./decisions.ts";
import { type Body, isRecord, text } from "./envelope.ts";
import type { Council, StoryFeed } from "./story.ts";

/** What a reason needs at least. */
export const ENOUGH = 10;

const ASKERS = ["architect", "qa", "po", "system"];
const ENDERS = ["po", "architect"];

/** Why no council can be asked for now; "" when one can. */
export function whyNotAsk(feed: StoryFeed): string {
  if (feed.closed || feed.cancelled) return "The story is over.";
  if (feed.parked) return "The story is parked: let it go on first.";
  if (feed.paused) return "The story is paused: resume it first.";
  return feed.started ? "" : "The story was not started yet.";
}

export function mayAsk(me: Person | null): boolean {
  return me !== null && me.roles.some((role) => ASKERS.includes(role));
}

export interface Ways {
  readonly end: boolean;
  readonly sendBack: boolean;
}

/** What this person may do with a council as it is now. */
export function waysWith(feed: StoryFeed, council: Council, me: Person | null): Ways {
  const may = me !== null && me.roles.some((role) => ENDERS.includes(role)) && !feed.closed && !feed.cancelled;
  const isDone = council.outcome === "decided" || council.outcome === "undecided";
  return {
    end: may && council.outcome === "",
    // Only a person sends one back, and only one that was asked for: the story's own is rejected at its gate.
    sendBack: may && isDone && council.askedBy !== "" && me.principal.startsWith("user:") && nextOf(feed, council.id) === null && whyNotAsk(feed) === "",
  };
}

/** The council that came in the place of this one. */
export function nextOf(feed: StoryFeed, id: string): Council | null {
  return Object.values(feed.councils).find((one) => one.retryOf === id) ?? null;
}

export interface Ask {
  /** What the answer is; `estimate` is a kind of its own, whose members say how much work something is. */
  readonly output: "text" | "design" | "plan" | "code_patch" | "estimate";
  readonly question: string;
  /** Who sits in it; "" for who fits the kind of answer. */
  readonly role: string;
  readonly task: string;
  /** What the answer is judged by, one in each line. */
  readonly aims: string;
  /** What it has to meet, one in each line. */
  readonly requirements: string;
  readonly tokens: string;
  readonly minutes: string;
}

export const OUTPUTS = [
  ["text", "an answer in words"],
  ["design", "a design"],
  ["plan", "a plan of tasks"],
  ["code_patch", "code for a task"],
  ["estimate", "how much work it is"],
] as const;

export const NEW_ASK: Ask = { output: "text", question: "", role: "", task: "", aims: "", requirements: "", tokens: "50000", minutes: "10" };

const FITTING: Readonly<Record<Ask["output"], string>> = { text: "architect", design: "architect", plan: "architect", code_patch: "developer", estimate: "developer" };

export function seatOf(ask: Ask): string {
  return ask.role || FITTING[ask.output];
}

/** Whether it may be about one task: code has to be, an estimate is of the whole story otherwise. */
export function takesTask(ask: Ask): boolean {
  return ask.output === "code_patch" || ask.output === "estimate";
}

/** Whether everything is there that a council needs. */
export function isComplete(ask: Ask): boolean {
  const hasBudget = wholeOf(ask.tokens) > 0 && wholeOf(ask.minutes) > 0;
  return ask.question.trim() !== "" && lines(ask.aims).length > 0 && hasBudget && (ask.output !== "code_patch" || ask.task !== "");
}

/** The body of the request (CN-1..CN-12). */
export function askBody(story: string, ask: Ask): Body {
  return {
    story_id: story,
    role: seatOf(ask),
    ...(ask.output === "estimate" ? { kind: "estimate", output_kind: "text" } : { output_kind: ask.output }),
    task_description: ask.question.trim(),
    constraints: {
      rubric: lines(ask.aims).slice(0, 10).map((aim, at) => ({ name: `aim ${at + 1}`, text: aim })),
      requirements: lines(ask.requirements).slice(0, 20),
    },
    budget: { tokens: wholeOf(ask.tokens), wall_s: wholeOf(ask.minutes) * 60 },
    ...(ask.task !== "" && takesTask(ask) ? { task_id: ask.task } : {}),
  };
}

function lines(value: string): readonly string[] {
  return value.split("\n").map((one) => one.trim()).filter(Boolean);
}

function wholeOf(value: string): number {
  return /^\d{1,12}$/.test(value.trim()) ? Number(value) : 0;
}

export interface Part {
  readonly name: string;
  /** What stands there; one text, or one for each thing of a list. */
  readonly texts: readonly string[];
}

/** An answer, whatever its form, as texts under their names. */
export function partsOf(answer: unknown): readonly Part[] {
  if (!isRecord(answer)) return answer === null || answer === undefined ? [] : [{ name: "", texts: [plain(answer)] }];
  const first = (name: string): number => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  const entries = Object.entries(answer).sort(([a], [b]) => first(a) - first(b));
  return entries.map(([name, value]) => ({ name, texts: Array.isArray(value) ? value.map(plain) : [plain(value)] }));
}

/** What a person reads first; a record keeps its names by the alphabet. */
const FIRST = ["summary", "text", "interface", "path"];

function plain(value: unknown): string {
  if (typeof value === "string") return value;
  if (!isRecord(value)) return JSON.stringify(value);
  const isLong = Object.values(value).some((one) => typeof one === "string" && one.includes("\n"));
  return Object.entries(value).map(([key, one]) => (isLong ? `${key}:\n${plain(one)}` : `${key}: ${plain(one)}`)).join(isLong ? "\n" : ", ");
}

/** The question that a council was asked, "" where its page tells none. */
export function questionOf(asked: unknown): string {
  return isRecord(asked) && isRecord(asked["request"]) ? text(asked["request"], "task_description") : "";
}
