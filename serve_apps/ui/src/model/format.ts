/** Numbers, times and names as people read them, always with their unit. */

const WHOLE = new Intl.NumberFormat("en");
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export function whole(value: number): string {
  return WHOLE.format(value);
}

export function count(value: number, one: string, many = `${one}s`): string {
  return `${WHOLE.format(value)} ${value === 1 ? one : many}`;
}

export function tokens(value: number): string {
  return `${value >= 10_000 ? COMPACT.format(value) : WHOLE.format(value)} ${value === 1 ? "token" : "tokens"}`;
}

/** A share between 0 and 1. */
export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** Money in US dollars, from millionths of one. */
export function money(microusd: number): string {
  const dollars = microusd / 1_000_000;
  return `$${dollars.toFixed(dollars !== 0 && dollars < 1 ? 4 : 2)}`;
}

/** What work cost: tokens without a price are told as such, never as a cost of nothing (MB-31). */
export function cost(microusd: number, unpriced: number): string {
  if (unpriced && !microusd) return "no price known";
  return unpriced ? `${money(microusd)} and ${tokens(unpriced)} without a price` : money(microusd);
}

export function bytes(size: number): string {
  if (size < 1024) return `${size} B`;
  const [value, unit] = size < 1024 ** 2 ? [size / 1024, "KiB"] : [size / 1024 ** 2, "MiB"];
  return `${value.toFixed(1)} ${unit}`;
}

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** A longer time as people say it: days, hours, minutes. */
export function span(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return "less than a minute";
  if (minutes < 60) return count(minutes, "minute");
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return count(Math.floor(minutes / 1440), "day");
}

export function clock(ts: string | number): string {
  const date = new Date(ts);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString("en-GB");
}

export function moment(ts: string | number): string {
  const date = new Date(ts);
  return Number.isNaN(date.getTime()) ? "" : `${date.toLocaleDateString("en-CA")} ${date.toLocaleTimeString("en-GB")}`;
}

/** How long from now until a time, in words. */
export function until(ms: number, nowMs: number): string {
  if (!ms) return "";
  return ms <= nowMs ? "expired" : `${duration(Math.max(1000, ms - nowMs)).replace(/\.\d s/, " s")} left`;
}

/** The first characters of a digest. */
export function short(digest: string): string {
  return digest.replace(/^sha256:/, "").slice(0, 10);
}

/** A quantity of a budget with its unit. */
export function quantity(name: string, value: number): string {
  switch (name) {
    case "cost_microusd":
      return money(value);
    case "gpu_ms":
    case "wall_ms":
    case "latency_ms":
      return duration(value);
    case "calls":
      return count(value, "call");
    default:
      return tokens(value);
  }
}
