import { type KeyboardEvent, type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { type Edge, NODE, type Node, type Placed, type Size, place } from "../model/layout.ts";

/** A graph that is drawn, and whose nodes can be chosen by pointer and by keyboard. */
export function Graph({ label, nodes, edges, chosen, onChoose, size = NODE }: {
  readonly label: string;
  readonly nodes: readonly Node[];
  readonly edges: readonly Edge[];
  readonly chosen: string | null;
  readonly onChoose: (id: string) => void;
  readonly size?: Size;
}): ReactNode {
  const layout = useMemo(() => place(nodes, edges, size), [nodes, edges, size]);
  const [hovered, setHovered] = useState<string | null>(null);
  const at = new Map(layout.nodes.map((node) => [node.id, node]));
  const near = hovered ?? chosen;
  const pad = 8;
  const width = layout.width + 2 * pad;
  const backs = layout.edges.map((edge) => depth(at.get(edge.from), at.get(edge.to), size));
  const height = layout.height + 2 * pad + Math.max(0, ...backs) * 0.75;
  // What is chosen at first lies in sight, however narrow the window is.
  const box = useRef<HTMLDivElement>(null);
  const first = useRef(chosen);
  useEffect(() => {
    const place = layout.nodes.find((node) => node.id === first.current);
    if (place && box.current) box.current.scrollLeft = place.x - (box.current.clientWidth - size.width) / 2;
  }, [layout, size]);
  const keys = (event: KeyboardEvent, id: string): void => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    onChoose(id);
  };
  return (
    <div className="scroll graph" ref={box} tabIndex={0} role="region" aria-label={label}>
      <svg width={width} height={height} viewBox={`${-pad} ${-pad} ${width} ${height}`} role="group" aria-label={`${label}: ${layout.nodes.length} nodes`}>
        <defs>
          <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
            <path d="M0 0 8 4 0 8z" className="arrow" />
          </marker>
        </defs>
        {layout.edges.map((edge, n) => {
          const from = at.get(edge.from);
          const to = at.get(edge.to);
          if (!from || !to) return null;
          const isNear = near === edge.from || near === edge.to;
          return (
            <path key={n} className={`edge ${isNear ? "near" : ""} ${backs[n] ? "back" : ""}`} d={curve(from, to, backs[n] ?? 0, size)} markerEnd="url(#arrow)">
              <title>{`${from.label}: ${edge.label} ${to.label}`}</title>
            </path>
          );
        })}
        {layout.nodes.map((node) => (
          <g
            key={node.id}
            className={`node ${node.kind} ${chosen === node.id ? "chosen" : ""}`}
            transform={`translate(${node.x} ${node.y})`}
            role="button"
            tabIndex={0}
            aria-pressed={chosen === node.id}
            aria-label={`${node.kind}: ${node.label}`}
            onClick={() => onChoose(node.id)}
            onKeyDown={(event) => keys(event, node.id)}
            onMouseEnter={() => setHovered(node.id)}
            onMouseLeave={() => setHovered(null)}
          >
            <rect width={size.width} height={size.height} rx="8" />
            <text x="12" y="20" className="node-kind">
              {node.kind}
            </text>
            <text x="12" y="40">
              {cut(node.label, Math.floor(size.width / 7.9))}
            </text>
            <title>{node.label}</title>
          </g>
        ))}
      </svg>
    </div>
  );
}

/** How far below the nodes an edge hangs that leads back; 0 for one that leads on. */
function depth(from: Placed | undefined, to: Placed | undefined, size: Size): number {
  if (!from || !to || to.x > from.x) return 0;
  return 36 + (14 * (from.x - to.x)) / (size.width + size.gapX);
}

function curve(from: Placed, to: Placed, below: number, size: Size): string {
  if (below) {
    const [x1, y1] = [from.x + size.width / 2 - 12, from.y + size.height];
    const [x2, y2] = [to.x + size.width / 2 + 12, to.y + size.height];
    return `M${x1} ${y1} C${x1} ${y1 + below} ${x2} ${y2 + below} ${x2} ${y2}`;
  }
  const [x1, y1] = [from.x + size.width, from.y + size.height / 2];
  const [x2, y2] = [to.x, to.y + size.height / 2];
  const bend = Math.max(size.gapX / 2, Math.abs(x2 - x1) / 2);
  return `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

function cut(value: string, length: number): string {
  const points = Array.from(value);
  return points.length > length ? `${points.slice(0, length - 1).join("")}…` : value;
}
