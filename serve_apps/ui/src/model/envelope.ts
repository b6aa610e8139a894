/** The envelope of a recorded event (rule EV-12), and careful ways to look into its body. */

export type Body = Readonly<Record<string, unknown>>;

export interface Envelope {
  readonly event_id: string;
  readonly stream: string;
  readonly version: number;
  readonly type: string;
  readonly ts: string;
  readonly actor: string;
  readonly origin: string;
  readonly hash: string;
  readonly body: Body;
}

/** The envelope in this text, or null when the text is none: an unknown form never breaks the page. */
export function parseEnvelope(data: string): Envelope | null {
  const value = parsed(data);
  if (!isRecord(value) || typeof value["type"] !== "string" || typeof value["version"] !== "number") return null;
  return {
    event_id: text(value, "event_id"),
    stream: text(value, "stream"),
    version: value["version"],
    type: value["type"],
    ts: text(value, "ts"),
    actor: text(value, "actor"),
    origin: text(value, "origin"),
    hash: text(value, "hash"),
    body: record(value, "body"),
  };
}

/** The value that this JSON text stands for; undefined when it is no JSON. */
export function parsed(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
}

export function isRecord(value: unknown): value is Body {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function text(body: Body, key: string): string {
  const value = body[key];
  return typeof value === "string" ? value : typeof value === "number" ? String(value) : "";
}

export function number(body: Body, key: string): number {
  const value = Number(body[key]);
  return Number.isFinite(value) ? value : 0;
}

export function record(body: Body, key: string): Body {
  const value = body[key];
  return isRecord(value) ? value : {};
}

export function records(body: Body, key: string): readonly Body[] {
  const value = body[key];
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

export function texts(body: Body, key: string): readonly string[] {
  const value = body[key];
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === "string") : [];
}
