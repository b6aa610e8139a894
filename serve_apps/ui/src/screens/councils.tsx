import { type ReactNode, useState } from "react";
import { useMe } from "../hooks.ts";
import { type Ask, NEW_ASK, mayAsk, whyNotAsk } from "../model/councils.ts";
import type { StoryFeed } from "../model/feed.ts";
import { Advice, SteerCouncil } from "../parts/advice.tsx";
import { AskCouncil } from "../parts/ask_council.tsx";
import { Card, Empty } from "../parts/basics.tsx";
import { CouncilCard } from "../parts/council.tsx";
import { Timeline } from "./timeline.tsx";

/** The councils of a story, the newest first: its own, and those that people asked for. */
export function CouncilTab({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const me = useMe();
  // It stands here, above all that the story's events change, so that nothing typed is lost.
  const [ask, setAsk] = useState<Ask | null>(null);
  const councils = Object.values(feed.councils).reverse();
  const live = feed.timeline.filter((one) => COUNCIL_EVENTS.test(one.type));
  const whyNot = whyNotAsk(feed);
  return (
    <div className="two wide-left">
      <div className="stack">
        {ask ? (
          <AskCouncil feed={feed} story={story} ask={ask} onAsk={setAsk} onEnd={() => setAsk(null)} />
        ) : mayAsk(me) && !whyNot ? (
          <div>
            <button type="button" onClick={() => setAsk(NEW_ASK)}>
              Ask a council
            </button>
          </div>
        ) : null}
        {councils.length ? null : <Empty>No council has met yet. The first one opens when the scope is approved and the work has started.</Empty>}
        {councils.map((one) => (
          <div key={one.id} className="stack">
            <CouncilCard council={one} story={story} />
            {one.askedBy ? <Advice council={one} feed={feed} /> : null}
            <SteerCouncil feed={feed} council={one} />
          </div>
        ))}
      </div>
      <div className="stack side">
        <Card title="Live">
          <Timeline feed={{ ...feed, timeline: live }} last={60} />
        </Card>
      </div>
    </div>
  );
}

const COUNCIL_EVENTS = /^(Council|Draft|Ballot|Critique|Round|Evidence|Repair|Tests|Estimate|Decision)/;
