/** Places for the nodes of a directed graph, in layers from left to right; circles are drawn too. */

export interface Node {
  readonly id: string;
  readonly label: string;
  readonly kind: string;
}

export interface Edge {
  readonly from: string;
  readonly to: string;
  readonly label: string;
}

export interface Placed extends Node {
  readonly x: number;
  readonly y: number;
}

export interface Layout {
  readonly nodes: readonly Placed[];
  readonly edges: readonly Edge[];
  readonly width: number;
  readonly height: number;
}

export interface Size {
  readonly width: number;
  readonly height: number;
  readonly gapX: number;
  readonly gapY: number;
}

export const NODE: Size = { width: 190, height: 54, gapX: 70, gapY: 18 };
/** For graphs whose names are short. */
export const SMALL: Size = { width: 112, height: 54, gapX: 42, gapY: 18 };

/** Every node has a place of its own; edges to nodes that are not there are left out. */
export function place(nodes: readonly Node[], edges: readonly Edge[], size: Size = NODE): Layout {
  const known = new Map(nodes.map((node) => [node.id, node]));
  const kept = edges.filter((edge) => known.has(edge.from) && known.has(edge.to) && edge.from !== edge.to);
  const layerOf = layers([...known.keys()], kept);
  const columns: string[][] = [];
  for (const id of known.keys()) (columns[layerOf.get(id) ?? 0] ??= []).push(id);
  const filledColumns = columns.filter((column) => column?.length);
  orderByNeighbours(filledColumns, kept);
  const tallest = Math.max(0, ...filledColumns.map((column) => column.length));
  const height = tallest * (size.height + size.gapY);
  const placed = filledColumns.flatMap((column, layer) => {
    const top = (height - column.length * (size.height + size.gapY)) / 2;
    return column.flatMap((id, row) => {
      const node = known.get(id);
      if (!node) return [];
      return [{ ...node, x: layer * (size.width + size.gapX), y: top + row * (size.height + size.gapY) }];
    });
  });
  const width = Math.max(0, filledColumns.length * (size.width + size.gapX) - size.gapX);
  return { nodes: placed, edges: kept, width, height: Math.max(0, height - size.gapY) };
}

/** The longest way from a start to each node; an edge that closes a circle counts for nothing. */
function layers(ids: readonly string[], edges: readonly Edge[]): ReadonlyMap<string, number> {
  const following = new Map<string, string[]>();
  for (const edge of edges) following.set(edge.from, [...(following.get(edge.from) ?? []), edge.to]);
  const state = new Map<string, "open" | "done">();
  const order: string[] = [];
  const forward = new Set<string>();
  for (const start of ids) {
    const stack: [string, number][] = state.has(start) ? [] : [[start, 0]];
    if (stack.length) state.set(start, "open");
    while (stack.length) {
      const top = stack[stack.length - 1];
      if (!top) break;
      const [id, next] = top;
      const to = following.get(id)?.[next];
      if (to === undefined) {
        state.set(id, "done");
        order.push(id);
        stack.pop();
        continue;
      }
      top[1]++;
      if (state.get(to) !== "open") forward.add(`${id}\n${to}`);
      if (!state.has(to)) {
        state.set(to, "open");
        stack.push([to, 0]);
      }
    }
  }
  const layer = new Map(ids.map((id) => [id, 0]));
  for (const id of order.reverse())
    for (const to of following.get(id) ?? [])
      if (forward.has(`${id}\n${to}`)) layer.set(to, Math.max(layer.get(to) ?? 0, (layer.get(id) ?? 0) + 1));
  return layer;
}

/** Nodes stand near those they are linked with: two sweeps by the mean place of their neighbours. */
function orderByNeighbours(columns: string[][], edges: readonly Edge[]): void {
  const neighbours = new Map<string, string[]>();
  for (const { from, to } of edges) {
    neighbours.set(from, [...(neighbours.get(from) ?? []), to]);
    neighbours.set(to, [...(neighbours.get(to) ?? []), from]);
  }
  for (let sweep = 0; sweep < 2; sweep++) {
    const row = new Map(columns.flatMap((column) => column.map((id, at) => [id, at / Math.max(1, column.length)] as const)));
    const mean = (id: string): number => {
      const near = (neighbours.get(id) ?? []).map((other) => row.get(other) ?? 0);
      return near.length ? near.reduce((sum, value) => sum + value, 0) / near.length : (row.get(id) ?? 0);
    };
    for (const column of columns) {
      const means = new Map(column.map((id) => [id, mean(id)]));
      column.sort((a, b) => (means.get(a) ?? 0) - (means.get(b) ?? 0));
    }
  }
}
