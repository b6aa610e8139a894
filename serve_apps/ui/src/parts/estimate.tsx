import { type ReactNode } from "react";
import { useApi, useKept, useOptional } from "../hooks.ts";
import type { Council } from "../model/feed.ts";
import { count } from "../model/format.ts";
import { Loading, Trouble } from "./basics.tsx";

/** The rounds of an estimate that are over: values and reasons without names, as members see them (CN-70). */
export function EstimateRounds({ council }: { readonly council: Council }): ReactNode {
  const api = useApi();
  const { data, problem } = useOptional(() => api.get("/api/councils/{council_id}", { council_id: council.id }), `rounds ${council.id} ${council.round} ${council.outcome}`);
  const shown = useKept(data);
  if (!shown) return problem ? <Trouble problem={problem} /> : <Loading what="the rounds" />;
  const rounds = shown.council.estimate_rounds;
  if (!rounds.length) return <p className="hint">Values are shown once everybody was heard.</p>;
  const last = rounds[rounds.length - 1];
  return (
    <>
      <div className="scroll" tabIndex={0} role="region" aria-label="Rounds of the estimate">
        <table>
          <thead>
            <tr>
              <th scope="col">Round</th>
              <th scope="col">Median</th>
              <th scope="col">Values</th>
              <th scope="col">Spread</th>
              <th scope="col">Without a value</th>
            </tr>
          </thead>
          <tbody>
            {rounds.map((one) => (
              <tr key={one.round}>
                <th scope="row">{one.round}</th>
                <td>{one.median ?? "–"}</td>
                <td>{one.values.join(", ") || "–"}</td>
                <td>{one.iqr ?? "–"}</td>
                <td>{one.absent || "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {rounds.map((one, at) => (
        <details key={one.round} open={one.round === last?.round}>
          <summary>
            {count((shown.reasons[at] ?? []).length, "reason")} of round {one.round}, without names
          </summary>
          <ul className="reasons">
            {(shown.reasons[at] ?? []).map((reason, n) => (
              <li key={n}>{reason}</li>
            ))}
          </ul>
        </details>
      ))}
      {council.estimate !== null ? <p className="card-foot">{spreadOf(shown.record)}</p> : null}
    </>
  );
}

/** Whether the values came together, as the record of the outcome says. */
function spreadOf(record: unknown): string {
  const found = (record as { tally?: { estimate?: { converged?: unknown } } } | null)?.tally?.estimate;
  if (!found) return "";
  return found.converged === true ? "The values came together." : "The values never came together: look at the reasons before you plan with it.";
}
