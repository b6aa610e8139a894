/** The HTTP API as the desk uses it: typed by the generated schema, errors as problem documents (AP-7). */

import { type Body, isRecord, parsed, records, text } from "../model/envelope.ts";
import type { components, paths } from "./schema.ts";

export type Schemas = components["schemas"];
export type StoryLine = Schemas["StoryLine"];
export type StoryView = Schemas["StoryView"];

export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly fields: readonly { readonly pointer: string; readonly message: string }[];
  /** What else the document says, such as `decision_status` or `guards`. */
  readonly details: Body;

  constructor(status: number, code: string, message: string, fields: Problem["fields"] = [], details: Body = {}) {
    super(message);
    this.name = "Problem";
    this.status = status;
    this.code = code;
    this.fields = fields;
    this.details = details;
  }

  /** Whether this gateway does not know the route at all. */
  get isMissing(): boolean {
    return this.status === 404 || this.status === 405;
  }
}

type JsonOf<T> = T extends { responses: infer R }
  ? R extends { 200: { content: { "application/json": infer J } } }
    ? J
    : R extends { 201: { content: { "application/json": infer J } } }
      ? J
      : unknown
  : unknown;

export type Got<P extends keyof paths> = paths[P] extends { get: infer G } ? JsonOf<G> : unknown;

export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

export interface Sent {
  readonly method?: "POST" | "PUT" | "PATCH" | "DELETE";
  readonly body?: unknown;
  readonly ifMatch?: string;
  /** Sending the same key again asks for the recorded answer. */
  readonly key?: string;
}

const WAIT_MS = 60_000;

export class Api {
  readonly #token: string;
  readonly #onUnauthenticated: () => void;

  constructor(token: string, onUnauthenticated: () => void) {
    this.#token = token;
    this.#onUnauthenticated = onUnauthenticated;
  }

  get token(): string {
    return this.#token;
  }

  /** A documented GET. */
  async get<P extends keyof paths>(path: P, params: Readonly<Record<string, string>> = {}, query: Query = {}): Promise<Got<P>> {
    return (await this.json(filled(path, params), query)) as Got<P>;
  }

  /** The JSON at a path, of whatever form. */
  async json(path: string, query: Query = {}): Promise<unknown> {
    return (await this.#ask(withQuery(path, query), {})).json();
  }

  /** The text at a path. */
  async text(path: string, query: Query = {}): Promise<string> {
    return (await this.#ask(withQuery(path, query), {})).text();
  }

  /** The bytes at a path. */
  async blob(path: string, query: Query = {}): Promise<Blob> {
    return (await this.#ask(withQuery(path, query), {})).blob();
  }

  /** A command; one that was queued is waited for (AP-4). */
  async send(path: string, sent: Sent): Promise<unknown> {
    const headers: Record<string, string> = {
      "Content-Type": "application/json",
      "Idempotency-Key": sent.key ?? newKey(),
    };
    if (sent.ifMatch) headers["If-Match"] = sent.ifMatch;
    const body = sent.body === undefined ? null : JSON.stringify(sent.body);
    const response = await this.#ask(path, { method: sent.method ?? "POST", headers, body });
    if (response.status === 204) return null;
    const answer: unknown = await response.json();
    return isRecord(answer) && isPending(response.status, answer) ? this.#outcome(text(answer, "status_url")) : answer;
  }

  async #outcome(statusUrl: string): Promise<unknown> {
    const until = Date.now() + WAIT_MS;
    while (Date.now() < until) {
      await new Promise((done) => setTimeout(done, 500));
      const found = await this.json(statusUrl);
      if (!isRecord(found)) break;
      if (found["status"] === "done") return found["result"];
      if (found["status"] === "refused") throw problemOf(409, found["problem"]);
    }
    throw new Problem(202, "pending", "The command is queued and nobody has decided it yet. Look again in a minute.");
  }

  async #ask(path: string, init: RequestInit): Promise<Response> {
    const response = await fetch(path, {
      ...init,
      headers: { ...(init.headers as Record<string, string> | undefined), Authorization: `Bearer ${this.#token}` },
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
    }).catch(() => {
      throw new Problem(0, "unreachable", "The fleet does not answer. Is it up? See: fleet status");
    });
    if (response.ok) return response;
    if (response.status === 401) this.#onUnauthenticated();
    throw problemOf(response.status, parsed(await response.text()));
  }
}

/** Whether an answer only says where the outcome will be; what was accepted and goes on by itself is an outcome (AP-4). */
export function isPending(status: number, answer: Body): boolean {
  return status === 202 && text(answer, "status") === "pending" && text(answer, "status_url").startsWith("/api/commands/");
}

/** A key that nobody used before; `randomUUID` is missing where a page was not loaded securely. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The problem that this document tells of. */
export function problemOf(status: number, document: unknown): Problem {
  if (!isRecord(document)) return new Problem(status, "unknown", `The fleet answered with status ${status}.`);
  const message = text(document, "detail") || text(document, "message") || text(document, "title");
  const fields = records(document, "errors").map((one) => ({ pointer: text(one, "pointer"), message: text(one, "message") }));
  return new Problem(status, text(document, "code") || "unknown", message || `Status ${status}`, fields, document);
}

/** The path with its parameters filled in, each one encoded. */
export function filled(path: string, params: Readonly<Record<string, string>>): string {
  return path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ""));
}

/** The path with a query; what is undefined is left out. */
export function withQuery(path: string, query: Query): string {
  const kept = Object.entries(query).flatMap(([key, value]) => (value === undefined ? [] : [[key, String(value)]]));
  return kept.length ? `${path}?${new URLSearchParams(kept).toString()}` : path;
}
