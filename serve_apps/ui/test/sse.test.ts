import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import type { AddressInfo } from "node:net";
import { FrameParser, type Frame, follow } from "../src/api/sse.ts";

const STREAM = 'retry: 10\n\n: still here\n\nid: story:st-x/1\nevent: story\ndata: {"a":1}\n\nid: 2\r\ndata: one\r\ndata:two\r\n\r\nevent: nothing\n\n';

test("frames are the same however the stream is cut", () => {
  const whole = new FrameParser().push(STREAM);
  assert.deepEqual(whole, [
    { id: "story:st-x/1", event: "story", data: '{"a":1}' },
    { id: "2", event: "message", data: "one\ntwo" },
  ]);
  for (let size = 1; size < 9; size++) {
    const parser = new FrameParser();
    const found: Frame[] = [];
    for (let at = 0; at < STREAM.length; at += size) found.push(...parser.push(STREAM.slice(at, at + size)));
    assert.deepEqual(found, whole, `pieces of ${size}`);
    assert.equal(parser.retryMs, 10);
  }
});

test("a line that is cut is taken up where it ended, with the token in a header", async () => {
  const asked: (string | undefined)[][] = [];
  const server = createServer((request, response) => {
    asked.push([request.url, request.headers["last-event-id"] as string | undefined, request.headers.authorization]);
    const from = Number(String(request.headers["last-event-id"] ?? "s/0").split("/")[1]);
    response.writeHead(asked.length === 2 ? 503 : 200, { "Content-Type": "text/event-stream" });
    response.write("retry: 1\n\n");
    if (asked.length === 2) return void response.end();
    for (let n = from + 1; n <= from + 2; n++) response.write(`id: s/${n}\ndata: ${n}\n\n`);
    if (from >= 2) response.write("event: end\ndata: {}\n\n");
    response.end();
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const seen: string[] = [];
  let last = "";
  await follow({
    path: `http://127.0.0.1:${(server.address() as AddressInfo).port}/stream?storyId=st-x`,
    token: "secret",
    signal: AbortSignal.timeout(20_000),
    lastEvent: "end",
    lastId: () => last,
    onState: () => undefined,
    onFrame: ({ id, data }) => {
      if (id) seen.push(data), (last = id);
      return true;
    },
  });
  server.close();
  assert.deepEqual(seen, ["1", "2", "3", "4"]);
  assert.deepEqual(asked.map(([, id]) => id), [undefined, "s/2", "s/2"]);
  assert.ok(asked.every(([url, , token]) => url === "/stream?storyId=st-x" && token === "Bearer secret"));
});

test("a refusal ends it at once", async () => {
  const server = createServer((_, response) => void response.writeHead(403).end());
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const states: string[] = [];
  await follow({
    path: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    token: "t",
    signal: AbortSignal.timeout(20_000),
    lastId: () => "",
    onState: (state) => states.push(state),
    onFrame: () => true,
  });
  server.close();
  assert.deepEqual(states, ["connecting", "refused"]);
});
