/** What screens share: the API of this session, data that is read again, the live feed of a story. */

import { createContext, useCallback, useContext, useEffect, useRef, useState } from "react";
import { type Api, type Got, Problem, newKey } from "./api/client.ts";
import { type LineState, follow } from "./api/sse.ts";
import { parseEnvelope } from "./model/envelope.ts";
import { EMPTY, type StoryFeed, arrival, passing, reduce } from "./model/feed.ts";

export const ApiContext = createContext<Api | null>(null);

export function useApi(): Api {
  const api = useContext(ApiContext);
  if (!api) throw new Error("a screen stands outside of the session");
  return api;
}

export interface Loaded<T> {
  readonly data: T | undefined;
  readonly problem: Problem | null;
  readonly reload: () => void;
}

/** What `read` gives, read again when `key` changes, every `everyMs` while the page is seen, and on `reload`. */
export function useLoaded<T>(read: () => Promise<T>, key: string, everyMs = 0): Loaded<T> {
  const [state, setState] = useState<{ readonly key: string; readonly data?: T; readonly problem: Problem | null }>({ key, problem: null });
  const [round, setRound] = useState(0);
  const latest = useRef(read);
  latest.current = read;
  useEffect(() => {
    let isWanted = true;
    const once = async (): Promise<void> => {
      try {
        const data = await latest.current();
        if (isWanted) setState({ key, data, problem: null });
      } catch (error) {
        if (!isWanted) return;
        const problem = error instanceof Problem ? error : new Problem(0, "unknown", String(error));
        setState((before) => ({ ...(before.key === key ? before : {}), key, problem }));
      }
    };
    void once();
    const timer = everyMs ? setInterval(() => document.visibilityState === "visible" && void once(), everyMs) : undefined;
    return () => {
      isWanted = false;
      clearInterval(timer);
    };
  }, [key, everyMs, round]);
  const reload = useCallback(() => setRound((before) => before + 1), []);
  const isCurrent = state.key === key;
  return { data: isCurrent ? state.data : undefined, problem: isCurrent ? state.problem : null, reload };
}

/** As `useLoaded`, for a route that this gateway may not have: then `data` is null and nothing is said. */
export function useOptional<T>(read: () => Promise<T>, key: string, everyMs = 0): Loaded<T | null> {
  return useLoaded<T | null>(
    () =>
      read().catch((error: unknown) => {
        if (error instanceof Problem && error.isMissing) return null;
        throw error;
      }),
    key,
    everyMs,
  );
}

/** The last value that was there, while it is read again: a form must not vanish under a hand. */
export function useKept<T>(value: T | undefined): T | undefined {
  const [kept, setKept] = useState(value);
  if (value !== undefined && value !== kept) setKept(value);
  return value ?? kept;
}

export type Me = Got<"/api/me">;

const WHO = new WeakMap<Api, Promise<Me>>();

/** Who the token stands for, asked once for a session; null until that is known. What nobody may do is not shown. */
export function useMe(): Me | null {
  const api = useApi();
  const { data } = useOptional(() => {
    const known = WHO.get(api) ?? api.get("/api/me");
    WHO.set(api, known);
    known.catch(() => WHO.delete(api));
    return known;
  }, "me");
  return data ?? null;
}

const FLUSH_MS = 40;

/** The story as its events tell it, live; it resumes by itself without gap or repeat. */
export function useFeed(story: string): { readonly feed: StoryFeed; readonly line: LineState } {
  const api = useApi();
  const [feed, setFeed] = useState<StoryFeed>(EMPTY);
  const [line, setLine] = useState<LineState>("connecting");
  useEffect(() => {
    const stop = new AbortController();
    let current = EMPTY;
    let timer: ReturnType<typeof setTimeout> | undefined;
    // The event behind the newest gap, and whether what is missing there is not shown to this person (CX-16).
    let behind = 0;
    let isCut = false;
    setFeed(EMPTY);
    void follow({
      path: `/api/events/stream?${new URLSearchParams({ storyId: story }).toString()}`,
      token: api.token,
      signal: stop.signal,
      lastId: () => (current.version ? `story:${story}/${current.version}` : ""),
      onState: setLine,
      onFrame: ({ data }) => {
        const event = parseEnvelope(data);
        if (!event) return true;
        if (arrival(current.version, event.version) === "gap") {
          // What was lost comes when it is asked for again; what does not come then never does.
          isCut ||= behind === event.version;
          behind = event.version;
          if (!isCut) return false;
          current = passing(current, event.version);
        }
        current = reduce(current, event);
        timer ??= setTimeout(() => {
          timer = undefined;
          setFeed(current);
        }, FLUSH_MS);
        return true;
      },
    });
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [api, story]);
  return { feed, line };
}

const QUIET_MS = 500;

/** Calls `onChange` soon after events of a stream, once for several of them, and after each line that was lost. */
export function useChanges(path: string | null, onChange: () => void): LineState {
  const api = useApi();
  const [line, setLine] = useState<LineState>("connecting");
  const latest = useRef(onChange);
  latest.current = onChange;
  useEffect(() => {
    if (path === null) return;
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let lastId = "";
    let hadLine = false;
    const soon = (): void => {
      timer ??= setTimeout(() => {
        timer = undefined;
        latest.current();
      }, QUIET_MS);
    };
    void follow({
      path,
      token: api.token,
      signal: stop.signal,
      lastId: () => lastId,
      onState: (state) => {
        setLine(state);
        if (state !== "live") return;
        // Without an event there is no id to resume from, so what happened meanwhile is not told again.
        if (hadLine) soon();
        hadLine = true;
      },
      onFrame: ({ id }) => {
        if (id) lastId = id;
        soon();
        return true;
      },
    });
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [api, path]);
  return line;
}

/** Told on the window after a command, so that what counts things reads again. */
export const CHANGED = "fleet-changed";

/** A command with its state: one at a time, and the same key when it is sent again after a lost line. */
export function useCommand(): {
  readonly isBusy: boolean;
  readonly problem: Problem | null;
  readonly run: (path: string, body: unknown, options?: { readonly method?: "POST" | "PUT" | "PATCH" | "DELETE"; readonly ifMatch?: string }) => Promise<unknown>;
} {
  const api = useApi();
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const again = useRef<{ readonly request: string; readonly key: string } | null>(null);
  const run = useCallback(
    async (path: string, body: unknown, options: { readonly method?: "POST" | "PUT" | "PATCH" | "DELETE"; readonly ifMatch?: string } = {}) => {
      const request = JSON.stringify([path, body, options.method]);
      if (again.current?.request !== request) again.current = { request, key: newKey() };
      setBusy(true);
      setProblem(null);
      try {
        const answer = await api.send(path, { ...options, body, key: again.current.key });
        again.current = null;
        dispatchEvent(new Event(CHANGED));
        return answer;
      } catch (error) {
        const found = error instanceof Problem ? error : new Problem(0, "unknown", String(error));
        // Only where nobody knows what came of it is the same request meant by a second click.
        if (found.status !== 0 && found.status < 500) again.current = null;
        setProblem(found);
        throw found;
      } finally {
        setBusy(false);
      }
    },
    [api],
  );
  return { isBusy, problem, run };
}

/** The time, again every second. */
export function useNow(everyMs = 1000): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}

/** A value that follows another one once that has been quiet for a while. */
export function useSettled<T>(value: T, afterMs: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), afterMs);
    return () => clearTimeout(timer);
  }, [value, afterMs]);
  return settled;
}
