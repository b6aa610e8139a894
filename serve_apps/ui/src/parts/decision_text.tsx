import type { ReactNode } from "react";
import { type Decision, words } from "../model/feed.ts";
import { moment } from "../model/format.ts";
import { Badge, type Tone, actorName } from "./basics.tsx";

const TONES: Readonly<Record<Decision["status"], Tone>> = { PROPOSED: "person", ACCEPTED: "good", REJECTED: "bad", SUPERSEDED: "warn" };

export function DecisionBadge({ status }: { readonly status: Decision["status"] }): ReactNode {
  return <Badge tone={TONES[status]}>{words(status)}</Badge>;
}

/** What a decision says: its reasons, what else there was, and whose it is. */
export function DecisionWords({ decision }: { readonly decision: Decision }): ReactNode {
  return (
    <>
      <p className="story-text">{decision.rationale}</p>
      {decision.alternatives.length ? (
        <>
          <h3>Alternatives</h3>
          <ul>
            {decision.alternatives.map((one, at) => (
              <li key={at}>{one}</li>
            ))}
          </ul>
        </>
      ) : null}
      <p className="hint">
        {words(decision.category)} · {actorName(decision.author)} · {moment(decision.at)}
      </p>
    </>
  );
}
