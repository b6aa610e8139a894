/** Votes of a council as they count: each voter is asked twice, with the drafts in opposite orders (CN-46). */

import type { Ballot } from "./story.ts";

/** What each voter says of each draft in the last round; one who contradicts itself abstains on that draft. */
export function countedVotes(ballots: readonly Ballot[]): Readonly<Record<string, Readonly<Record<string, string>>>> {
  const valid = ballots.filter((one) => !one.refused);
  const last = Math.max(-1, ...valid.map((one) => one.round));
  const counted: Record<string, Record<string, string>> = {};
  for (const ballot of valid) {
    if (ballot.round !== last) continue;
    const said = (counted[ballot.voter] ??= {});
    for (const [candidate, vote] of Object.entries(ballot.votes)) {
      const before = said[candidate];
      said[candidate] = before === undefined || before === vote ? vote : "abstain";
    }
  }
  return counted;
}

/** How many voters say what of one draft: `2 approve, 1 abstain`; "" when none does. */
export function votesFor(counted: ReturnType<typeof countedVotes>, candidate: string): string {
  const counts = new Map<string, number>();
  for (const said of Object.values(counted)) {
    const vote = said[candidate];
    if (vote) counts.set(vote, (counts.get(vote) ?? 0) + 1);
  }
  return [...counts].map(([vote, n]) => `${n} ${vote}`).join(", ");
}
