import assert from "node:assert/strict";
import { test } from "node:test";
import { lastPictured, picturesOf, pngAddress } from "../src/model/pictures.ts";
import type { Artifact, Step } from "../src/model/story.ts";

const left = (path: string, sizeBytes = 10, digest = `sha256:${path}`): Artifact => ({ path, digest, sizeBytes });
const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

test("only pictures of declared pages are shown, in the order of the pages", () => {
  const found = picturesOf([
    left("out/preview/10.png"),
    left("out/preview/02.png"),
    left("out/preview.log"),
    left("out/preview/1.png"),
    left("out/preview/03.svg"),
    left("deep/out/preview/04.png"),
    left("out/preview/05.png", 5_000_000),
    left("out/preview/06.png", 10, ""),
  ]);
  assert.deepEqual(found.map((one) => one.page), [2, 10]);
});

test("the last step that left pictures is the one that finished last", () => {
  const step = (id: string, finishedAt: string, ...artifacts: Artifact[]): Step => ({ id, finishedAt, artifacts }) as unknown as Step;
  const picture = left("out/preview/01.png");
  const steps = [step("b", "2026-03-01T10:00:02Z", picture), step("a", "2026-03-01T10:00:01Z", picture), step("c", "2026-03-01T10:00:03Z", left("out/x"))];
  assert.equal(lastPictured(steps)?.id, "b");
  assert.equal(lastPictured(steps.slice(2)), undefined);
});

test("what is no PNG gets no address, whatever it is called", () => {
  assert.equal(pngAddress(new Uint8Array(PNG)), "data:image/png;base64,iVBORw0KGgo=");
  assert.equal(pngAddress(new TextEncoder().encode("<svg onload='alert(1)'></svg>")), "");
  assert.equal(pngAddress(new Uint8Array(PNG.slice(0, 7))), "");
  const large = pngAddress(new Uint8Array([...PNG, ...new Array<number>(100_000).fill(7)]));
  assert.equal(atob(large.split(",")[1] ?? "").length, 100_008);
});
