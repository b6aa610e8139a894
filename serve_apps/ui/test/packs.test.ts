import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { leftOutWords, pieceWords } from "../src/model/packs.ts";

test("every piece that a pack may hold is told in words", () => {
  const source = readFileSync(new URL("../../../fleet/context/scope.py", import.meta.url), "utf8");
  const listed = source.split("Scope = Literal[")[1]?.split("]")[0] ?? "";
  const scopes = [...listed.matchAll(/"([A-Z_]+)"/g)].map((found) => found[1] ?? "");
  assert.equal(scopes.length, 13);
  assert.deepEqual(scopes.filter((scope) => !pieceWords(scope)), []);
  assert.equal(pieceWords("SOMETHING_NEW"), "");
});

test("what was left out is named, and counted where it is too much", () => {
  const ids = Array.from({ length: 40 }, (_, n) => `tk-${n}`);
  assert.equal(leftOutWords(["de-1", "de-2"], 2), "de-1, de-2");
  assert.equal(leftOutWords(ids, 40), `${ids.slice(0, 12).join(", ")} and 28 more`);
  assert.equal(leftOutWords([], 3), "3 items");
  assert.equal(leftOutWords([], 1), "1 item");
});
