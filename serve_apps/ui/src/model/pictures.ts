/** Pictures of pages that a run of the preview left. Bytes of a run are nobody's word: only what is a PNG is shown as one. */

import type { Artifact, Step } from "./story.ts";

export interface Picture {
  readonly page: number;
  readonly digest: string;
}

const PATH = /^out\/preview\/(\d{2})\.png$/;
const MOST_BYTES = 4 << 20;
const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** The pictures among these artifacts, in the order of the declared pages; what is too large is left to be saved. */
export function picturesOf(artifacts: readonly Artifact[]): readonly Picture[] {
  const found = artifacts.flatMap((one) => {
    const page = PATH.exec(one.path)?.[1];
    return page && one.digest && one.sizeBytes <= MOST_BYTES ? [{ page: Number(page), digest: one.digest }] : [];
  });
  return found.sort((a, b) => a.page - b.page);
}

/** The step that last left pictures; undefined when none did. */
export function lastPictured(steps: readonly Step[]): Step | undefined {
  const pictured = steps.filter((one) => picturesOf(one.artifacts).length);
  return pictured.reduce<Step | undefined>((last, one) => (last && Date.parse(last.finishedAt) > Date.parse(one.finishedAt) ? last : one), undefined);
}

/** The bytes as an address for an image; empty when they are no PNG. */
export function pngAddress(bytes: Uint8Array): string {
  if (!SIGNATURE.every((byte, n) => bytes[n] === byte)) return "";
  let raw = "";
  for (let at = 0; at < bytes.length; at += 0x8000) raw += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return `data:image/png;base64,${btoa(raw)}`;
}
