/** The part of Markdown that our reports use, as data. Everything else stays plain text; markup is never markup. */

export type Inline =
  | { readonly kind: "text" | "code" | "strong" | "em"; readonly text: string }
  | { readonly kind: "link"; readonly text: string; readonly href: string };

export type Block =
  | { readonly kind: "heading"; readonly level: number; readonly text: readonly Inline[] }
  | { readonly kind: "paragraph" | "quote"; readonly text: readonly Inline[] }
  | { readonly kind: "list"; readonly ordered: boolean; readonly items: readonly (readonly Inline[])[] }
  | { readonly kind: "code"; readonly text: string }
  | { readonly kind: "table"; readonly head: readonly (readonly Inline[])[]; readonly rows: readonly (readonly (readonly Inline[])[])[] }
  | { readonly kind: "rule" };

/** The blocks of a Markdown document. */
export function parseMarkdown(source: string): readonly Block[] {
  const lines = source.replaceAll("\r\n", "\n").split("\n");
  const blocks: Block[] = [];
  let at = 0;
  const peek = (): string => lines[at] ?? "";
  while (at < lines.length) {
    const line = peek();
    const fence = /^\s*(```+|~~~+)/.exec(line);
    if (fence) {
      const mark = fence[1] ?? "```";
      const body: string[] = [];
      for (at++; at < lines.length && !peek().trim().startsWith(mark); at++) body.push(peek());
      at++;
      blocks.push({ kind: "code", text: body.join("\n") });
    } else if (line.trim() === "") {
      at++;
    } else if (/^#{1,6}\s/.test(line)) {
      const hashes = /^#+/.exec(line)?.[0] ?? "#";
      blocks.push({ kind: "heading", level: hashes.length, text: inline(line.slice(hashes.length).trim()) });
      at++;
    } else if (/^\s*([-*_])\s*(\1\s*){2,}$/.test(line)) {
      blocks.push({ kind: "rule" });
      at++;
    } else if (line.trim().startsWith("|") && /^[\s|:-]+$/.test(lines[at + 1] ?? "") && (lines[at + 1] ?? "").includes("-")) {
      const head = cells(line);
      const rows: (readonly Inline[])[][] = [];
      for (at += 2; at < lines.length && peek().trim().startsWith("|"); at++) rows.push(cells(peek()));
      blocks.push({ kind: "table", head, rows });
    } else if (ITEM.test(line)) {
      const ordered = /^\s*\d/.test(line);
      const items: string[] = [];
      for (; at < lines.length && (ITEM.test(peek()) || (/^\s{2,}\S/.test(peek()) && items.length)); at++) {
        const found = ITEM.exec(peek());
        if (found) items.push(found[2] ?? "");
        else items.push(`${items.pop() ?? ""} ${peek().trim()}`);
      }
      blocks.push({ kind: "list", ordered, items: items.map(inline) });
    } else {
      const quoted = line.startsWith(">");
      const body: string[] = [];
      for (; at < lines.length && peek().trim() !== "" && !STARTS.test(peek()) && peek().startsWith(">") === quoted; at++)
        body.push(quoted ? peek().replace(/^>\s?/, "") : peek());
      if (!body.length) body.push(lines[at++] ?? "");
      blocks.push({ kind: quoted ? "quote" : "paragraph", text: inline(body.join(" ")) });
    }
  }
  return blocks;
}

const ITEM = /^\s*([-*+]|\d{1,9}[.)])\s+(.*)$/;
const STARTS = /^(#{1,6}\s|\s*(```|~~~)|\s*[-*+]\s|\s*\d{1,9}[.)]\s|\|)/;

function cells(line: string): (readonly Inline[])[] {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => inline(cell.trim().replaceAll("\\|", "|")));
}

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|(?<![\w*])\*([^*\s][^*]*)\*|\[([^\]]*)\]\(([^)\s]*)\)|\\([\\`*_{}[\]()#+\-.!|<>&])/g;

/** Text with code, strong and links in it. */
export function inline(source: string): readonly Inline[] {
  const found: Inline[] = [];
  let from = 0;
  const plain = (text: string): void => {
    const last = found.at(-1);
    if (!text) return;
    if (last?.kind === "text") found[found.length - 1] = { kind: "text", text: last.text + text };
    else found.push({ kind: "text", text });
  };
  for (const match of source.matchAll(INLINE)) {
    plain(unescaped(source.slice(from, match.index)));
    from = match.index + match[0].length;
    const [whole, code, strong, em, label, href, escaped] = match;
    if (code !== undefined) found.push({ kind: "code", text: code });
    else if (strong !== undefined) found.push({ kind: "strong", text: unescaped(strong) });
    else if (em !== undefined) found.push({ kind: "em", text: unescaped(em) });
    else if (escaped !== undefined) plain(escaped);
    else if (href !== undefined && isSafe(href)) found.push({ kind: "link", text: label ?? href, href });
    else plain(whole);
  }
  plain(unescaped(source.slice(from)));
  return found;
}

/** Whether a link may be one: to the web, or a path of this fleet; never a scheme that could run something. */
export function isSafe(href: string): boolean {
  return /^(https?:\/\/|#|\/(?![/\\]))/i.test(href);
}

const ENTITIES: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'", "#x27": "'" };

function unescaped(text: string): string {
  return text.replace(/&(amp|lt|gt|quot|#39|#x27);/g, (whole, name: string) => ENTITIES[name] ?? whole);
}
