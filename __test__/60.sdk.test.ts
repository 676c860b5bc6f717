/** The published SDK and server, end to end. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { SandboxAgent, type SessionEvent } from "sandbox-agent";
import { startServer } from "../examples/support/server.mjs";
import { SQLiteSessionPersistDriver } from "../index.js";
import { allEvents, folder } from "./support/fixtures.ts";

const chunkOf = (event: SessionEvent): string | undefined =>
  (event.payload as any).params?.update?.content?.text;

test("a session is streamed, everything restarts, and it is resumed", async (t) => {
  const path = folder(t);
  const filename = join(path, "sessions.db");
  const begin = async () => {
    const server = await startServer(join(path, "home"));
    const persist = new SQLiteSessionPersistDriver({ filename });
    const sdk = await SandboxAgent.connect({ baseUrl: server.baseUrl, persist });
    return {
      persist,
      sdk,
      end: async () => (await sdk.dispose(), await server.stop(), persist.close()),
    };
  };
  /** Asks, and waits for the chunk that begins so: others may be lost on the way under a flood. */
  const ask = async (session: any, text: string, last: string) => {
    const seen: string[] = [];
    const all = new Promise<void>((resolve) => {
      const unsubscribe = session.onEvent((event: SessionEvent) => {
        const chunk = event.sender === "agent" ? chunkOf(event) : undefined;
        if (chunk !== undefined) seen.push(chunk);
        if (chunk?.startsWith(last)) resolve(unsubscribe());
      });
    });
    await session.prompt([{ type: "text", text }]);
    await all;
    return seen;
  };

  const first = await begin();
  const sessions = await Promise.all(
    ["a", "b", "c"].map((id) => first.sdk.createSession({ id, agent: "mock", cwd: path })),
  );
  const streamed = await Promise.all(
    sessions.map((session) => ask(session, "stream 250 40", "250 ")),
  );
  const before = await allEvents(first.persist, "b");
  await first.end();

  const second = await begin();
  t.after(second.end);
  assert.deepEqual(await allEvents(second.persist, "b"), before);
  assert.deepEqual(before.map(chunkOf).filter(Boolean), streamed[1]);
  const { items } = await second.sdk.listSessions();
  assert.deepEqual(items.map(({ id }) => id).sort(), ["a", "b", "c"]);

  const resumed = await second.sdk.resumeSession("b");
  const [report] = await ask(resumed, "What do you remember?", "{");
  const { replayed } = JSON.parse(report!);
  assert.match(replayed, /^Previous session history is replayed below/);
  const envelopes = replayed
    .split("\n")
    .filter((line: string) => line.startsWith("{"))
    .map((line: string) => JSON.parse(line));
  const window = before.slice(-50).slice(0, envelopes.length);
  assert.deepEqual(
    envelopes,
    window.map(({ createdAt, sender, payload }) => ({ createdAt, sender, payload })),
  );

  const after = await allEvents(second.persist, "b");
  assert.deepEqual(
    after.map(({ eventIndex }) => eventIndex),
    after.map((_, index) => index + 1),
    "numbering goes on",
  );
});
