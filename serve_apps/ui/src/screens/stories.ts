import type { Api, StoryLine } from "../api/client.ts";

/** Every story, page after page; one request at a time for however many screens ask. */
export function readStories(api: Api): Promise<readonly StoryLine[]> {
  const known = UNDER_WAY.get(api);
  if (known) return known;
  const reading = read(api).finally(() => UNDER_WAY.delete(api));
  UNDER_WAY.set(api, reading);
  return reading;
}

const UNDER_WAY = new WeakMap<Api, Promise<readonly StoryLine[]>>();

async function read(api: Api): Promise<readonly StoryLine[]> {
  const found: StoryLine[] = [];
  let cursor: string | undefined;
  do {
    const page = await api.get("/api/planner/stories", {}, { limit: 200, cursor });
    found.push(...page.items);
    cursor = page.next_cursor ?? undefined;
  } while (cursor !== undefined && found.length < 5000);
  return found;
}

/** The projects that one sees: those of the fleet, or those that its stories name where it keeps none. */
export async function projectNames(api: Api): Promise<readonly string[]> {
  const stories = (await readStories(api)).map((one) => one.project_id);
  const kept = await api.get("/api/projects").then(
    (found) => found.items.map((one) => one.project_id),
    () => ["pr-default"],
  );
  return [...new Set([...kept, ...stories])];
}
