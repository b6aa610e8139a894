import { type ReactNode, useState } from "react";
import type { StoryFeed } from "../model/feed.ts";
import { count, clock, moment } from "../model/format.ts";
import { Empty, actorName } from "../parts/basics.tsx";

const PAGE = 150;

/** What happened, the newest first. */
export function Timeline({ feed, last }: { readonly feed: StoryFeed; readonly last?: number }): ReactNode {
  const [shown, setShown] = useState(PAGE);
  const [filter, setFilter] = useState("");
  const wanted = filter.trim().toLowerCase();
  const found = wanted ? feed.timeline.filter((one) => `${one.line} ${one.type} ${one.actor}`.toLowerCase().includes(wanted)) : feed.timeline;
  const limit = last ?? shown;
  const rows = found.slice(-limit).reverse();
  return (
    <div className="timeline-box">
      {last === undefined ? (
        <div className="inline">
          <label htmlFor="filter" className="visually-hidden">
            Find in the activity
          </label>
          <input id="filter" type="search" placeholder="Find in the activity" value={filter} onChange={(event) => setFilter(event.target.value)} />
          <span className="hint">{count(found.length, "event")}</span>
        </div>
      ) : null}
      {rows.length ? (
        <ol className="timeline" reversed role="log" aria-live={last === undefined ? "polite" : "off"} aria-label="Activity">
          {rows.map((one) => (
            <li key={one.version} className={one.tone}>
              <time dateTime={one.ts} title={moment(one.ts)}>
                {clock(one.ts)}
              </time>
              <span className="line">{one.line}</span>
              <span className="who" title={`${one.type}, event ${one.version}`}>
                {actorName(one.actor)}
              </span>
            </li>
          ))}
        </ol>
      ) : (
        <Empty>Nothing happened yet.</Empty>
      )}
      {last === undefined && found.length > shown ? (
        <button type="button" onClick={() => setShown(shown + PAGE)}>
          Show older events
        </button>
      ) : null}
    </div>
  );
}
