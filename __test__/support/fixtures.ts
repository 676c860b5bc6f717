import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import {
  SQLiteSessionPersistDriver,
  type ListPage,
  type PostgresSessionPersistDriver,
  type SessionEvent,
  type SessionRecord,
  type SQLiteSessionPersistDriverOptions,
} from "../../index.js";

export const onWindows = process.platform === "win32";

/** Folders go when all is done and every driver closed: Windows keeps a file that somebody has open. */
const folders: string[] = [];
const removeFolders = () => {
  for (const path of folders) rmSync(path, { recursive: true, force: true });
};
// The drivers' own listener comes first then, which closes what a test left open.
process.once("beforeExit", () => process.once("exit", removeFolders));

/** A folder of the test's own, which `release` lets go of after it. */
export function folder(t: TestContext, release: (path: string) => unknown = () => {}): string {
  const path = mkdtempSync(join(tmpdir(), "persist-"));
  folders.push(path);
  t.after(() => release(path));
  return path;
}

/** A file name of the test's own. */
export const file = (t: TestContext) => join(folder(t), "sessions.db");

/** A driver that is closed after the test. */
export function open(
  t: TestContext,
  options: SQLiteSessionPersistDriverOptions = {},
): SQLiteSessionPersistDriver {
  const driver = new SQLiteSessionPersistDriver(options);
  t.after(() => driver.close());
  return driver;
}

export function event(
  sessionId: string,
  eventIndex: number,
  fields: Partial<SessionEvent> = {},
): SessionEvent {
  return {
    id: randomUUID(),
    eventIndex,
    sessionId,
    createdAt: 1_700_000_000_000 + eventIndex,
    connectionId: "connection",
    sender: "agent",
    payload: { jsonrpc: "2.0", method: "session/update", params: { text: `chunk ${eventIndex}` } },
    ...fields,
  };
}

/** The first events of many sessions. */
export const firstEvents = (count: number, name = "") =>
  Array.from({ length: count }, (_, at) => event(`other-${name}-${at}`, 1));

export function session(id: string, fields: Partial<SessionRecord> = {}): SessionRecord {
  return {
    id,
    agent: "mock",
    agentSessionId: `agent-${id}`,
    lastConnectionId: "connection",
    createdAt: 1_700_000_000_000,
    ...fields,
  };
}

/** A call of each method. */
export const everyCall = (driver: SQLiteSessionPersistDriver | PostgresSessionPersistDriver) => [
  () => driver.getSession("s"),
  () => driver.listSessions(),
  () => driver.updateSession(session("s")),
  () => driver.listEvents({ sessionId: "s" }),
  () => driver.insertEvent("s", event("s", 1)),
  () => driver.insertEvents([event("s", 1)]),
  () => driver.insertEvents([]),
  () => driver.deleteSession("s"),
  () => driver.countSessions(),
  () => driver.countEvents(),
  () => driver.countEvents({ sessionId: "s" }),
  () => driver.lastEvent("s"),
  () => driver.streamSessions().next(),
  () => driver.streamEvents().next(),
  () => driver.streamEvents({ sessionId: "s" }).next(),
  () => driver.stats(),
  () => driver.replay("s"),
];

type Lists = {
  listEvents(request: {
    sessionId: string;
    cursor?: string;
    limit?: number;
  }): Promise<ListPage<SessionEvent>>;
};

/** All events of a session, read page by page. */
export async function allEvents(driver: Lists, sessionId: string, limit = 100) {
  const items: SessionEvent[] = [];
  let cursor: string | undefined;
  do {
    const page = await driver.listEvents({ sessionId, cursor, limit });
    items.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor);
  return items;
}

/** What a call rejected with, or fails. */
export async function rejection(call: Promise<unknown>): Promise<Error & Record<string, unknown>> {
  const outcome = await call.then(
    () => new Error("it resolved"),
    (error: Error & Record<string, unknown>) => error,
  );
  return outcome as Error & Record<string, unknown>;
}
