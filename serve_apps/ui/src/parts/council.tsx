import { type ReactNode, useState } from "react";
import { useApi, useLoaded } from "../hooks.ts";
import { type Body, isRecord, parsed, texts } from "../model/envelope.ts";
import { type Candidate, type Council, words } from "../model/feed.ts";
import { count, tokens } from "../model/format.ts";
import { countedVotes, votesFor } from "../model/votes.ts";
import { Badge, Card, Loading, Trouble } from "./basics.tsx";
import { EstimateRounds } from "./estimate.tsx";

const PHASES = ["drafting", "evidence", "repairing", "balloting"] as const;

/** One council as it is: who sits in it, what they made, what was measured, how they voted. */
export function CouncilCard({ council, story }: { readonly council: Council; readonly story: string }): ReactNode {
  const votes = countedVotes(council.ballots);
  return (
    <Card
      title={titleOf(council)}
      className="council"
      aside={
        council.outcome === "decided" ? (
          <Decided council={council} />
        ) : council.outcome === "undecided" ? (
          <Badge tone="bad">Undecided: {words(council.reason)}</Badge>
        ) : council.outcome === "cancelled" ? (
          <Badge tone="warn">Cancelled</Badge>
        ) : (
          <Badge tone="person">{council.kind === "estimate" ? `round ${council.round} …` : `${words(council.phase)} …`}</Badge>
        )
      }
    >
      {council.outcome === "" && council.kind !== "estimate" ? <Phases phase={council.phase} round={council.round} /> : null}
      <ul className="seats" aria-label="Members">
        {council.members.map((member) => (
          <li key={member.id} className={hasDraft(council, member.id) ? "has-draft" : ""}>
            <strong>{member.id}</strong>
            <span>
              {[member.canPropose && council.kind === "selection" ? (hasDraft(council, member.id) ? "draft delivered" : failedCode(council, member.id)) : "", votedText(council, member.id)].filter(Boolean).join(" · ") || member.role}
            </span>
          </li>
        ))}
      </ul>
      {council.kind === "estimate" ? <EstimateRounds council={council} /> : null}
      {council.candidates.length ? (
        <div className="scroll" tabIndex={0} role="region" aria-label="Drafts with evidence and votes">
          <table>
            <thead>
              <tr>
                <th scope="col">Draft of</th>
                <th scope="col">Gates</th>
                <th scope="col">Tests</th>
                <th scope="col">Lines changed</th>
                <th scope="col">Votes</th>
              </tr>
            </thead>
            <tbody>
              {council.candidates.map((one) => (
                <tr key={one.id} className={one.id === council.winner ? "winner" : ""}>
                  <th scope="row">
                    {one.member} {one.id === council.winner ? <Badge tone="good">chosen</Badge> : null}
                  </th>
                  <td>
                    <Gates candidate={one} />
                  </td>
                  <td>{one.total ? `${one.passed} of ${one.total}` : "–"}</td>
                  <td>{one.gatesOk === null ? "–" : count(one.diffLines, "line")}</td>
                  <td>{votesFor(votes, one.id) || "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
      {council.outcome === "decided" ? <Without council={council} /> : null}
      <p className="card-foot">
        {council.testsTrusted === null ? null : council.testsTrusted ? `${count(council.testsKept, "test")} from the specification trusted. ` : "The written tests were not trusted. "}
        {council.critiques ? `${count(council.critiques, "critique")}. ` : ""}
        {Object.keys(council.tokens).length ? `${tokens(Object.values(council.tokens).reduce((sum, one) => sum + one, 0))}.` : ""}
      </p>
      {council.minorityDigest ? <Minority story={story} digest={council.minorityDigest} council={council} /> : null}
    </Card>
  );
}

function titleOf(council: Council): string {
  if (council.kind === "estimate") return "Council on request: an estimate";
  if (council.approvalId) return "Council at a gate";
  return council.askedBy ? `Council on request: ${words(council.output)}` : `Council for ${words(council.output)}`;
}

function Decided({ council }: { readonly council: Council }): ReactNode {
  if (council.estimate !== null) return <Badge tone="good">{count(council.estimate, "point")}</Badge>;
  if (council.verdict) return <Badge tone={council.verdict === "approve" ? "good" : "bad"}>{council.verdict === "approve" ? "It says yes" : "It says no"}</Badge>;
  return <Badge tone="good">Decided by {council.decidedIn === "P3" ? "evidence" : "ballots"}</Badge>;
}

function Phases({ phase, round }: { readonly phase: string; readonly round: number }): ReactNode {
  return (
    <ol className="phases" aria-label="Phases">
      {PHASES.map((name) => (
        <li key={name} aria-current={name === phase ? "step" : undefined}>
          {name}
          {name === phase && round ? ` (round ${round})` : ""}
        </li>
      ))}
    </ol>
  );
}

function Gates({ candidate }: { readonly candidate: Candidate }): ReactNode {
  if (candidate.gatesOk === null) return <span className="hint">not measured yet</span>;
  if (!candidate.gates.length) return <Badge tone={candidate.gatesOk ? "good" : "bad"}>{candidate.gatesOk ? "passed" : "failed"}</Badge>;
  const failed = candidate.gates.filter((gate) => !gate.ok).map((gate) => gate.name);
  return (
    <Badge tone={failed.length ? "bad" : "good"}>
      {failed.length ? `fails ${failed.join(", ")}` : `all ${candidate.gates.length} pass`}
    </Badge>
  );
}

/** What simpler ways would have chosen: what the council added (CN-60). */
function Without({ council }: { readonly council: Council }): ReactNode {
  const names: Readonly<Record<string, string>> = { first_draft: "The first draft", best_of_n: "The best evidence", plurality: "The most votes" };
  const rows = Object.entries(names).flatMap(([key, label]) => {
    const id = chosenId(council.counterfactuals, key);
    const found = council.candidates.find((one) => one.id === id);
    return found ? [{ label, found }] : [];
  });
  if (!rows.length) return null;
  return (
    <p className="hint">
      Without a council:{" "}
      {rows.map(({ label, found }) => `${label.toLowerCase()} → ${found.member}${found.id === council.winner ? " (the same)" : found.gatesOk === false ? " (fails a gate)" : ""}`).join("; ")}
      .
    </p>
  );
}

function chosenId(body: Body, key: string): string {
  const value = body[key];
  return typeof value === "string" ? value : isRecord(value) && typeof value["candidate_id"] === "string" ? value["candidate_id"] : "";
}

function hasDraft(council: Council, member: string): boolean {
  return council.candidates.some((one) => one.member === member);
}

function failedCode(council: Council, member: string): string {
  const failed = council.failed.find((one) => one.member === member);
  return failed ? `no draft (${words(failed.code)})` : council.outcome ? "" : "writing …";
}

function votedText(council: Council, member: string): string {
  if (council.kind === "estimate") return council.outcome ? "" : council.heard.includes(member) ? "heard in this round" : "thinking …";
  return council.ballots.some((one) => one.voter === member && !one.refused) ? "voted" : "";
}

/** The minority report, read when it is opened. */
export function Minority({ story, digest, council }: { readonly story: string; readonly digest: string; readonly council: Council }): ReactNode {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Minority report</summary>
      {open ? <MinorityText story={story} digest={digest} council={council} /> : null}
    </details>
  );
}

function MinorityText({ story, digest, council }: { readonly story: string; readonly digest: string; readonly council: Council }): ReactNode {
  const api = useApi();
  const { data, problem } = useLoaded(() => api.text(`/api/planner/stories/${encodeURIComponent(story)}/blobs/${encodeURIComponent(digest)}`), digest);
  if (problem) return <Trouble problem={problem} />;
  if (data === undefined) return <Loading what="the minority report" />;
  return <MinorityWords report={parsed(data)} council={council} />;
}

export function MinorityWords({ report, council }: { readonly report: unknown; readonly council: Council | null }): ReactNode {
  if (!isRecord(report)) return <p className="empty">It holds nothing.</p>;
  const name = (id: string): string => council?.candidates.find((one) => one.id === id)?.member ?? id;
  const rejecting = Array.isArray(report["rejecting"]) ? report["rejecting"] : [];
  const equal = texts(report, "equal_evidence");
  const untrusted = Array.isArray(report["untrusted_tests"]) ? report["untrusted_tests"] : [];
  const rest = Object.entries(report).filter(([key]) => !["rejecting", "equal_evidence", "untrusted_tests"].includes(key));
  return (
    <ul className="minority">
      <li>{rejecting.length ? `Against the choice: ${rejecting.map((one) => plainText(one, name)).join("; ")}` : "Nobody voted against the choice."}</li>
      {equal.length ? <li>Drafts with equal evidence: {equal.map(name).join(", ")}</li> : null}
      {untrusted.length ? <li>Tests that were not trusted: {untrusted.map((one) => plainText(one, name)).join("; ")}</li> : null}
      {rest.map(([key, value]) => (
        <li key={key}>
          {words(key)}: {plainText(value, name)}
        </li>
      ))}
    </ul>
  );
}

function plainText(value: unknown, name: (id: string) => string): string {
  if (typeof value === "string") return name(value);
  if (Array.isArray(value)) return value.map((one) => plainText(one, name)).join(", ");
  if (isRecord(value)) return Object.entries(value).map(([key, one]) => `${words(key)} ${plainText(one, name)}`).join(", ");
  return String(value);
}
