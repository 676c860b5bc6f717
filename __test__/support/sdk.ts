/** The published SDK and server on a database, life after life. */
import { join } from "node:path";
import type { TestContext } from "node:test";
import { SandboxAgent, type SessionEvent, type SessionPersistDriver } from "sandbox-agent";
import { startServer } from "../../examples/support/server.mjs";
import { PostgresSessionPersistDriver, SQLiteSessionPersistDriver } from "../../index.js";
import { file, folder } from "./fixtures.ts";
import { databaseUrl, freshSchema } from "./postgres.ts";

export type Persist = SQLiteSessionPersistDriver | PostgresSessionPersistDriver;

/** An empty database of the test's own, and what opens it. */
export const databases: Record<string, (t: TestContext) => () => Persist> = {
  SQLite: (t) => {
    const filename = file(t);
    return () => new SQLiteSessionPersistDriver({ filename });
  },
  Postgres: (t) => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    return () => new PostgresSessionPersistDriver(options);
  },
};

export const chunkOf = (event: SessionEvent): string | undefined =>
  (event.payload as any).params?.update?.content?.text;

/** Asks, and waits for the chunk that begins so: others may be lost on the way under a flood. */
export async function ask(session: any, text: string, last: string): Promise<string[]> {
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

type Work = (sdk: SandboxAgent, persist: Persist, cwd: string) => Promise<void>;

/** What runs one life of server, driver and SDK on a database. `given` is what the SDK is given of the driver. */
export function lives(t: TestContext, open: () => Persist) {
  const path = folder(t);
  return async (work: Work, given = (persist: Persist): SessionPersistDriver => persist) => {
    const server = await startServer(join(path, "home"));
    const persist = open();
    try {
      const options = { baseUrl: server.baseUrl, persist: given(persist) };
      const sdk = await SandboxAgent.connect(options);
      await work(sdk, persist, path).finally(() => sdk.dispose());
    } finally {
      await server.stop();
      await persist.close();
    }
  };
}
