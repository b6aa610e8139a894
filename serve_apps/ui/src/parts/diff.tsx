import { type ReactNode, useId, useState } from "react";
import { count } from "../model/format.ts";
import { type DiffLine, type FileDiff, parseDiff } from "../model/diff.ts";

export interface ShownFile {
  readonly path: string;
  readonly change: string;
  readonly added: number;
  readonly removed: number;
  readonly patch: string | null;
}

const MARKS: Readonly<Record<DiffLine["kind"], string>> = { same: " ", added: "+", removed: "−", note: " " };
const SPOKEN: Readonly<Record<DiffLine["kind"], string>> = { same: "", added: "added ", removed: "removed ", note: "" };

/** Changed files, each of which can be folded. All text is drawn as text. */
export function DiffFiles({ files }: { readonly files: readonly ShownFile[] }): ReactNode {
  if (!files.length) return <p className="empty">Nothing differs.</p>;
  const added = files.reduce((sum, file) => sum + file.added, 0);
  const removed = files.reduce((sum, file) => sum + file.removed, 0);
  return (
    <div className="diff">
      <p className="diff-sum">
        {count(files.length, "file")}, <span className="plus">+{added}</span> <span className="minus">−{removed}</span> lines
      </p>
      {files.map((file) => (
        <File key={file.path} file={file} isOpen={files.length <= 12} />
      ))}
    </div>
  );
}

function File({ file, isOpen }: { readonly file: ShownFile; readonly isOpen: boolean }): ReactNode {
  const [open, setOpen] = useState(isOpen && file.added + file.removed < 400);
  const id = useId();
  return (
    <section className="diff-file">
      <h3>
        <button type="button" className="fold" aria-expanded={open} aria-controls={id} onClick={() => setOpen(!open)}>
          <span className="path">{file.path}</span>
          <span className="diff-counts">
            {file.change === "modified" ? "" : `${file.change} `}
            <span className="plus">+{file.added}</span> <span className="minus">−{file.removed}</span>
          </span>
        </button>
      </h3>
      <div id={id} hidden={!open}>
        {open ? file.patch === null ? <p className="empty">This file is no text, or too large to be shown.</p> : <Hunks files={parseDiff(file.patch)} path={file.path} /> : null}
      </div>
    </section>
  );
}

function Hunks({ files, path }: { readonly files: readonly FileDiff[]; readonly path: string }): ReactNode {
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={`Changes of ${path}`}>
      <table className="hunks">
        <tbody>
          {files.flatMap((file, n) =>
            file.hunks.flatMap((hunk, at) => [
              <tr key={`${n} ${at}`} className="hunk-head">
                <td colSpan={3}>{hunk.header}</td>
              </tr>,
              ...hunk.lines.map((line, row) => (
                <tr key={`${n} ${at} ${row}`} className={line.kind}>
                  <td className="number">{line.old ?? ""}</td>
                  <td className="number">{line.new ?? ""}</td>
                  <td className="code">
                    <span className="mark" aria-label={SPOKEN[line.kind]}>
                      {MARKS[line.kind]}
                    </span>
                    {line.text}
                  </td>
                </tr>
              )),
            ]),
          )}
        </tbody>
      </table>
    </div>
  );
}
