import type { Api } from "../api/client.ts";
import { useApi, useOptional } from "../hooks.ts";
import { LIFECYCLES, type Lifecycle, lifecyclesOf } from "../model/board.ts";

const READ = new WeakMap<Api, Promise<readonly Lifecycle[]>>();

/** The lifecycles in force, read once in a session; the packaged ones until they are here. */
export function useLifecycles(): readonly Lifecycle[] {
  const api = useApi();
  return useOptional(() => once(api), "lifecycles").data ?? LIFECYCLES;
}

function once(api: Api): Promise<readonly Lifecycle[]> {
  const known = READ.get(api);
  if (known) return known;
  const reading = api.get("/api/lifecycles").then((found) => lifecyclesOf(found.content));
  reading.catch(() => READ.delete(api));
  READ.set(api, reading);
  return reading;
}
