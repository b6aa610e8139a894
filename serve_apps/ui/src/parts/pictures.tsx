import type { ReactNode } from "react";
import { useApi, useOptional } from "../hooks.ts";
import { type Picture, picturesOf, pngAddress } from "../model/pictures.ts";
import type { Artifact } from "../model/story.ts";

/** How the pages of the preview looked; nothing where the run left no picture. */
export function Pictures({ story, artifacts }: { readonly story: string; readonly artifacts: readonly Artifact[] }): ReactNode {
  const pictures = picturesOf(artifacts);
  if (!pictures.length) return null;
  return (
    <div className="pictures">
      {pictures.map((one) => (
        <PageLook key={one.page} story={story} picture={one} />
      ))}
    </div>
  );
}

function PageLook({ story, picture }: { readonly story: string; readonly picture: Picture }): ReactNode {
  const api = useApi();
  const name = `Page ${picture.page} of the preview`;
  const path = `/api/planner/stories/${encodeURIComponent(story)}/blobs/${encodeURIComponent(picture.digest)}`;
  const { data, problem } = useOptional(async () => pngAddress(new Uint8Array(await (await api.blob(path)).arrayBuffer())), `picture ${story} ${picture.digest}`);
  if (data) {
    return (
      <figure>
        <img src={data} alt={name} />
        <figcaption>{name}</figcaption>
      </figure>
    );
  }
  const why = problem ? problem.message : data === undefined ? "is being read …" : "is no picture";
  return (
    <p className="hint">
      {name}: {why}
    </p>
  );
}
