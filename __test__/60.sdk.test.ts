/** The published SDK and server, end to end, on either database. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { SandboxAgent, type SessionEvent } from "sandbox-agent";
import { startServer } from "../examples/support/server.mjs";
import { PostgresSessionPersistDriver, SQLiteSessionPersistDriver } from "../index.js";
import { allEvents, file, folder } from "./support/fixtures.ts";
import { databaseUrl, freshSchema } from "./support/postgres.ts";

type Persist = SQLiteSessionPersistDriver | PostgresSessionPersistDriver;

/** An empty database of the test's own, and what opens it. */
const databases: Record<string, (t: TestContext) => () => Persist> = {
  SQLite: (t) => {
    const filename = file(t);
    return () => new SQLiteSessionPersistDriver({ filename });
  },
  Postgres: (t) => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    return () => new PostgresSessionPersistDriver(options);
  },
};

const chunkOf = (event: SessionEvent): string | undefined =>
  (event.payload as any).params?.update?.content?.text;

/** Asks, and waits for the chunk that begins so: others may be lost on the way under a flood. */
async function ask(session: any, text: string, last: string): Promise<string[]> {
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
}

for (const [name, create] of Object.entries(databases)) {
  test(`${name}: a session is streamed, everything restarts, and it is resumed`, async (t) => {
    const path = folder(t);
    const open = create(t);
    /** One life of server, driver and SDK. */
    const live = async (work: (sdk: SandboxAgent, persist: Persist) => Promise<void>) => {
      const server = await startServer(join(path, "home"));
      const persist = open();
      try {
        const sdk = await SandboxAgent.connect({ baseUrl: server.baseUrl, persist });
        await work(sdk, persist).finally(() => sdk.dispose());
      } finally {
        await server.stop();
        await persist.close();
      }
    };

    let before: SessionEvent[] = [];
    await live(async (sdk, persist) => {
      const sessions = await Promise.all(
        ["a", "b", "c"].map((id) => sdk.createSession({ id, agent: "mock", cwd: path })),
      );
      const streamed = await Promise.all(
        sessions.map((session) => ask(session, "stream 250 40", "250 ")),
      );
      before = await allEvents(persist, "b");
      assert.deepEqual(before.map(chunkOf).filter(Boolean), streamed[1]);
    });

    await live(async (sdk, persist) => {
      assert.deepEqual(await allEvents(persist, "b"), before);
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
      const window = before.slice(-50).slice(0, envelopes.length);
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
