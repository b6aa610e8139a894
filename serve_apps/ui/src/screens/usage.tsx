import { type ReactNode, useState } from "react";
import { useApi, useLoaded, useOptional } from "../hooks.ts";
import { words } from "../model/feed.ts";
import { cost, count, duration, quantity, tokens } from "../model/format.ts";
import { Bars } from "../parts/bars.tsx";
import { Badge, Card, Empty, Loading, Trouble } from "../parts/basics.tsx";

const KEYS = ["role", "story", "model", "engine", "kind", "day"] as const;

/** What the fleet used: by role, story, model, and day; and what its budgets allow. */
export function UsageScreen(): ReactNode {
  const api = useApi();
  const [by, setBy] = useState<string>("role");
  const { data, problem } = useLoaded(() => api.get("/api/usage", {}, { group_by: by }), `usage ${by}`, 10_000);
  const rows = [...(data?.items ?? [])].sort((a, b) => (by === "day" ? a.key.localeCompare(b.key) : b.tokens_in + b.tokens_out - a.tokens_in - a.tokens_out));
  const sum = rows.reduce((all, one) => ({ tokens: all.tokens + one.tokens_in + one.tokens_out, cost: all.cost + one.cost_microusd, unpriced: all.unpriced + one.tokens_unpriced }), { tokens: 0, cost: 0, unpriced: 0 });
  return (
    <>
      <div className="page-head">
        <h1>Usage</h1>
        <label className="search">
          By{" "}
          <select value={by} onChange={(event) => setBy(event.target.value)}>
            {KEYS.map((key) => (
              <option key={key}>{key}</option>
            ))}
          </select>
        </label>
      </div>
      <Trouble problem={problem} />
      <div className="two">
        <Card title={`Tokens by ${by}`} aside={data ? <Badge>{tokens(sum.tokens)}</Badge> : null}>
          {data === undefined ? (
            problem ? null : <Loading what="the usage" />
          ) : rows.length ? (
            <>
              <Bars
                label={`Tokens by ${by}`}
                bars={rows.map((one) => ({
                  key: one.key,
                  label: words(one.key) || "none",
                  value: one.tokens_in + one.tokens_out,
                  shown: tokens(one.tokens_in + one.tokens_out),
                  note: [
                    count(one.calls, "call"),
                    `${tokens(one.tokens_in)} in, ${tokens(one.tokens_out)} out`,
                    one.gpu_ms ? `${duration(one.gpu_ms)} of GPU` : "",
                    cost(one.cost_microusd, one.tokens_unpriced),
                  ]
                    .filter(Boolean)
                    .join(" · "),
                }))}
              />
              <p className="card-foot">Cost of all: {cost(sum.cost, sum.unpriced)}</p>
            </>
          ) : (
            <Empty>Nothing was used yet.</Empty>
          )}
        </Card>
        <div className="stack">
          <Card title="Budgets of today">
            <BudgetBars scope="platform" />
          </Card>
          <Workflow />
        </div>
      </div>
    </>
  );
}

/** Where stories and tasks stand over all of the fleet. */
function Workflow(): ReactNode {
  const api = useApi();
  const { data } = useOptional(() => api.get("/api/workflow/stats"), "workflow", 10_000);
  if (!data) return null;
  const groups = [
    ["Stories by state", data.stories, "story", "stories"],
    ["Tasks by state", data.tasks, "task", "tasks"],
    ["Gates that wait", data.gates, "gate", "gates"],
    ["Parked stories by cause", data.parked, "story", "stories"],
  ] as const;
  const shown = groups.filter(([, counts]) => Object.keys(counts).length);
  if (!shown.length) return null;
  return (
    <Card title="Workflow now">
      {shown.map(([label, counts, one, many]) => (
        <section key={label} aria-label={label}>
          <h3>{label}</h3>
          <Bars label={label} bars={Object.entries(counts).map(([key, value]) => ({ key, label: words(key), value, shown: count(value, one, many) }))} />
        </section>
      ))}
      <p className="card-foot">
        {count(data.open_claims, "open claim")}, {count(data.rejections, "rejection")}, {count(data.paused, "paused story", "paused stories")}
      </p>
    </Card>
  );
}

const QUANTITIES: Readonly<Record<string, string>> = {
  tokens: "tokens",
  output_tokens: "tokens written",
  calls: "calls of models",
  cost_microusd: "cost",
  gpu_ms: "time on a GPU",
  wall_ms: "time at work",
};

function plainName(scope: string, id: string): string {
  return scope === "story" || scope === "platform" ? scope : `${scope} ${id}`;
}

/** Limits of one scope with what is used and reserved of each. */
export function BudgetBars({ scope, round = 0, name = plainName }: {
  readonly scope: string;
  readonly round?: number;
  readonly name?: (scope: string, id: string) => string;
}): ReactNode {
  const api = useApi();
  const { data, problem } = useLoaded(() => api.get("/api/budgets", {}, { scope }), `budget ${scope} ${round}`);
  if (problem) return <Trouble problem={problem} />;
  if (data === undefined) return <Loading what="the budgets" />;
  const limited = data.items.filter((one) => one.limit !== null);
  const free = data.items.filter((one) => one.limit === null && one.spent > 0 && (one.scope === "story" || one.scope === "platform"));
  if (!data.items.length) return <Empty>No limit is set and nothing was used.</Empty>;
  return (
    <>
      {limited.map((one) => (
        <Bars
          key={`${one.scope} ${one.id} ${one.quantity}`}
          label={`${one.scope} ${one.quantity}`}
          bars={[
            {
              key: one.quantity,
              label: `${name(one.scope, one.id)}: ${QUANTITIES[one.quantity] ?? words(one.quantity)}`,
              value: one.spent + one.reserved,
              shown: `${quantity(one.quantity, one.spent)} of ${quantity(one.quantity, one.limit ?? 0)}`,
              limit: one.limit,
              note: [one.reserved ? `${quantity(one.quantity, one.reserved)} reserved` : "", one.left === null ? "" : `${quantity(one.quantity, one.left)} left`].filter(Boolean).join(", "),
            },
          ]}
        />
      ))}
      {free.length ? (
        <p className="card-foot">Without a limit: {free.map((one) => `${QUANTITIES[one.quantity] ?? words(one.quantity)} ${quantity(one.quantity, one.spent)}`).join("; ")}</p>
      ) : null}
    </>
  );
}
