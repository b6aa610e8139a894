import { type ReactNode, useState } from "react";
import { useApi, useOptional } from "../hooks.ts";
import type { StoryFeed } from "../model/feed.ts";
import { bytes, count, short } from "../model/format.ts";
import { treesOf } from "../model/trees.ts";
import { Card, Empty, Loading, Trouble } from "../parts/basics.tsx";

const SHOWN = 300;

/** The files of the story at any of its trees; all text is drawn as text. */
export function FilesTab({ feed, story }: { readonly feed: StoryFeed; readonly story: string }): ReactNode {
  const trees = treesOf(feed);
  const [tree, setTree] = useState("");
  const [path, setPath] = useState("");
  const [filter, setFilter] = useState("");
  const api = useApi();
  const at = tree || trees[0]?.digest || "";
  const list = useOptional(
    async () => (at ? api.get("/api/planner/stories/{story_id}/files", { story_id: story }, { tree: at }) : null),
    `files ${story} ${at}`,
  );
  if (!trees.length) return <Empty>The story has no files yet: its work has not begun.</Empty>;
  const wanted = filter.trim().toLowerCase();
  const found = (list.data?.items ?? []).filter((one) => one.path.toLowerCase().includes(wanted));
  return (
    <div className="two wide-right">
      <Card title="Files">
        <label htmlFor="tree">Tree</label>
        <select id="tree" value={at} onChange={(event) => setTree(event.target.value)}>
          {trees.map((one) => (
            <option key={one.digest} value={one.digest}>
              {short(one.digest)} {one.name}
            </option>
          ))}
        </select>
        <label htmlFor="find-file">Find a file</label>
        <input id="find-file" type="search" value={filter} onChange={(event) => setFilter(event.target.value)} />
        <Trouble problem={list.problem} />
        {list.data === undefined ? <Loading what="the files" /> : null}
        <ul className="files" aria-label="Files of the tree">
          {found.slice(0, SHOWN).map((one) => (
            <li key={one.path}>
              <button type="button" className="file" aria-pressed={one.path === path} onClick={() => setPath(one.path)}>
                {one.path}
              </button>
            </li>
          ))}
        </ul>
        {found.length > SHOWN ? <p className="hint">{count(found.length - SHOWN, "further file")}: write a part of its name above.</p> : null}
      </Card>
      <Card title={path || "No file chosen"}>{path ? <Text story={story} tree={at} path={path} /> : <Empty>Choose a file to read it.</Empty>}</Card>
    </div>
  );
}

function Text({ story, tree, path }: { readonly story: string; readonly tree: string; readonly path: string }): ReactNode {
  const api = useApi();
  const { data, problem } = useOptional(() => api.get("/api/planner/stories/{story_id}/file", { story_id: story }, { tree, path }), `file ${story} ${tree} ${path}`);
  if (problem) return <Trouble problem={problem} />;
  if (data === undefined) return <Loading what="the file" />;
  if (data === null) return <Empty>There is no such file in this tree.</Empty>;
  if (data.text === null || data.text === undefined) return <Empty>This file is no text, or too large to be shown ({bytes(data.size_bytes)}).</Empty>;
  const lines = data.text.replace(/\n$/, "").split("\n");
  return (
    <>
      <p className="hint">
        {bytes(data.size_bytes)}, {count(lines.length, "line")}
      </p>
      <div className="scroll" tabIndex={0} role="region" aria-label={`Text of ${path}`}>
        <table className="hunks">
          <tbody>
            {lines.map((line, n) => (
              <tr key={n}>
                <td className="number">{n + 1}</td>
                <td className="code">{line}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
