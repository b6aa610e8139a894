import type { Api } from "./api/client.ts";
import { useApi, useNow, useOptional } from "./hooks.ts";
import { LIFECYCLES, type Lifecycle, lifecyclesOf } from "./model/board.ts";
import type { StoryFeed } from "./model/feed.ts";
import { type Late, type Limits, NO_LIMITS, lateTasks, limitsOf } from "./model/overdue.ts";

interface Rules {
  readonly lifecycles: readonly Lifecycle[];
  readonly limits: Limits;
}

const READ = new WeakMap<Api, Promise<Rules>>();

/** The lifecycles in force, read once in a session; the packaged ones until they are here. */
export function useLifecycles(): readonly Lifecycle[] {
  return useRules()?.lifecycles ?? LIFECYCLES;
}

/** The time limits of tasks in force; none until they are here. */
export function useLimits(): Limits {
  return useRules()?.limits ?? NO_LIMITS;
}

/** The tasks of a story that are overdue now, the latest first. */
export function useLate(feed: StoryFeed): readonly Late[] {
  return lateTasks(feed, useLimits(), useNow(10_000));
}

function useRules(): Rules | undefined | null {
  const api = useApi();
  return useOptional(() => once(api), "lifecycles").data;
}

function once(api: Api): Promise<Rules> {
  const known = READ.get(api);
  if (known) return known;
  const reading = api.get("/api/lifecycles").then((found) => ({ lifecycles: lifecyclesOf(found.content), limits: limitsOf(found.content) }));
  reading.catch(() => READ.delete(api));
  READ.set(api, reading);
  return reading;
}
