/** The published SDK and server, end to end, on either database. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { SessionEvent } from "sandbox-agent";
import { allEvents } from "./support/fixtures.ts";
import { ask, chunkOf, databases, lives } from "./support/sdk.ts";

for (const [name, create] of Object.entries(databases)) {
  test(`${name}: a session is streamed, everything restarts, and it is resumed`, async (t) => {
    const live = lives(t, create(t));
    let before: SessionEvent[] = [];
    await live(async (sdk, persist, cwd) => {
      const sessions = await Promise.all(
        ["a", "b", "c"].map((id) => sdk.createSession({ id, agent: "mock", cwd })),
      );
      const streamed = await Promise.all(
        sessions.map((session) => ask(session, "stream 250 40", "250 ")),
      );
      before = await allEvents(persist, "b");
      assert.deepEqual(before.map(chunkOf).filter(Boolean), streamed[1]);
    });

    await live(async (sdk, persist) => {
      // The answer to the last prompt may have come in after its chunks.
      const found = await allEvents(persist, "b");
      assert.deepEqual(found.slice(0, before.length), before);
      const { items } = await sdk.listSessions();
      assert.deepEqual(items.map(({ id }) => id).sort(), ["a", "b", "c"]);

      const resumed = await sdk.resumeSession("b");
      const [report] = await ask(resumed, "What do you remember?", "{");
      const { replayed } = JSON.parse(report!);
      assert.match(replayed, /^Previous session history is replayed below/);
      const envelopes = replayed
        .split("\n")
        .filter((line: string) => line.startsWith("{"))
        .map((line: string) => JSON.parse(line));
      const window = found.slice(-50).slice(0, envelopes.length);
      assert.deepEqual(
        envelopes,
        window.map(({ createdAt, sender, payload }) => ({ createdAt, sender, payload })),
      );

      const after = await allEvents(persist, "b");
      assert.deepEqual(
        after.map(({ eventIndex }) => eventIndex),
        after.map((_, index) => index + 1),
        "numbering goes on",
      );
    });
  });
}
