import assert from "node:assert/strict";
import { test } from "node:test";
import { parseDiff } from "../src/model/diff.ts";

const PATCH = `diff --git a/src/one.py b/src/one.py
index 1..2 100644
--- a/src/one.py
+++ b/src/one.py
@@ -1,3 +1,4 @@ def a():
 same
-old
+new
+more
 last
\\ No newline at end of file
diff --git a/gone.txt b/gone.txt
deleted file mode 100644
--- a/gone.txt
+++ /dev/null
@@ -1 +0,0 @@
-bye
diff --git a/pic.png b/pic.png
Binary files a/pic.png and b/pic.png differ
`;

test("files, hunks and line numbers of a git patch", () => {
  const files = parseDiff(PATCH);
  assert.deepEqual(files.map((file) => [file.path, file.added, file.removed, file.isBinary]), [
    ["src/one.py", 2, 1, false],
    ["gone.txt", 0, 1, false],
    ["pic.png", 0, 0, true],
  ]);
  assert.deepEqual(files[0]?.hunks[0]?.lines.map((line) => [line.kind, line.old, line.new, line.text]), [
    ["same", 1, 1, "same"],
    ["removed", 2, null, "old"],
    ["added", null, 2, "new"],
    ["added", null, 3, "more"],
    ["same", 3, 4, "last"],
    ["note", null, null, "No newline at end of file"],
  ]);
});

test("lines that look like headers stay lines of their hunk", () => {
  const [file, ...rest] = parseDiff("--- a/x.sql\n+++ b/x.sql\n@@ -1,2 +1,2 @@\n--- a comment\n+++ plus\n same\n");
  assert.equal(rest.length, 0);
  assert.deepEqual(file?.hunks[0]?.lines.map((line) => [line.kind, line.text]), [
    ["removed", "-- a comment"],
    ["added", "++ plus"],
    ["same", "same"],
  ]);
});

test("a blank line that lost its blank is context", () => {
  const [file] = parseDiff("--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n");
  assert.deepEqual(file?.hunks[0]?.lines.map((line) => line.kind), ["same", "same", "removed", "added"]);
});

test("a new file, and windows line ends", () => {
  const [file] = parseDiff("--- /dev/null\r\n+++ b/new.txt\r\n@@ -0,0 +1,2 @@\r\n+a\r\n+b\r\n");
  assert.deepEqual([file?.path, file?.added, file?.hunks[0]?.lines[1]?.text], ["new.txt", 2, "b"]);
});

test("what is no diff gives no file, and markup stays text", () => {
  assert.deepEqual(parseDiff(""), []);
  assert.deepEqual(parseDiff("hello\n<script>alert(1)</script>"), []);
  const [file] = parseDiff("--- a/<b>.html\n+++ b/<b>.html\n@@ -1 +1 @@\n-<script>1</script>\n+<img onerror=1>\n");
  assert.deepEqual([file?.path, file?.hunks[0]?.lines[1]?.text], ["<b>.html", "<img onerror=1>"]);
});
