/** The drivers that are compared, by name. Each is loaded only in the processes that use it. */
import type { ListPage, SessionEvent, SessionPersistMethods } from "../index.js";

export type DriverName = "native" | "tuned" | "typescript";

export type Driver = SessionPersistMethods & {
  listEvents(request: {
    sessionId: string;
    cursor?: string;
    limit?: number;
  }): Promise<ListPage<SessionEvent>>;
  close(): void | Promise<void>;
};

export const DRIVERS: Record<DriverName, string> = {
  native: "sandbox-agent-persist",
  tuned: "better-sqlite3, WAL, synchronous=FULL, cached statements, keyset pages",
  typescript: "better-sqlite3 in the manner of the TypeScript drivers",
};

export async function createDriver(name: DriverName, filename: string): Promise<Driver> {
  if (name === "native") {
    const { SQLiteSessionPersistDriver } = await import("../index.js");
    return new SQLiteSessionPersistDriver({ filename });
  }
  const peers = await import("../__test__/support/typescript-driver.ts");
  const Peer = name === "tuned" ? peers.TunedSQLiteDriver : peers.TypeScriptSQLiteDriver;
  return new Peer({ filename }) as any;
}
