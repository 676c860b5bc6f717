/** The types by themselves: what they offer, and what they refuse. */
import {
  PostgresSessionPersistDriver,
  postgresSchemaSql,
  SQLiteSessionPersistDriver,
  type EventsFilter,
  type ListPage,
  type PersistError,
  type PostgresSessionPersistDriverOptions,
  type SessionEvent,
  type SessionRecord,
  type SQLiteSessionPersistDriverOptions,
  type StoreMethods,
  type StoreStats,
} from "../../index.js";

const options: SQLiteSessionPersistDriverOptions = { durability: "normal", busyTimeoutMs: 5 };
export const driver = new SQLiteSessionPersistDriver(options);

export async function use(event: SessionEvent, session: SessionRecord): Promise<string[]> {
  await driver.updateSession(session);
  await driver.insertEvent(event);
  await driver.insertEvent(event.sessionId, event);
  const found: SessionRecord | undefined = await driver.getSession("s");
  const { items, nextCursor } = await driver.listEvents({ sessionId: "s" });
  driver[Symbol.dispose]();
  driver.close();
  return [found?.agent ?? "", nextCursor ?? "", ...items.map(({ id }) => id)];
}

/** Of either driver. */
export async function look(store: StoreMethods, events: readonly SessionEvent[]): Promise<number> {
  await store.insertEvents(events);
  const wasThere: boolean = await store.deleteSession("s");
  const last: SessionEvent | undefined = await store.lastEvent("s");
  for await (const { agent } of store.streamSessions({ destroyed: false, order: "newest" })) agent;
  for await (const { payload } of store.streamEvents({ sender: "agent", signal: undefined }))
    payload;
  const { bytes, largest, commits }: StoreStats = await store.stats({ largest: 3 });
  const counted = [await store.countSessions({ agent: "x" }), await store.countEvents()];
  return counted.length + (bytes.wal ?? 0) + (largest?.[0]?.bytes ?? 0) + commits.latencyMs.p99;
}

const filter: EventsFilter = { sender: "client", method: undefined, afterIndex: 5 };
export const pages: Promise<ListPage<SessionEvent> | ListPage<SessionRecord>>[] = [
  driver.listEvents({ sessionId: "s", order: "newest", ...filter }),
  driver.listSessions({ sandboxId: "box", createdAfter: 0, order: undefined }),
];
export const counts = driver.countEvents({ sessionId: "s", ...filter });
export const iterator: AsyncIterableIterator<SessionEvent> = driver.streamEvents();

declare const fromEnvironment: string | undefined;
const shared: PostgresSessionPersistDriverOptions = {
  connectionString: fromEnvironment,
  poolConfig: { host: "db", password: () => "token", ssl: { ca: "PEM" }, statement_timeout: false },
  migrate: false,
};
export const sharedDriver = new PostgresSessionPersistDriver(shared);
export const ends: Promise<void>[] = [
  sharedDriver.close(),
  sharedDriver[Symbol.asyncDispose](),
  sharedDriver.updateSession({} as SessionRecord),
];
export const sql: string = postgresSchemaSql() + postgresSchemaSql("agents");
export const stateOf = (error: PersistError): string | undefined => error.sqlState;

export const isBusy = (error: PersistError) => error.code === "ERR_PERSIST_BUSY";

// @ts-expect-error an option that doesn't exist
new SQLiteSessionPersistDriver({ fileName: "a.db" });
// @ts-expect-error a durability that doesn't exist
new SQLiteSessionPersistDriver({ durability: "off" });
// @ts-expect-error a session id is missing
void driver.listEvents({});
// @ts-expect-error a code that doesn't exist
export const isWrong = (error: PersistError) => error.code === "ERR_BUSY";
// @ts-expect-error an option of a pool that doesn't exist
new PostgresSessionPersistDriver({ poolConfig: { hostname: "db" } });
// @ts-expect-error a schema is a name
postgresSchemaSql(["public"]);
// @ts-expect-error an order that doesn't exist
void driver.listSessions({ order: "desc" });
// @ts-expect-error a filter of events
void driver.countSessions({ sender: "agent" });
// @ts-expect-error a sender that doesn't exist
void driver.listEvents({ sessionId: "s", sender: "user" });
// @ts-expect-error streams have no pages
driver.streamEvents({ limit: 5 });
// @ts-expect-error a batch is an array
void driver.insertEvents({} as SessionEvent);
