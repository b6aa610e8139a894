import { type ReactNode, createContext, createElement, useContext, useMemo } from "react";
import { type Block, type Inline, parseMarkdown } from "../model/markdown.ts";

/** What stands for a link to a path of this fleet; null shows its text alone. */
export type InnerLink = (href: string, label: string) => ReactNode;

const Inner = createContext<InnerLink>(() => null);

/** A Markdown text as elements; whatever markup stands in it is shown as text. */
export function Markdown({ source, inner }: { readonly source: string; readonly inner: InnerLink }): ReactNode {
  const blocks = useMemo(() => parseMarkdown(source), [source]);
  return (
    <Inner value={inner}>
      <div className="prose">{blocks.map(block)}</div>
    </Inner>
  );
}

function PathLink({ href, label }: { readonly href: string; readonly label: string }): ReactNode {
  return useContext(Inner)(href, label) ?? label;
}

function block(one: Block, key: number): ReactNode {
  switch (one.kind) {
    case "heading":
      // The page has a heading of its own above these.
      return createElement(`h${Math.min(6, one.level + 1)}`, { key }, one.text.map(span));
    case "paragraph":
      return <p key={key}>{one.text.map(span)}</p>;
    case "quote":
      return <blockquote key={key}>{one.text.map(span)}</blockquote>;
    case "code":
      return (
        <pre key={key} tabIndex={0}>
          {one.text}
        </pre>
      );
    case "rule":
      return <hr key={key} />;
    case "list":
      return createElement(one.ordered ? "ol" : "ul", { key }, one.items.map((item, at) => <li key={at}>{item.map(span)}</li>));
    case "table":
      return (
        <div className="scroll" key={key} tabIndex={0} role="region" aria-label="Table">
          <table>
            <thead>
              <tr>
                {one.head.map((cell, at) => (
                  <th key={at} scope="col">
                    {cell.map(span)}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {one.rows.map((row, at) => (
                <tr key={at}>
                  {row.map((cell, column) => (
                    <td key={column}>{cell.map(span)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      );
  }
}

function span(one: Inline, key: number): ReactNode {
  switch (one.kind) {
    case "code":
      return <code key={key}>{one.text}</code>;
    case "strong":
      return <strong key={key}>{one.text}</strong>;
    case "em":
      return <em key={key}>{one.text}</em>;
    case "link":
      // A link out of a report never leads away by itself: it opens apart, and tells nothing of where it was.
      return one.href.startsWith("#") ? (
        <span key={key}>{one.text}</span>
      ) : one.href.startsWith("/") ? (
        <PathLink key={key} href={one.href} label={one.text} />
      ) : (
        <a key={key} href={one.href} target="_blank" rel="noopener noreferrer">
          {one.text}
        </a>
      );
    default:
      return one.text;
  }
}
