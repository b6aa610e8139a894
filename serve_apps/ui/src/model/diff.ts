/** A unified diff as data: the page draws it from values and never from markup. */

export interface DiffLine {
  readonly kind: "same" | "added" | "removed" | "note";
  readonly old: number | null;
  readonly new: number | null;
  readonly text: string;
}

export interface Hunk {
  readonly header: string;
  readonly lines: readonly DiffLine[];
}

export interface FileDiff {
  readonly path: string;
  readonly oldPath: string;
  readonly added: number;
  readonly removed: number;
  readonly isBinary: boolean;
  readonly hunks: readonly Hunk[];
}

interface Draft {
  path: string;
  oldPath: string;
  isBinary: boolean;
  hunks: { header: string; lines: DiffLine[] }[];
}

const HUNK = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)$/;

/** The files of a unified diff, with or without git's own headers. Lines that fit nowhere are left out. */
export function parseDiff(patch: string): readonly FileDiff[] {
  const files: Draft[] = [];
  let old = 0;
  let fresh = 0;
  let leftOld = 0;
  let leftNew = 0;
  const lines = patch.split("\n");
  for (let at = 0; at < lines.length; at++) {
    const line = (lines[at] ?? "").replace(/\r$/, "");
    const hunk = files.at(-1)?.hunks.at(-1);
    // How many lines a hunk has is said at its head: a line within it is never a header, whatever it looks like.
    const isWithin = line === "" ? leftOld > 0 && leftNew > 0 : (leftOld > 0 || leftNew > 0) && /^[ +\-\\]/.test(line);
    if (hunk && isWithin) {
      const mark = line[0] ?? " ";
      const text = line.slice(1);
      if (mark === "+") hunk.lines.push({ kind: "added", old: null, new: fresh++, text }), leftNew--;
      else if (mark === "-") hunk.lines.push({ kind: "removed", old: old++, new: null, text }), leftOld--;
      else if (mark === "\\") hunk.lines.push({ kind: "note", old: null, new: null, text: text.trim() });
      else hunk.lines.push({ kind: "same", old: old++, new: fresh++, text }), leftOld--, leftNew--;
      continue;
    }
    if (line.startsWith("\\")) {
      hunk?.lines.push({ kind: "note", old: null, new: null, text: line.slice(1).trim() });
      continue;
    }
    const found = HUNK.exec(line);
    if (found) {
      if (!files.length) files.push(draft("", ""));
      old = Number(found[1]);
      fresh = Number(found[3]);
      leftOld = found[2] === undefined ? 1 : Number(found[2]);
      leftNew = found[4] === undefined ? 1 : Number(found[4]);
      files.at(-1)?.hunks.push({ header: line, lines: [] });
    } else if (line.startsWith("diff --git ")) {
      const names = /^diff --git a\/(.*) b\/(.*)$/.exec(line);
      files.push(draft(names?.[2] ?? "", names?.[1] ?? ""));
      leftOld = leftNew = 0;
    } else if (line.startsWith("--- ") && lines[at + 1]?.startsWith("+++ ")) {
      const last = files.at(-1);
      const file = last && !last.hunks.length ? last : draft("", "");
      if (file !== last) files.push(file);
      const [before, after] = [named(line.slice(4)), named((lines[at + 1] ?? "").slice(4))];
      file.oldPath = before || after;
      file.path = after || before;
      at++;
    } else if (line.startsWith("Binary files ") || line.startsWith("GIT binary patch")) {
      const last = files.at(-1);
      if (last) last.isBinary = true;
    }
  }
  return files.map(counted);
}

function draft(path: string, oldPath: string): Draft {
  return { path, oldPath, isBinary: false, hunks: [] };
}

/** The path of a `---` or `+++` line; "" for /dev/null. */
function named(text: string): string {
  const path = text.replace(/\r$/, "").split("\t")[0] ?? "";
  return path === "/dev/null" ? "" : path.replace(/^[ab]\//, "");
}

function counted(file: Draft): FileDiff {
  const lines = file.hunks.flatMap((hunk) => hunk.lines);
  return {
    ...file,
    added: lines.filter((line) => line.kind === "added").length,
    removed: lines.filter((line) => line.kind === "removed").length,
  };
}
