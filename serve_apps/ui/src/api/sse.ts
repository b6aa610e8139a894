/** Server-sent events over fetch: EventSource cannot send the Authorization header. */

export interface Frame {
  readonly id: string;
  readonly event: string;
  readonly data: string;
}

/** Takes text as it arrives, in pieces of any length, and gives whole frames (WHATWG HTML, section 9.2.6). */
export class FrameParser {
  retryMs = 3000;
  #buffer = "";

  push(piece: string): readonly Frame[] {
    this.#buffer += piece;
    const frames: Frame[] = [];
    for (;;) {
      const end = /\r\n\r\n|\n\n|\r\r/.exec(this.#buffer);
      if (!end) return frames;
      const frame = this.#frame(this.#buffer.slice(0, end.index));
      this.#buffer = this.#buffer.slice(end.index + end[0].length);
      if (frame) frames.push(frame);
    }
  }

  #frame(block: string): Frame | null {
    let id = "";
    let event = "message";
    const data: string[] = [];
    for (const line of block.split(/\r\n|\n|\r/)) {
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "id") id = value;
      else if (field === "event") event = value;
      else if (field === "data") data.push(value);
      else if (field === "retry" && /^\d{1,6}$/.test(value)) this.retryMs = Number(value);
    }
    return data.length ? { id, event, data: data.join("\n") } : null;
  }
}

export type LineState = "connecting" | "live" | "waiting" | "ended" | "refused";

export interface Following {
  /** The path and query of the stream. */
  readonly path: string;
  readonly token: string;
  readonly signal: AbortSignal;
  /** The id after which to go on, asked before every connection. */
  readonly lastId: () => string;
  /** False asks for a new connection from `lastId`: something is missing. */
  readonly onFrame: (frame: Frame) => boolean;
  readonly onState: (state: LineState) => void;
  /** The frame after which nothing more comes. */
  readonly lastEvent?: string;
}

const STOP = new Set([400, 401, 403, 404, 410, 422]);

/** Follows a stream until the signal ends it, coming again from the last id whenever the line is lost. */
export async function follow(asked: Following): Promise<void> {
  let failures = 0;
  while (!asked.signal.aborted) {
    asked.onState("connecting");
    const parser = new FrameParser();
    try {
      const outcome = await once(asked, parser, () => (failures = 0));
      if (outcome === "stop") return;
    } catch {
      // The line was lost: nothing is said but that it is waited for.
    }
    if (asked.signal.aborted) return;
    asked.onState("waiting");
    await pause(Math.min(parser.retryMs * 2 ** Math.min(failures++, 3), 30_000) * (0.2 + 0.8 * Math.random()), asked.signal);
  }
}

async function once(asked: Following, parser: FrameParser, onLine: () => void): Promise<"stop" | "again"> {
  const lastId = asked.lastId();
  const headers: Record<string, string> = { Authorization: `Bearer ${asked.token}`, Accept: "text/event-stream" };
  if (lastId) headers["Last-Event-ID"] = lastId;
  const response = await fetch(asked.path, { headers, signal: asked.signal, credentials: "omit", redirect: "error" });
  if (STOP.has(response.status)) {
    asked.onState("refused");
    return "stop";
  }
  if (!response.ok || !response.body) throw new Error(`status ${response.status}`);
  onLine();
  asked.onState("live");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return "again";
    for (const frame of parser.push(value)) {
      if (!asked.onFrame(frame)) {
        await reader.cancel();
        return "again";
      }
      if (frame.event === asked.lastEvent) {
        asked.onState("ended");
        return "stop";
      }
      if (frame.event === "denied") {
        asked.onState("refused");
        return "stop";
      }
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(finish, ms);
    signal.addEventListener("abort", finish, { once: true });
    function finish(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      done();
    }
  });
}
