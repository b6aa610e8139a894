/** A story while it is written, and what the coach proposes for it (SC-40). */

import { type Body, isRecord, number, records, text, texts } from "./envelope.ts";

export interface StoryDraft {
  readonly title: string;
  readonly description: string;
  readonly criteria: readonly string[];
}

/** A draft as it was kept, or null when that is none. */
export function draftFrom(kept: string): StoryDraft | null {
  try {
    const found: unknown = JSON.parse(kept);
    if (!isRecord(found)) return null;
    const criteria = texts(found, "criteria");
    return { title: text(found, "title"), description: text(found, "description"), criteria: criteria.length ? criteria : [""] };
  } catch {
    return null;
  }
}

/** A draft as it is kept; "" of one without a word. */
export function draftText(draft: StoryDraft): string {
  return [draft.title, draft.description, ...draft.criteria].some((one) => one.trim()) ? JSON.stringify(draft) : "";
}

export interface Change {
  readonly field: string;
  readonly kind: string;
  readonly span: readonly [number, number] | null;
  readonly text: string;
}

/** The proposals in an answer of the coach, each one once. */
export function changesOf(body: Body): readonly Change[] {
  const seen = new Set<string>();
  return records(body, "changes").flatMap((one) => {
    const span = one["span"];
    const at = Array.isArray(span) ? ([Number(span[0]), Number(span[1])] as const) : null;
    const change = { field: text(one, "field"), kind: text(one, "kind"), span: at, text: text(one, "text") };
    const key = `${change.field} ${change.kind} ${change.text} ${String(at)}`;
    if (seen.has(key)) return [];
    seen.add(key);
    return [change];
  });
}

/** Whether one click can put the proposal into the text; a plain question needs the author. */
export function isApplicable(change: Change): boolean {
  return change.kind !== "question" || /<[^<>\n]{1,60}>/.test(change.text);
}

/** The draft with this proposal in it. Positions count Unicode code points, as the coach counts them. */
export function applyChange(draft: StoryDraft, change: Change): StoryDraft {
  const [field, index] = change.field.split("/");
  if (field === "acceptance_criteria" && change.kind !== "clarify")
    return { ...draft, criteria: [...draft.criteria.filter((one) => one.trim()), change.text] };
  if (field === "acceptance_criteria")
    return { ...draft, criteria: draft.criteria.map((one, at) => (at === Number(index) ? spliced(one, change) : one)) };
  if (field === "title" || field === "description") return { ...draft, [field]: spliced(draft[field], change) };
  return draft;
}

function spliced(value: string, change: Change): string {
  if (!change.span) return change.text;
  const points = Array.from(value);
  return [...points.slice(0, change.span[0]), change.text, ...points.slice(change.span[1])].join("");
}

/** The story that the coach made of a goal. */
export function suggestionOf(body: Body): { readonly draft: StoryDraft; readonly questions: readonly string[] } {
  return {
    draft: { title: text(body, "title"), description: text(body, "description"), criteria: texts(body, "acceptance_criteria") },
    questions: texts(body, "questions"),
  };
}

export interface Readiness {
  readonly score: number;
  readonly threshold: number;
  readonly ok: boolean;
}

export function readinessOf(body: Body): Readiness {
  return { score: number(body, "score"), threshold: number(body, "threshold"), ok: body["dor_ok"] === true };
}

interface Criterion {
  readonly id: string;
  readonly text: string;
}

/** The fields that an edit changes (AP-54), null when none does. A criterion keeps its id as long as one can tell which it is. */
export function editBody(before: { readonly title: string; readonly description: string; readonly criteria: readonly Criterion[] }, draft: StoryDraft): Body | null {
  const body: Record<string, unknown> = {};
  if (draft.title.trim() !== before.title) body["title"] = draft.title.trim();
  if (draft.description.trim() !== before.description) body["description"] = draft.description.trim();
  const wanted = draft.criteria.map((one) => one.trim()).filter(Boolean);
  if (JSON.stringify(wanted) !== JSON.stringify(before.criteria.map((one) => one.text))) body["acceptance_criteria"] = named(before.criteria, wanted);
  return Object.keys(body).length ? body : null;
}

function named(before: readonly Criterion[], wanted: readonly string[]): readonly Body[] {
  const free = [...before];
  const take = (at: number): string | undefined => (at >= 0 ? free.splice(at, 1)[0]?.id : undefined);
  const same = wanted.map((value) => take(free.findIndex((one) => one.text === value)));
  const changed = same.map((id, at) => id ?? take(free.findIndex((one) => one.id === before[at]?.id)));
  return wanted.map((value, at) => (changed[at] === undefined ? { text: value } : { ac_id: changed[at], text: value }));
}

/** The body of a story that is created (AP-53); criteria without text are left out. */
export function storyBody(draft: StoryDraft, rigor: string, lifecycle: string): Body {
  return {
    title: draft.title.trim(),
    description: draft.description.trim(),
    acceptance_criteria: draft.criteria.map((one) => one.trim()).filter(Boolean),
    rigor,
    lifecycle,
  };
}
