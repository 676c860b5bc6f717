/** The types by themselves: what they offer, and what they refuse. */
import {
  PostgresSessionPersistDriver,
  postgresSchemaSql,
  SQLiteSessionPersistDriver,
  type PersistError,
  type PostgresSessionPersistDriverOptions,
  type SessionEvent,
  type SessionRecord,
  type SQLiteSessionPersistDriverOptions,
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
