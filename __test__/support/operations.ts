/** Drivers of ours in every way that there is to open one, and what a list of theirs should be. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import {
  PostgresSessionPersistDriver,
  SQLiteSessionPersistDriver,
  type EventsFilter,
  type ListOrder,
  type ListPage,
  type SessionEvent,
  type SessionRecord,
  type SessionsFilter,
} from "../../index.js";
import { file, rejection } from "./fixtures.ts";
import { databaseUrl, freshSchema } from "./postgres.ts";

export type OurDriver = SQLiteSessionPersistDriver | PostgresSessionPersistDriver;

/** A driver of each kind, which the caller closes. */
export const ourDrivers: Record<string, (t: TestContext) => OurDriver> = {
  "SQLite file": (t) => new SQLiteSessionPersistDriver({ filename: file(t) }),
  "SQLite in memory": () => new SQLiteSessionPersistDriver(),
  "SQLite temporary": () => new SQLiteSessionPersistDriver({ filename: "" }),
  Postgres: (t) => openFresh(t, false),
  "Postgres, prepared statements": (t) => openFresh(t, true),
};

const openFresh = (t: TestContext, preparedStatements: boolean) =>
  new PostgresSessionPersistDriver({
    connectionString: databaseUrl(),
    schema: freshSchema(t),
    preparedStatements,
  });

/** Absent and undefined fields are the same to the contract. */
export const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value));

export const ids = (items: readonly { id: string }[]) => items.map(({ id }) => id);

/** Ids are ordered by their bytes. */
const byBytes = (left: string, right: string) =>
  Buffer.compare(Buffer.from(left), Buffer.from(right));

const inOrder = <T extends { id: string }>(
  items: readonly T[],
  number: (item: T) => number,
  order: ListOrder = "oldest",
): T[] => {
  const sorted = [...items].sort(
    (left, right) => number(left) - number(right) || byBytes(left.id, right.id),
  );
  return order === "newest" ? sorted.reverse() : sorted;
};

const within = (value: number, above?: number, below?: number) =>
  (above === undefined || value > above) && (below === undefined || value < below);

/** The sessions of these that satisfy the filter, in order. */
export const sessionsAmong = (
  sessions: Iterable<SessionRecord>,
  filter: SessionsFilter = {},
  order?: ListOrder,
): SessionRecord[] => {
  const { agent, sandboxId, destroyed, createdAfter, createdBefore } = filter;
  const matches = (session: SessionRecord) =>
    (agent === undefined || session.agent === agent) &&
    (sandboxId === undefined || session.sandboxId === sandboxId) &&
    (destroyed === undefined || (session.destroyedAt !== undefined) === destroyed) &&
    within(session.createdAt, createdAfter, createdBefore);
  return inOrder([...sessions].filter(matches), ({ createdAt }) => createdAt, order);
};

/** The events of these that satisfy the filter, in order. */
export const eventsAmong = (
  events: Iterable<SessionEvent>,
  filter: EventsFilter & { sessionId?: string | undefined } = {},
  order?: ListOrder,
): SessionEvent[] => {
  const { sessionId, sender, method, afterIndex, beforeIndex, createdAfter, createdBefore } =
    filter;
  const matches = (event: SessionEvent) =>
    (sessionId === undefined || event.sessionId === sessionId) &&
    (sender === undefined || event.sender === sender) &&
    (method === undefined || methodOf(event.payload) === method) &&
    within(event.eventIndex, afterIndex, beforeIndex) &&
    within(event.createdAt, createdAfter, createdBefore);
  return inOrder([...events].filter(matches), ({ eventIndex }) => eventIndex, order);
};

const methodOf = (payload: unknown): unknown =>
  typeof payload === "object" && payload !== null && !Array.isArray(payload)
    ? (payload as { method?: unknown }).method
    : undefined;

/** All pages of a list, read one after the other. */
export async function pages<T>(
  readPage: (cursor: string | undefined) => Promise<ListPage<T>>,
): Promise<T[][]> {
  const read: T[][] = [];
  let cursor: string | undefined;
  do {
    const page = await readPage(cursor);
    read.push(page.items);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return read;
}

/** All that an iterator gives. */
export async function collect<T>(iterator: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of iterator) items.push(item);
  return items;
}

/** The call rejects because of an argument. */
export async function refuses(call: () => Promise<unknown>, message: RegExp) {
  // A driver may not throw: whoever only catches rejections would miss it.
  const error = await rejection(call());
  assert.ok(error instanceof TypeError, String(error));
  assert.equal((error as { code?: unknown }).code, "ERR_PERSIST_INVALID_ARG");
  assert.match(error.message, message);
}
