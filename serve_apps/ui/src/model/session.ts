/** The token of this tab: in sessionStorage alone, never in the address, never in a cookie. */

const KEY = "fleet.token";
const DRAFT = "fleet.draft";

export interface Place {
  readonly hash: string;
  readonly store: Pick<Storage, "getItem" | "setItem" | "removeItem">;
  readonly replace: (hash: string) => void;
}

/** The token of this tab. One that came with the address (`#token=...`) is kept and taken out of the address at once. */
export function takeToken(place: Place): string | null {
  const given = tokenIn(place.hash);
  if (given === null) return place.store.getItem(KEY);
  place.replace("#/board");
  if (given) place.store.setItem(KEY, given);
  return given || null;
}

export function keepToken(store: Place["store"], token: string): void {
  store.setItem(KEY, token);
}

export function dropToken(store: Place["store"]): void {
  store.removeItem(KEY);
  store.removeItem(DRAFT);
}

/** What was written of a new story in this tab, so that a reload or a look at another page does not lose it; "" when nothing was. */
export function keptDraft(store: Place["store"]): string {
  return store.getItem(DRAFT) ?? "";
}

/** Keeps the text of a new story for this tab, until it is created, given up, or the person signs out. */
export function keepDraft(store: Place["store"], draft: string): void {
  if (draft) store.setItem(DRAFT, draft);
  else store.removeItem(DRAFT);
}

/** The token in a fragment, "" when it is empty, null when the fragment names none. */
export function tokenIn(hash: string): string | null {
  if (!/^#\/?\??token=/.test(hash)) return null;
  return (new URLSearchParams(hash.replace(/^#\/?\??/, "")).get("token") ?? "").trim();
}
