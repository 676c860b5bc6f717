/** `buildReplayText` is the SDK's, character for character. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { InMemorySessionPersistDriver, SandboxAgent } from "sandbox-agent";
import { startServer } from "../examples/support/server.mjs";
import { buildReplayText, type SessionEvent } from "../index.js";
import { event, folder, session } from "./support/fixtures.ts";
import { chunk, history, jsonValue } from "./support/replay.ts";
import { PREFIX, referenceText } from "./support/replay-text.ts";

const thrown = (work: () => unknown): any => {
  try {
    work();
  } catch (error) {
    return error;
  }
  assert.fail("nothing was thrown");
};

test("no events are no text", () => {
  assert.equal(buildReplayText([]), null);
});

test("it equals the reference, for any events and limit", () => {
  const limit = fc.oneof(
    fc.integer({ min: -10, max: 6_000 }),
    fc.double(),
    fc.constantFrom(undefined, NaN, Infinity, -Infinity, 0, -0, 0.5, 12_000),
  );
  fc.assert(
    fc.property(history("s"), limit, (events, maxChars) => {
      assert.equal(buildReplayText(events, maxChars), referenceText(events, maxChars));
    }),
    { numRuns: 500 },
  );
});

test("it equals the reference at each limit around a line's end", () => {
  const events = ["a", "😀", "\0", "\ud800"].map((text, at) =>
    event("s", at, { payload: chunk(text) }),
  );
  for (let maxChars = PREFIX.length - 2; maxChars < 1_000; maxChars += 1) {
    assert.equal(buildReplayText(events, maxChars), referenceText(events, maxChars));
  }
});

test("what JSON.stringify leaves out or asks is left out and asked", () => {
  const odd: any[] = [
    { createdAt: 1, sender: "agent" },
    { createdAt: new Date(0), sender: "agent", payload: { toJSON: (key: string) => `of ${key}` } },
    {
      createdAt: NaN,
      sender: "\ud800",
      payload: [undefined, () => 1, Symbol("s"), { a: undefined }],
    },
    {
      get payload() {
        return 5;
      },
    },
  ];
  assert.equal(buildReplayText(odd), referenceText(odd));
});

test("a wrong argument is named", () => {
  for (const [events, maxChars, message] of [
    [null, 1, /^events must be an array/],
    [{ length: 1 }, 1, /^events must be an array/],
    [[event("s", 1), 5], Infinity, /^events\[1\] must be an object/],
    [[{ payload: 1n }], 1_000, /^events\[0\] must be serialisable/],
    [[], "12000", /^maxChars must be a number/],
  ] as const) {
    const error = thrown(() => buildReplayText(events as any, maxChars as any));
    assert.ok(error instanceof TypeError);
    assert.equal((error as any).code, "ERR_PERSIST_INVALID_ARG");
    assert.match(error.message, message);
  }
});

test("it equals what the SDK itself puts into a prompt, from a driver that isn't ours", async (t) => {
  const path = folder(t);
  const server = await startServer(join(path, "home"));
  t.after(() => server.stop());
  const histories = fc.sample(history("s"), { numRuns: 24, seed: 7 });
  for (const [maxEvents, maxChars] of [
    [undefined, undefined],
    [7, 900],
    [200, 3_000],
  ]) {
    const persist = new InMemorySessionPersistDriver({ maxEventsPerSession: 10_000 });
    const options = { replayMaxEvents: maxEvents, replayMaxChars: maxChars };
    const sdk = await SandboxAgent.connect({ baseUrl: server.baseUrl, persist, ...options });
    for (const [number, events] of histories.entries()) {
      const id = `s${number}`;
      await persist.updateSession(session(id, { sessionInit: { cwd: path, mcpServers: [] } }));
      for (const stored of events) await persist.insertEvent(id, { ...stored, sessionId: id });
      const resumed = await sdk.resumeSession(id);
      await resumed.prompt([{ type: "text", text: "stream 1 20" }]);
      const { items } = await persist.listEvents({ sessionId: id, limit: 10_000 });
      const isPrompt = (item: any) => item.payload?.method === "session/prompt";
      const sent = items.findLast(isPrompt) as SessionEvent;
      const window = events.slice(-(maxEvents ?? 50));
      assert.equal(sent.payload.params.prompt[0].text, buildReplayText(window, maxChars));
    }
    await sdk.dispose();
  }
});

test("any JSON value comes through", () => {
  fc.assert(
    fc.property(jsonValue, (payload) => {
      const [, line] = buildReplayText([event("s", 1, { payload })], Infinity)!.split("\n");
      assert.equal(JSON.stringify(JSON.parse(line!).payload), JSON.stringify(payload));
    }),
  );
});
